#!/bin/bash
# A configuration tool of the original driver makes an export on one host and a block device with a file system on the other: at the
# daemon's port, and unmodified, sending to the kernel, with the shim.
# VM: qemu
# MODULES: nbd veth
# PROGRAMS: mkfs.ext4 fsck.ext4
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 41

PORT=0x445354 # abi.Port
two_hosts
truncate -s 64M "$DIR/disk"
printf '3 %s\n' "$B4" >"$DIR/rules"
SHIM=() TO=()
tool() { in_ns "$1" ${SHIM+"${SHIM[@]}"} "$BIN/dst_tool" ${TO+"${TO[@]}"} "${@:2}" 2>&1 | xargs; }

# life HOW: 18 results
life() {
	is "$1: an export, its rule, its digest, started" "$(tool "$A" -n disk0 -d "$DIR/disk" -a $A4 -p 9876 -s "$DIR/rules" -x crc32c -R)" \
		"add: ok security: ok crypto: ok start: ok"
	is "$1: a remote, its digest, started" "$(tool "$B" -n disk0 -a $A4 -p 9876 -x crc32c -R)" "add: ok crypto: ok start: ok"
	DEV=$DIR/b/dev/disk0
	wait_for 10 test -b "$DEV"
	check "$1: the device appears" test -b "$DEV"
	NBD=$(basename "$(realpath "$DEV")")
	is "$1: as large as the export" "$(blockdev --getsize64 "$DEV")" $((64 << 20))
	is "$1: the daemon shows it" "$(field "$B" disk0 .kernel_device)" "/dev/$NBD"
	check "$1: mkfs.ext4" mkfs.ext4 -q -F "$DEV"
	mounted "$DEV"
	check "$1: files" cp -r "$TOP/selftests" "$MNT/"
	is "$1: mounted, it is not removed" "$(tool "$B" -n disk0 -D)" "del: EBUSY"
	check "$1: and still there" diff -r "$TOP/selftests" "$MNT/selftests"
	is "$1: nor is the export" "$(tool "$A" -n disk0 -D)" "del: EBUSY"
	check "$1: umount" umount "$MNT"
	check "$1: it is clean" fs_check ext4 "$DEV"
	is "$1: the remote is removed" "$(tool "$B" -n disk0 -D)" "del: ok"
	is "$1: and its device" "$(attached)" ""
	check "$1: and its link" test ! -L "$DEV"
	wait_for 10 idle
	is "$1: the export is removed" "$(tool "$A" -n disk0 -D)" "del: ok"
	check "$1: the file has the file system" fs_check ext4 "$DIR/disk"
	is "$1: no node is left" "$(ctl "$A" -j show | jq -c .nodes) $(ctl "$B" -j show | jq -c .nodes)" "[] []"
}
idle() { [ "$(field "$A" disk0 .clients)" = 0 ]; }

TO=(-P $PORT)
life "the daemon's port"
SHIM=(env "LD_PRELOAD=$BIN/cnshim.so") TO=()
life "the shim"
SHIM=()
is "without it nobody answers" "$(tool "$B" -n none -D)" "del: no answer"
is "and the daemon heard nothing" "$(ctl "$B" -j show | jq -c .nodes)" "[]"
all_gone
