#!/bin/bash
# The cable is pulled for ten seconds in the middle of a copy: the copy waits, "dstctl show" says why, and then it ends without an error.
# BESIDE: it mostly waits
. "$(dirname "$0")/lib.sh"
requires ip nbdcopy jq
requires_root
plan 8

tmpfs_dir DIR 2g
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 512M "$DIR/vol0.img"
for at in 0 100 300 496; do head -c 16M /dev/urandom | dd of="$DIR/vol0.img" bs=1M seek=$at conv=notrunc status=none; done
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"

reads() { field "$B" vol0 .counters.reads; }
reading() { [ "$(reads)" -gt 16 ]; }
says() { ctl "$B" show vol0 | grep -Eq "$1"; }

nbdcopy --connections=1 --requests=4 --request-size=65536 "$URI" "$DIR/copy.img" &
copy=$!
cleanup "stop_pid $copy"
wait_for 10 reading
link_cut
start=$SECONDS
check "the broken link is noticed within three keepalives and a second" wait_for 4 says 'state (connecting|broken|pause)'
had=$(reads)
check "the copy was in the middle" test "$had" -lt 8192
check "show says why" wait_for 5 says 'reason: .*(no answer|sign of life)'
diag "$(ctl "$B" show vol0)"
sleep $((10 - (SECONDS - start)))
is "nothing was read meanwhile" "$(reads)" "$had"
check "the copy waits" kill -0 $copy
link_heal
wait $copy
is "and ends without an error" $? 0
check "not a byte is wrong" cmp "$DIR/vol0.img" "$DIR/copy.img"
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
