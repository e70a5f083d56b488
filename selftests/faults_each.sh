#!/bin/bash
# The k-th read, write or sync of the export's disk fails, once, for each k from 1 to LAST: who asked is told, or it is made good without a
# word; what is read is right, the link breaks once at most, and all goes on. Every STEP-th k from FROM on; STEP=1 for all of them.
# TIMEOUT: 900
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
LAST=${LAST:-200} STEP=${STEP:-20}
FROM=${FROM:-$((RANDOM % STEP + 1))}
plan 12
diag "again: FROM=$FROM STEP=$STEP LAST=$LAST $0"

two_daemons
# Small: it is erased before each k and read after it.
start_disk "$DIR/disk" $((2 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"
breaks() { field "$B" vol0 .counters.breaks; }
struck() { disk stats && SAID=${SAID#* hit } && echo "${SAID%% *}"; }
n=$(((LAST - FROM) / STEP + 1)) all=0

# one OP ERRORS: that many requests at most may be told of one failure
one() {
	local before
	before=$(breaks) errors=$(field "$B" vol0 .counters.errors)
	suffer "$1 number k fails, $n times" -fault "$1" -each "$FROM:$LAST:$STEP" -errors "$2" -writers 4 -depth 8 -gap 5ms
	is "each failure was met" "$(struck)" $((all += n))
	check "and broke the link once at most" test "$(breaks)" -le $((before + n))
	errors=$(($(field "$B" vol0 .counters.errors) - errors))
	diag "time: $1: $n failures, $(($(breaks) - before)) breaks, $errors errors"
}
# There is no other way to get what was not read; a write is not tried again.
one read 1
is "who read is told, each time" $errors $n
one write 1
is "who wrote is told, each time" $errors $n
# All durable writes that wait for the same sync are told. A flush is good after all was written again.
one sync 32
is "the remote has not failed" "$(field "$B" vol0 .state)" established
