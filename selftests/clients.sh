#!/bin/bash
# NBD clients as they come work with "attach socket", and what they ask for reaches the export's file.
. "$(dirname "$0")/lib.sh"
requires ip nbdinfo nbdcopy qemu-img qemu-io fio jq strace
requires_root
plan 29

tmpfs_dir DIR
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
EXPORTER=$DSTD_PID
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 64M "$DIR/vol0.img" "$DIR/scratch.img"
head -c 40M /dev/urandom >"$DIR/source"
truncate -s 64M "$DIR/source"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
serve "$A" scratch "$DIR/scratch.img" "tcp:$A4:9876"
attach "$B" scratch "$DIR/scratch.sock" "tcp:$A4:9876" && SCRATCH=$URI
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"

sum() { sha256sum <"$1"; }
want=$(sum "$DIR/source")

# ---- clients

info=$(nbdinfo --json "$URI")
is "nbdinfo sees the size" "$(jq '.exports[0]["export-size"]' <<<"$info")" $((64 << 20))
is "nbdinfo sees what can be done" \
	"$(jq -c '.exports[0] | [.can_flush, .can_fua, .can_trim, .can_zero, .is_read_only]' <<<"$info")" '[true,true,true,true,false]'
is "nbdinfo lists the export by its name" "$(nbdinfo --list --json "nbd+unix:///?socket=$DIR/vol0.sock" | jq -r '.exports[]."export-name"')" vol0

check "nbdcopy writes" nbdcopy --flush "$DIR/source" "$URI"
is "what was written is in the export's file" "$(sum "$DIR/vol0.img")" "$want"
check "nbdcopy reads" nbdcopy "$URI" "$DIR/copy"
is "what was read is the same" "$(sum "$DIR/copy")" "$want"
check "frames carry a checksum on their way" test "$(field "$B" vol0 .details.settings.hash.value)" = crc32c

check "qemu-img converts to it" qemu-img convert -n -f raw -O raw "$DIR/source" "$SCRATCH"
is "what qemu-img wrote is in the export's file" "$(sum "$DIR/scratch.img")" "$want"
check "qemu-img converts from one to a file" qemu-img convert -f raw -O raw "$SCRATCH" "$DIR/copy2"
is "what qemu-img read is the same" "$(sum "$DIR/copy2")" "$want"
check "qemu-img compares" qemu-img compare -f raw -F raw "$URI" "$SCRATCH"
check "fio verifies what it wrote" fio --name=verify --ioengine=nbd --uri="$SCRATCH" --rw=randrw --bsrange=4k-256k --iodepth=16 \
	--fsync=32 --size=64M --verify=crc32c --verify_backlog=128 --verify_fatal=1 --verify_state_save=0

# ---- what they ask for

# io COMMAND...: qemu-io with write-back, so that FUA and flush are asked for only where the commands say so
io() {
	local args=() c
	for c in "$@"; do args+=(-c "$c"); done
	qemu-io -t writeback -f raw "${args[@]}" "$URI"
}
count() { field "$A" vol0 ".counters.$1"; }
blocks() { stat -c %b "$DIR/vol0.img"; }

# calls WHAT COMMAND...: what the export calls meanwhile goes to the file $DIR/calls
calls() {
	strace -f -qq -e trace=fdatasync,fsync,pwrite64,pwritev2,fallocate -e signal=none -o "$DIR/calls" -p "$EXPORTER" 2>/dev/null &
	local tracer=$!
	cleanup "stop_pid $tracer"
	wait_for 10 grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$EXPORTER/status" || bail "strace cannot trace the daemon"
	"$@" >/dev/null
	stop_pid $tracer INT
}

before=$(count flushes)
calls io 'write -P 1 0 64k' 'flush'
check "a flush is an fdatasync of the file" grep -Eq 'fdatasync\([0-9]+' "$DIR/calls"
check "and is counted" test "$(count flushes)" -gt "$before"
# qemu flushes when it closes, with or without FUA: it is the one sync more that tells.
syncs() { grep -Ec 'RWF_DSYNC|fdatasync\(' "$DIR/calls"; }
calls io 'write -P 1 64k 64k' && plain=$(syncs)
calls io 'write -P 2 -f 64k 64k'
is "FUA makes that one write durable" "$(syncs)" $((plain + 1))
is "and the bytes are there" "$(cmp "$DIR/vol0.img" <(head -c 64k /dev/zero | tr '\0' '\2') -i 65536:0 -n 65536 && echo same)" same

before=$(count discards) had=$(blocks)
calls io 'discard 0 8M'
check "a trim punches a hole" grep -q 'FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE' "$DIR/calls"
is "8 MiB of blocks are given back" $((had - $(blocks))) $((8 << 20 >> 9))
check "and it is counted" test "$(count discards)" -gt "$before"

before=$(count zeroes) had=$(blocks)
check "zeroes may make a hole" io 'write -z -u 8M 8M'
is "then blocks are given back" $((had - $(blocks))) $((8 << 20 >> 9))
check "and it is counted" test "$(count zeroes)" -gt "$before"
had=$(blocks)
check "zeroes that must not make a hole" io 'write -z 16M 8M' 'write -z 0 8M'
is "keep blocks and fill holes" $(($(blocks) - had)) $((8 << 20 >> 9))
is "all of it reads as zeroes" "$(cmp -n $((24 << 20)) "$DIR/vol0.img" /dev/zero && echo same)" same
is "and what lies behind did not change" "$(cmp -i $((24 << 20)) "$DIR/vol0.img" "$DIR/source" && echo same)" same
is "no request failed" "$(count errors) $(field "$B" vol0 .counters.errors)" "0 0"
