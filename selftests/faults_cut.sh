#!/bin/bash
# Connections that end after any byte, by reset, end of stream or silence, cost no acknowledged byte, and all goes on at once.
# TIMEOUT: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 3

two_daemons
truncate -s 16M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876" depth 256 keepalive 100ms
attach_later tcp:127.0.0.1:9877 depth 256 keepalive 100ms
suffer "${CUTS:=120} cuts under 8 writers, 32 deep" -fault cut -n "$CUTS" -proxy "tcp:127.0.0.1:9877=tcp:$A4:9876"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
check "each cut was one break" test "$(field "$B" vol0 .counters.breaks)" -le $((CUTS + 1))
