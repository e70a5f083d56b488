#!/bin/bash
# Kernel devices come and go a hundred times, sixteen at once, with I/O in flight, with the peer gone, with the module gone in between;
# who has one is named and keeps it. Nothing is left of them.
# VM: qemu
# MODULES: nbd veth loop
# PROGRAMS: mkfs.ext4 mkswap swapon swapoff
# TIMEOUT: 900
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 44

CYCLES=100 STORM=16
two_hosts
for ((i = 0; i < STORM; i++)); do
	truncate -s 16M "$DIR/vol$i.img"
	serve "$A" vol$i "$DIR/vol$i.img" "tcp:$A4:9876"
done

# ---- cycles

# cycle N: attached, written, flushed, read and removed
cycle() {
	local dev=$DIR/b/dev/vol0
	ctl "$B" remote add vol0 peer "tcp:$A4:9876" start &&
		echo "cycle $1" | dd of="$dev" bs=512 count=1 conv=sync,fsync status=none &&
		[ "$(head -n 1 "$dev")" = "cycle $1" ] &&
		ctl "$B" del vol0 && [ ! -L "$dev" ] && none_attached
}
reload() { rmmod nbd && modprobe nbd; }
good=0 started=$SECONDS
for ((i = 1; i <= CYCLES; i++)); do
	cycle $i >>"$DIR/out" 2>&1 || { diag "cycle $i: $(tail -n 5 "$DIR/out")"; break; }
	good=$i
	[ $i != 1 ] || had=$(fds "$DSTD_B")
	[ $((i % 33)) != 0 ] || reload || { diag "the module can not be taken out and loaded again"; break; }
done
is "the device comes and goes, the module thrice in between" "$good" $CYCLES
diag "time: $CYCLES times in $((SECONDS - started)) s"
# After the first one what the session had may be on its way out.
fds_or_fewer() { [ "$(fds "$DSTD_B")" -le "$had" ]; }
check "the daemon has no more descriptors than after the first time" wait_for 10 fds_or_fewer

# ---- all at once

# all WORD...: the command for each of the nodes, all of them at the same time; ok if all succeed
all() {
	local i pids=() bad=0
	for ((i = 0; i < STORM; i++)); do
		ctl "$B" -wait 60s "${@/NODE/vol$i}" & pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || bad=$((bad + 1)); done
	[ $bad = 0 ] || { echo "$bad of $STORM failed"; false; }
}
distinct() { realpath "$DIR"/b/dev/* | sort -u | grep -c '^/dev/nbd'; }
right() {
	local i
	for ((i = 0; i < STORM; i++)); do
		[ "$(head -n 1 "$DIR/b/dev/vol$i")" = "this is $i" ] || { echo "vol$i is another"; return 1; }
	done
}
for ((i = 0; i < STORM; i++)); do echo "this is $i" | dd of="$DIR/vol$i.img" bs=512 conv=sync,notrunc status=none; done
for round in 1 2 3; do
	started=${EPOCHREALTIME//[!0-9]/}
	check "storm $round: $STORM at once" all remote add NODE peer "tcp:$A4:9876" start
	diag "time: $STORM devices attached in $(((${EPOCHREALTIME//[!0-9]/} - started) / 1000)) ms"
	is "storm $round: each has a device" "$(distinct)" $STORM
	check "storm $round: and its own" right
	[ $round != 1 ] || {
		truncate -s 16M "$DIR/more.img"
		serve "$A" more "$DIR/more.img" "tcp:$A4:9876"
		check "and one more than the module made when it was loaded" ctl "$B" remote add more peer "tcp:$A4:9876" start
		check "which goes again" ctl "$B" del more
	}
	check "storm $round: all removed at once" all del NODE
	is "storm $round: none is left" "$(attached)" ""
done

# ---- who has it keeps it

busy() { refused "del is refused: $1" 2 "$2" ctl "$B" del vol0; }
device vol0 "tcp:$A4:9876"
mkfs.ext4 -q "$DEV"
mounted "$DEV"
busy "it is mounted" "mounted on $MNT"
check "and it is whole" touch "$MNT/file"
umount "$MNT"
sleep 1000 <"$DEV" & reader=$!
busy "a process has it open" "open in process $reader \(sleep\)"
stop_pid $reader
loop=$(losetup -f --show "$DEV")
busy "a loop device holds it" "held by ${loop#/dev/}"
losetup -d "$loop"
mkswap "$DEV" >/dev/null 2>&1 && swapon "$DEV" || diag "no swap"
busy "it is swap" swap
swapoff "$DEV"
check "of no use to anybody, it is removed" ctl "$B" del vol0

# ---- by force

# writer: writes to the device, one after the other, until it fails; its end is the sign
writer() { while dd if=/dev/zero of="$DEV" bs=64k count=200 oflag=direct; do :; done >"$DIR/writer" 2>&1; }
# forced WHAT: 5 results: del with force while writers are at it
forced() {
	local started i pids=() before
	for i in 1 2 3 4; do writer & pids+=($!); done
	before=$(finished)
	wait_for 10 finished_more_than $((before + 10))
	$2
	refused "$1: del without force is refused" 2 'in use' ctl "$B" del vol0
	started=${EPOCHREALTIME//[!0-9]/}
	check "$1: del force" timeout 30 nsenter --net="/run/netns/$B" "$BIN/dstctl" del vol0 force
	took=$(((${EPOCHREALTIME//[!0-9]/} - started) / 1000))
	diag "time: $1: del force took $took ms"
	check "$1: in bounded time" test $took -lt 10000
	wait_for 10 none_running "${pids[@]}"
	check "$1: the writers have ended" none_running "${pids[@]}"
	wait "${pids[@]}"
	check "$1: with an error" grep -q 'Input/output error\|No space\|No such device' "$DIR/writer"
	wait_for 5 none_attached
	is "$1: no device is left" "$(attached)" ""
}
none_running() { local p; for p; do _gone "$p" || return 1; done; }

device vol0 "tcp:$A4:9876"
forced "I/O in flight" true
device vol0 "tcp:$A4:9876"
forced "the peer gone" "blackhole on"
blackhole off
device vol0 "tcp:$A4:9876"
mkfs.ext4 -q "$DEV"
mounted "$DEV"
forced_mount() {
	blackhole on
	dd if=/dev/zero of="$MNT/file" bs=64k count=100 conv=fsync >"$DIR/writer" 2>&1 & local pid=$!
	wait_for 20 eval '[ "$(field "$B" vol0 .details.in_flight)" -gt 0 ]'
	check "mounted, the peer gone: del force" ctl "$B" del vol0 force
	wait_for 20 _gone $pid
	check "mounted, the peer gone: the writer has ended" _gone $pid
	wait $pid
	is "mounted, the peer gone: with an error" $? 1
	blackhole off
	check "mounted, the peer gone: it can be unmounted" timeout 30 umount "$MNT"
}
forced_mount
# By force, requests fail, and a size may come too late.
all_gone 'I/O error, dev nbd0' 'Buffer I/O error on dev(ice)? nbd0' 'EXT4-fs (error|warning) \(device nbd0\)' 'EXT4-fs \(nbd0\)' 'Aborting journal|JBD2: ' \
	'nbd0: (Send control failed|not configured, cannot reconfigure)' 'Adding .* swap on' 'nbd: registered device at major'
