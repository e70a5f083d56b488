#!/bin/bash
# Whatever happens to connection and daemons, one after the other or two at once, costs no acknowledged byte.
# RACE
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 2

two_daemons
start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876" depth 256 keepalive 200ms
attach_later tcp:127.0.0.1:9877 depth 256 keepalive 200ms log-age 500ms arena 8M
suffer "${FAULTS:=50} faults of all kinds" -fault mix -n "$FAULTS" -proxy "tcp:127.0.0.1:9877=tcp:$A4:9876"
not_failed() { [ "$(field "$B" vol0 .state)" != failed ]; }
check "the remote has not failed" not_failed
