#!/bin/bash
# fio over IPv6 sees neither an error nor a wrong byte while the link is cut five times.
# BESIDE: it mostly waits
. "$(dirname "$0")/lib.sh"
requires ip fio jq
requires_root
plan 8

tmpfs_dir DIR
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 128M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:[$A6]:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:[$A6]:9876"

load 36
sleep 2
under_cut "link down" 1 link_cut link_heal
under_cut "black hole" 2 "blackhole on" "blackhole off"
under_cut "link down" 4 link_cut link_heal
under_cut "black hole" 7 "blackhole on" "blackhole off"
under_cut "link down" 10 link_cut link_heal
verified
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
