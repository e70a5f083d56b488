#!/bin/bash
# A daemon that is stopped, or killed, and started again has its nodes again; remotes come back to it, and NBD clients to their remotes.
# What was acknowledged and not flushed when an export is killed is written again by the remote, or by the next daemon of its host; only if
# the log is lost, too, the remote fails, and says why.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq qemu-io nbdinfo fio
requires_root
plan 38

tmpfs_dir DIR
ns_pair A B
start_a() { start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"; }
start_b() { start_dstd "$B" "$DIR/b" && DSTD_B=$DSTD_PID || bail "no daemon"; }
start_a
start_b
truncate -s 64M "$DIR/vol0.img" "$DIR/vol1.img" "$DIR/idle.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876,tcp:[$A6]:9876"
serve "$A" vol1 "$DIR/vol1.img" "tcp:$A4:9876" max-pages 64
ctl "$A" security add vol1 10.99.0.0/16 deny
ctl "$A" export add idle device "$DIR/idle.img" listen "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"

# What there is, without what time and life change.
config() { ctl "$A" -j -d show | jq -cS '.nodes | map({name, kind, device, listen, flags, size, state, rules: .details.rules, settings: .details.settings, store: .details.store_id})'; }
epoch() { field "$B" vol0 .details.epoch; }
client() { field "$B" vol0 .details.client_id; }
established() { state_is "$B" vol0 established; }
epoch_above() { [ "$(epoch)" -gt "$1" ]; }
io() { timeout 30 qemu-io -t none -f raw "${@/#/-c}" "$URI"; }

# restart_a SIGNAL: ends the export's daemon by that and starts it again
restart_a() {
	stop_pid "$DSTD_A" "$1"
	start_a
}

before=$(config) id=$(client)

# ---- the export's daemon, under load that only reads, and that flushes what it writes

for signal in TERM KILL; do
	had=$(epoch)
	fio --name=load --ioengine=nbd --uri="$URI" --rw=randread --bs=16k --iodepth=16 --size=64M --time_based --runtime=3 >"$DIR/fio.out" 2>&1 &
	fio=$!
	cleanup "stop_pid $fio"
	wait_for 5 eval '[ "$(field "$B" vol0 .details.in_flight)" -gt 0 ]'
	restart_a $signal
	is "$signal at the export: nodes, rules and settings are back" "$(config)" "$before"
	check "the remote comes back with a higher epoch" wait_for 10 epoch_above "$had"
	is "as the same client" "$(client)" "$id"
	wait $fio
	is "readers met no error" $? 0
done

# ---- the remote's daemon

for signal in TERM KILL; do
	had=$(epoch)
	fio --name=load --ioengine=nbd --uri="$URI" --rw=randread --bs=16k --iodepth=16 --size=64M --time_based --runtime=60 >"$DIR/fio.out" 2>&1 &
	fio=$!
	cleanup "stop_pid $fio"
	wait_for 5 eval '[ "$(field "$B" vol0 .details.in_flight)" -gt 0 ]'
	stop_pid "$DSTD_B" $signal
	wait_for 10 _gone $fio
	check "$signal at the remote: its NBD clients see the end of their connection" _gone $fio
	start_b
	wait_for 10 established
	is "the remote is back with a higher epoch, as the same client" "$(client) $(epoch)" "$id $((had + 1))"
	check "NBD clients come back" nbdinfo --size "$URI"
done

# ---- writes

check "a write that is flushed" io 'write -P 1 0 1M' flush
restart_a KILL
wait_for 10 established
check "outlives the export's daemon" io 'read -P 1 0 1M'

# Clients that write, do not flush, and stay.
ctl "$B" remote set vol0 log-age 1h
wire_open "" "unix:$DIR/vol0.sock" vol0 nbd
replayed() { ctl "$B" -j stats vol0 | jq '.stats[0].replayed'; }
unflushed() { field "$B" vol0 .details.unflushed; }
answers "write 0 65536 2" ok "write 65536 4096 3" ok
check "what is not flushed is counted" test "$(unflushed)" = 2

# The page cache of this host outlives the daemon, so the store has not really lost it: what is played again must be seen in the counter and in
# the file, which is overwritten meanwhile by somebody who should not.
restart_lossy_a() {
	stop_pid "$DSTD_A" KILL
	dd if=/dev/zero of="$DIR/vol0.img" bs=4k count=17 conv=notrunc status=none
	start_a
}
restart_lossy_a
check "an export that lost them gets them again" wait_for 10 eval '[ "$(replayed)" = 2 ]'
wait_for 10 established
is "the remote did not fail" "$(field "$B" vol0 .state)" established
answers "read 0 65536" "ok 2" "read 65536 4096" "ok 3"
is "and they are in the file" "$(od -An -tx1 -N1 "$DIR/vol0.img"; od -An -tx1 -j65536 -N1 "$DIR/vol0.img")" " 02
 03"
answers flush ok
is "a flush empties the log" "$(unflushed)" 0

# Both daemons at once: the log is in the run directory.
answers "write 4096 4096 7" ok
wire_close
stop_pid "$DSTD_B" KILL
restart_lossy_a
start_b
wait_for 10 established
check "killed both, what was acknowledged is there" io 'read -P 7 4k 4k'
is "played by the next daemon" "$(replayed)" 1
check "and nothing else was touched" io 'read -P 0 0 4k'

# Without the log nothing can be promised: the remote fails, and says why.
wire_open "" "unix:$DIR/vol0.sock" vol0 nbd
answers "write 0 512 9" ok
wire_close
stop_pid "$DSTD_B" KILL
rm "$DIR/b/run/nodes/vol0/log"
restart_lossy_a
start_b
check "without its log the remote fails" wait_for 10 state_is "$B" vol0 failed
diag "$(ctl "$B" show vol0)"
check "and says why" grep -Eq 'reason: .*log' <(ctl "$B" show vol0)
wire_open "" "unix:$DIR/vol0.sock" vol0 nbd
answers "read 0 512" EIO "write 0 512 3" EIO "flush" EIO
wire_close
check "it is removed" ctl "$B" del vol0
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"
check "and attached again, it works" io 'write -P 4 0 64k' flush 'read -P 4 0 64k'
