#!/bin/bash
# The remote's daemon is killed: the next one goes on with its log. What it had acknowledged is there, and so it is when the export is
# killed within the same 50 ms and its disk loses a random part of what was not made durable.
# TIMEOUT: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 3

two_daemons
start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876" depth 256
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" depth 256
suffer "the remote is killed ${KILLS:=20} times under 8 writers, 32 deep" -fault client -n "$KILLS"
suffer "both are killed ${BOTH:=15} times within 50 ms" -fault both -n "$BOTH"
is "the remote has not failed" "$(field "$B" vol0 .state)" established
