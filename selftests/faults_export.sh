#!/bin/bash
# The export's daemon is killed, and its disk loses a random part of what was not made durable: no acknowledged byte is lost or
# reverted, and all goes on when it is back.
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
suffer "the export is killed ${KILLS:=25} times under 8 writers, 32 deep" -fault export -n "$KILLS"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
check "what was lost was written again" test "$(ctl "$B" -j stats vol0 | jq '.stats[0].replayed')" -gt "$KILLS"

# Several clients: what is acknowledged is durable, and nothing is written again.
ctl "$B" del vol0 force
ctl "$A" del vol0 force
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876" depth 256 shared
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" depth 256
suffer "a shared export is killed ${SHARED:=10} times" -fault export -n "$SHARED"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
is "nothing had to be written again" "$(ctl "$B" -j stats vol0 | jq '.stats[0].replayed')" 0

# A block device, past the page cache.
ctl "$B" del vol0 force
ctl "$A" del vol0 force
LOOP=$(losetup --find --show "$DIR/disk/disk") || bail "no loop device"
cleanup "losetup -d $LOOP"
serve "$A" vol0 "$LOOP" "tcp:$A4:9876" depth 256
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" depth 256
suffer "the export of a block device is killed $SHARED times" -fault export -n "$SHARED"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
