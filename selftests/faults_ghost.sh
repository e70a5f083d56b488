#!/bin/bash
# A write that its disk holds back until long after the remote has given up waiting for it never comes out later than a newer one: what
# was written last stays. The remote waits TIMEOUT s for an answer, the disk holds the write for STALL s, RUNS times.
# What happens without the fence is TestGhostWriteWithoutTheFence in dataplane/export: there the ghost comes out. It can be taken out by a test
# of that package only.
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq qemu-io
requires_root
RUNS=${RUNS:-1} STALL=${STALL:-8} TIMEOUT=${TIMEOUT:-4}
plan $((20 * RUNS))

two_daemons
start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" request-timeout "${TIMEOUT}s" log-age 1h
io() { timeout 120 qemu-io -t none -f raw "${@/#/-c}" "$URI" >/dev/null 2>&1; }
breaks() { field "$B" vol0 .counters.breaks; }
held() { disk stats && [ "${SAID#* held "$1" }" != "$SAID" ]; }
broken() { [ "$(breaks)" -gt "$1" ]; }
# fenced: the remote says that it waits for the fence; between two connections it waits for the link
fenced() { [ "$(ctl "$B" -j node why vol0 | jq -r .wait)" = fence ]; }
# on_disk: the first byte that the disk has
on_disk() { od -An -tu1 -N1 "$DIR/disk/disk" | tr -d ' '; }

# ghost: W1 is held
ghost() {
	disk stall write for "${STALL}s" after 0 times 1
	io 'write -P 1 0 4k' & W1=$!
	check "W1 is held by the disk" wait_for 5 held 1
}

# overtake WHAT: W2, and what is there when it is acknowledged and for as long again
overtake() {
	io 'write -P 2 0 4k' & W2=$!
	sleep 1
	check "$1: W2 waits for the fence" kill -0 $W2
	check "and says so" wait_for 2 fenced
	check "W1 is still held then" held 1
	wait $W2
	is "W2 is acknowledged" $? 0
	check "not before W1 is out of the way" held 0
	check "what is read is W2" io 'read -P 2 0 4k'
	sleep "$STALL"
	check "and so it is later" io 'read -P 2 0 4k'
	is "on the disk, too" "$(on_disk)" 2
}

for ((run = 0; run < RUNS; run++)); do
	before=$(breaks)
	ghost
	check "the remote gives up waiting" wait_for $((TIMEOUT * 3)) broken "$before"
	overtake "another connection"
	wait $W1
	is "who wrote W1 is told that it was written, before" $? 0

	# Who wrote W1 will never know.
	ghost
	stop_pid "$DSTD_B" KILL
	start_dstd "$B" "$DIR/b" && DSTD_B=$DSTD_PID || bail "no daemon"
	overtake "another daemon"
	wait $W1
	io 'write -P 0 0 4k' flush
done
