#!/bin/bash
# What a file system asks of the kernel device reaches the export's file: flushes, FUA, discards, zeroes, sizes, partitions, read-only.
# VM: qemu
# MODULES: nbd veth xfs
# PROGRAMS: mkfs.ext4 fsck.ext4 resize2fs mkfs.xfs xfs_repair strace
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 80

two_hosts
count() { field "$1" vol0 ".counters.$2"; }
more() { [ "$(($(count "$1" "$2") - $3))" -ge "$4" ]; }
used() { echo $(($(stat -c '%b*%B' "$DIR/vol0.img") >> 20)); }
MIB=$((1 << 20))
# fill COUNT: so many MiB that are not zero
fill() { tr '\0' x </dev/zero | head -c ${1}M; }

# ---- flushes and FUA. A direct write over blocks that exist, with O_DSYNC, is made durable by FUA alone: no flush comes with it.

# durable COMMAND...: sets DURABLE to how often the export's daemon makes a write to its file durable while COMMAND runs, and FLUSHES to
# how many flushes the two ends count
durable() {
	local tracer before
	strace -f -qq -e trace=pwritev2,fdatasync -o "$DIR/strace" -p "$DSTD_A" & tracer=$!
	wait_for 10 grep -q '^TracerPid:.*[1-9]' "/proc/$DSTD_A/status"
	before=$(($(count "$A" flushes) + $(count "$B" flushes)))
	"$@" >"$DIR/out" 2>&1 || diag "$*: $(cat "$DIR/out")"
	FLUSHES=$(($(count "$A" flushes) + $(count "$B" flushes) - before))
	stop_pid $tracer INT
	DURABLE=$(grep -Ec '^[0-9]+ +(pwritev2.*RWF_DSYNC|fdatasync)' "$DIR/strace")
}

for fs in ext4 xfs; do
	rm -f "$DIR/vol0.img" && truncate -s 320M "$DIR/vol0.img"
	serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
	device vol0 "tcp:$A4:9876"
	is "$fs: a write-back cache, with FUA" "$(cat "/sys/block/$NBD/queue/write_cache" "/sys/block/$NBD/queue/fua" | xargs)" "write back 1"
	check "mkfs.$fs" mkfs.$fs -q "$DEV"
	# No flush shall come by itself meanwhile.
	if [ $fs = ext4 ]; then
		mounted "$DEV" -o commit=300,noinit_itable
	else
		sysctl -qw fs.xfs.xfssyncd_centisecs=720000
		mounted "$DEV"
	fi
	fill 8 >"$MNT/file"
	sync -f "$MNT"
	here=$(count "$B" flushes) there=$(count "$A" flushes)
	dd if=/dev/urandom of="$MNT/file" bs=4k count=1 conv=notrunc,fsync status=none
	check "$fs: fsync sends FLUSH" more "$B" flushes "$here" 1
	check "$fs: and the export gets it" more "$A" flushes "$there" 1
	durable dd if=/dev/urandom of="$MNT/file" bs=4k count=8 conv=notrunc oflag=direct,dsync
	is "$fs: each O_DSYNC write is made durable" "$DURABLE" 8
	is "$fs: by FUA: there was no FLUSH" "$FLUSHES" 0

	# ---- discards
	fill 48 >"$MNT/big"
	sync -f "$MNT"
	before=$(used)
	rm "$MNT/big"
	sync -f "$MNT"
	here=$(count "$B" discards)
	check "$fs: fstrim" fstrim "$MNT"
	check "$fs: fstrim sends DISCARD" more "$B" discards "$here" 1
	check "$fs: and frees blocks of the export's file" test "$(used)" -le $((before - 45))
	diag "$fs: the file had $before MiB, has $(used) MiB after fstrim"
	check "$fs: umount" umount "$MNT"
	check "$fs: is clean" fs_check $fs "$DEV"
	check "$fs: is removed" ctl "$B" del vol0
	check "$fs: the link went with it" test ! -L "$DEV"
	ctl "$A" del vol0
done

# ---- zeroes

# zero AT LENGTH, differs AT LENGTH: whether those MiB of the device are zero, or not all
zero() { cmp -s -n $(($2 * MIB)) -i $(($1 * MIB)):0 "$DEV" /dev/zero; }
differs() { ! zero "$@"; }
rm -f "$DIR/vol0.img" && truncate -s 32M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
device vol0 "tcp:$A4:9876"
fill 32 | dd of="$DEV" bs=1M iflag=fullblock oflag=direct status=none
is "it is full" "$(used)" 32
check "the kernel offloads zeroing" test "$(cat "/sys/block/$NBD/queue/write_zeroes_max_bytes")" -gt 0
written=$(count "$B" written_bytes) zeroes=$(count "$B" zeroes)
check "blkdiscard -z" blkdiscard -z -o $((4 * MIB)) -l $((8 * MIB)) "$DEV"
check "sends ZEROES" more "$B" zeroes "$zeroes" 1
is "and no data" "$(($(count "$B" written_bytes) - written))" 0
check "the range is zero" zero 4 8
check "and nothing before it" differs 0 4
check "or behind it" differs 12 4
is "its blocks stay allocated: NO_HOLE came along" "$(used)" 32
check "fallocate -p" fallocate -p -o $((16 * MIB)) -l $((8 * MIB)) "$DEV"
is "frees blocks of the export's file" "$(used)" 24
check "blkdiscard" blkdiscard "$DEV"
is "frees all of them" "$(used)" 0

# ---- sizes

size_is() { [ "$(blockdev --getsize64 "$DEV")" = $(($1 * MIB)) ]; }
check "mkfs.ext4" mkfs.ext4 -q "$DEV"
mounted "$DEV"
cp -r "$TOP/selftests" "$MNT/"
blocks=$(stat -fc %b "$MNT")
truncate -s 64M "$DIR/vol0.img"
check "the export is told of a grown file" ctl "$A" export set vol0 size all
wait_for 10 size_is 64
is "the mounted device grows" "$(blockdev --getsize64 "$DEV")" $((64 * MIB))
check "resize2fs" resize2fs "$DEV"
check "the file system grows" test "$(stat -fc %b "$MNT")" -gt $((blocks * 3 / 2))
refused "a smaller size is refused while it is mounted" 2 'in use.*mounted on' ctl "$B" remote set vol0 size 32M
check "and the device keeps its size" size_is 64
check "what lies behind the old end can be written" dd if=/dev/zero of="$MNT/file" bs=1M count=40 conv=fsync status=none
check "umount" umount "$MNT"
check "is clean" fs_check ext4 "$DEV"
check "unused, it can become smaller" ctl "$B" remote set vol0 size 32M
check "and is" size_is 32
check "and whole again" ctl "$B" remote set vol0 size all
wait_for 10 size_is 64
check "is" size_is 64
check "del" ctl "$B" del vol0

# ---- partitions

parts() { ls -d "/sys/block/$NBD/$NBD"p* 2>/dev/null | wc -l; }
parts_are() { [ "$(parts)" = "$1" ]; }
# A table in the first sector: two of 16 MiB, type 83.
entry='\0\0\0\0\x83\0\0\0'
printf "$entry\0\010\0\0\0\200\0\0$entry\0\210\0\0\0\200\0\0" | dd of="$DIR/vol0.img" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$DIR/vol0.img" bs=1 seek=510 conv=notrunc status=none
device vol0 "tcp:$A4:9876"
wait_for 10 parts_are 2
is "partitions are found" "$(parts)" 2
check "and can be written" dd if=/dev/zero of="/dev/${NBD}p1" bs=1M count=1 oflag=direct status=none
check "del with partitions" ctl "$B" del vol0
device vol0 "tcp:$A4:9876" partscan off
blockdev --getsize64 "$DEV" >/dev/null
wait_for 10 parts_are 0
is "or not, if partscan is off" "$(parts)" 0
check "del without partitions" ctl "$B" del vol0

# ---- read-only

# read_only HOW: 6 results: the device, attached by then, is read-only
read_only() {
	is "$1: the device is read-only" "$(blockdev --getro "$DEV")" 1
	refused "$1: a write is refused" 1 'Operation not permitted' dd if=/dev/zero of="$DEV" bs=4k count=1 oflag=direct
	check "$1: a read is not" dd if="$DEV" of=/dev/null bs=1M count=1 status=none
	refused "$1: it can not be mounted read-write" 32 'read-only|write-protected' mount -w "$DEV" "$MNT"
	check "$1: but read-only" mount -o ro "$DEV" "$MNT"
	check "$1: umount" umount "$MNT"
	ctl "$B" del vol0
}
mkfs.ext4 -q -F "$DIR/vol0.img"
ctl "$A" security add vol0 any ro
device vol0 "tcp:$A4:9876"
read_only "a rule that lets read"
ctl "$A" security add vol0 any rw
device vol0 "tcp:$A4:9876" read-only
read_only "a remote that wants no more"
ctl "$A" del vol0
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876" read-only
device vol0 "tcp:$A4:9876"
read_only "a read-only export"
all_gone
