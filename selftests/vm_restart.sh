#!/bin/bash
# A mounted device outlives its daemon: stopped or killed, the next one takes it over and requests go on, without an error, within the
# times that are documented. Devices of others, and of attachments that the daemon does not remember, are never touched.
# VM: qemu
# MODULES: nbd veth
# PROGRAMS: fio mkfs.ext4 fsck.ext4 qemu-nbd setpriv
# TIMEOUT: 900
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 67

# What README.md says: the kernel asks again within 5 s for what it had handed to the dead daemon.
DOCUMENTED=5000

two_hosts
truncate -s 320M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
device vol0 "tcp:$A4:9876"
mkfs.ext4 -q "$DEV"
mounted "$DEV"
BACKEND=$(cat "/sys/block/$NBD/backend")

established() { state_is "$B" vol0 established; }
ours() { [ "$(cat "/sys/block/$NBD/backend")" = "$BACKEND" ]; }
now() { echo $((${EPOCHREALTIME//[!0-9]/} / 1000)); }

# ---- stopped and killed, with nothing in flight

for signal in TERM KILL; do
	echo "before $signal" >"$MNT/$signal"
	sync
	check "$signal: the daemon ends" stop_pid "$DSTD_B" $signal
	check "$signal: the device stays" ours
	check "$signal: and its link" test "$(realpath "$DEV")" = "/dev/$NBD"
	check "$signal: and its mount" mountpoint -q "$MNT"
	dd if=/dev/urandom of="$MNT/while" bs=64k count=16 conv=fsync 2>"$DIR/dd" & writer=$!
	wait_for 10 eval '[ "$(awk "{ print \$9 }" "/sys/block/$NBD/stat")" -gt 0 ]'
	check "$signal: a writer waits" kill -0 $writer
	started=$(now)
	start_b
	wait $writer
	is "$signal: and goes on with the next daemon" $? 0
	took=$(($(now) - started))
	diag "time: $signal: a write that waited for a daemon was durable $took ms after its start"
	check "$signal: in time" test $took -lt $((10 * DOCUMENTED))
	wait_for 10 established
	is "$signal: the same device is shown" "$(field "$B" vol0 .kernel_device) $(field "$B" vol0 .link)" "/dev/$NBD $DEV"
	check "$signal: and who has it" grep -q "mounted on $MNT" <(ctl "$B" show vol0)
	check "$signal: its files are there" grep -q "before $signal" "$MNT/$signal"
done

# ---- the same under load

fs_load 30
for signal in KILL KILL TERM KILL KILL KILL; do
	wait_for 20 finished_more_than $(($(finished) + 200))
	started=$(now)
	fs_under "$signal under load" 1 "stop_pid $DSTD_B $signal" start_b
	check "$signal under load: requests waited no longer than documented" test $(($(now) - started)) -lt $((10 * DOCUMENTED))
done
fs_verified
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0

# ---- requests that may not wait for ever

truncate -s 16M "$DIR/vol2.img"
serve "$A" vol2 "$DIR/vol2.img" "tcp:$A4:9876"
ctl "$B" remote add vol2 peer "tcp:$A4:9876" fail-after 4s start || bail "vol2 cannot be attached"
blackhole on
started=$(now)
timeout 60 dd if="$DIR/b/dev/vol2" of=/dev/null bs=4k count=1 iflag=direct >"$DIR/dd" 2>&1
is "fail-after: a request ends" $? 1
took=$(($(now) - started))
diag "time: a request failed $took ms after the peer was gone, with fail-after 4s"
check "fail-after: with EIO" grep -q 'Input/output error' "$DIR/dd"
check "fail-after: not before its time, nor long after it" test $took -ge 4000 -a $took -lt 40000
blackhole off
check "fail-after: the node is removed" ctl "$B" del vol2 force
wait_for 10 established

# ---- a daemon that has forgotten

stop_pid "$DSTD_B" KILL
mv "$DIR/b/run" "$DIR/forgotten"
start_b
is "a daemon whose run directory was erased knows no node" "$(ctl "$B" -j show | jq '.nodes | length')" 0
check "and does not touch the device" ours
ctl "$B" remote add other peer "tcp:$A4:9876" export vol0 attach none
check "removing a node of its own does not either" ctl "$B" del other force
check "the device is still the old one's" ours
check "and mounted" mountpoint -q "$MNT"
stop_pid "$DSTD_B"
umount -R "$DIR/b/run" 2>/dev/null
rm -rf "$DIR/b/run" && mv "$DIR/forgotten" "$DIR/b/run"
dd if="$MNT/while" of=/dev/null bs=64k iflag=direct 2>"$DIR/dd" & reader=$!
start_b
wait $reader
is "with its run directory back, requests go on" $? 0

# ---- a daemon that may not

stop_pid "$DSTD_B"
RUN_DSTD=(setpriv --bounding-set -sys_admin --inh-caps -sys_admin)
start_b
unset RUN_DSTD
is "without CAP_SYS_ADMIN the node is lost" "$(field "$B" vol0 .state)" failed
check "and says why" grep -q 'reason: .*CAP_SYS_ADMIN' <(ctl "$B" show vol0)
check "its device is shown" grep -q "/dev/$NBD" <(ctl "$B" show vol0)
refused "and cannot be freed" 2 CAP_SYS_ADMIN ctl "$B" del vol0 force
check "it is as it was" ours
stop_pid "$DSTD_B"
start_b
wait_for 10 established
check "with it, the node is back" established

# ---- devices of others

truncate -s 16M "$DIR/foreign.img"
taken=nbd7
qemu-nbd -k "$DIR/qemu.sock" -f raw -c /dev/$taken "$DIR/foreign.img" >"$DIR/out" 2>&1 || bail "no foreign device: $(cat "$DIR/out")"
ns_new C
start_dstd "$C" "$DIR/c" || bail "no daemon"
truncate -s 16M "$DIR/vol1.img"
serve "$A" vol1 "$DIR/vol1.img" "unix:$DIR/vol1.sock"
ctl "$C" remote add vol0 peer "unix:$DIR/vol1.sock" export vol1 start || bail "no second device"
THEIRS=$(basename "$(realpath "$DIR/c/dev/vol0")")
check "another daemon's device of the same name is another" test "$THEIRS" != "$NBD"
DSTD_C=$DSTD_PID
stop_pid "$DSTD_C" KILL
stop_pid "$DSTD_B" KILL
start_b
wait_for 10 established
check "a restart takes over its own" established
check "and leaves that of a dead daemon alone" grep -q ^dst:vol0: "/sys/block/$THEIRS/backend"
umount "$MNT"
check "its own is clean" fs_check ext4 "$DEV"
check "removing it by force" ctl "$B" del vol0 force
check "leaves the other daemon's" grep -q ^dst:vol0: "/sys/block/$THEIRS/backend"
check "and a foreign one's" cmp -n 1048576 /dev/$taken "$DIR/foreign.img"

# ---- a daemon that comes back while the peer is gone frees what is left

stop_pid "$DSTD_A" KILL
start_dstd "$C" "$DIR/c" || bail "no daemon"
DSTD_C=$DSTD_PID
dd if=/dev/$THEIRS of=/dev/null bs=4k count=1 iflag=direct 2>"$DIR/dd" & reader=$!
check "the peer gone: the device is shown" grep -q "/dev/$THEIRS" <(ctl "$C" show vol0)
refused "del is refused, naming who has it" 2 "open in process $reader \(dd\)" ctl "$C" del vol0
started=$(now)
check "del force frees it" timeout 60 nsenter --net="/run/netns/$C" "$BIN/dstctl" del vol0 force
diag "time: del force of a device that nobody served: $(($(now) - started)) ms"
wait_for 10 _gone $reader
check "who waited for it is told" _gone $reader
wait $reader
is "with an error" $? 1
check "the index is free" test ! -e "/sys/block/$THEIRS/backend"
start_a
qemu-nbd -d /dev/$taken >/dev/null
all_gone "I/O error, dev ($THEIRS|nbd1)" 'nbd1: Other side returned error \(5\)'
