#!/bin/bash
# Connections that end after any byte, by reset, end of stream or silence, lose bytes for a while or damage one, cost no acknowledged
# byte, and all goes on at once.
# TIMEOUT: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 9

two_daemons
truncate -s 16M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876" depth 256 keepalive 100ms
PROXY="tcp:127.0.0.1:9877=tcp:$A4:9876"
attach_later tcp:127.0.0.1:9877 depth 256 keepalive 100ms
breaks() { field "$B" vol0 .counters.breaks; }

suffer "${CUTS:=100} cuts under 8 writers, 32 deep" -fault cut -n "$CUTS" -proxy "$PROXY"
check "each was one break" test "$(breaks)" -le $((CUTS + 1))
suffer "${HOLES:=12} black holes" -fault hole -n "$HOLES" -proxy "$PROXY"
before=$(breaks)
suffer "${BITS:=20} inverted bits" -fault damage -n "$BITS" -proxy "$PROXY"
check "each was one break" test $(($(breaks) - before)) -le $((BITS + 2))
check "and found by its digest, here or there" \
	test $(($(field "$B" vol0 .counters.digest_errors) + $(field "$A" vol0 .counters.digest_errors) + $(field "$B" vol0 .counters.protocol_errors) + $(field "$A" vol0 .counters.protocol_errors))) -ge "$BITS"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0

# Without a digest nobody looks: the checker has to find what came through.
ctl "$B" del vol0 force
ctl "$A" del vol0 force
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876" depth 256 keepalive 100ms hash none
attach_later tcp:127.0.0.1:9877 depth 256 keepalive 100ms hash none
in_ns "$B" "$BIN/faults" load -fault damage -n 40 -proxy "$PROXY" "$DIR/vol0.sock" vol0 >"$DIR/out" 2>&1
is "without a digest damage comes through, and is found" $? 1
diag "$(tail -n 4 "$DIR/out")"
check "for what it is" grep -q 'violation: .*\(torn\|no stamp\|another sector\|must not be there\)' "$DIR/out"
