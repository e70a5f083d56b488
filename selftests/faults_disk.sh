#!/bin/bash
# The export's disk fails one operation: a request, or the verifier, tells of it, everything else goes on, and no acknowledged byte is
# lost, although a sync that fails takes with it what it should have made durable.
# TIMEOUT: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 8

two_daemons
start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876" depth 256
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" depth 256
breaks() { field "$B" vol0 .counters.breaks; }

# At most one request each fails; a sync that fails may do so for every FUA write that waits for it.
for kind in read write erase; do
	before=$(breaks)
	suffer "$kind fails ${ERRORS:=20} times" -fault $kind -n "$ERRORS" -errors "$ERRORS"
	check "and each time breaks the link at most once" test "$(breaks)" -le $((before + ERRORS))
done
before=$(breaks)
suffer "sync fails $ERRORS times" -fault sync -n "$ERRORS" -errors $((ERRORS * 256))
check "and each time breaks the link at most once" test "$(breaks)" -le $((before + ERRORS))
