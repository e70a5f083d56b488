#!/bin/bash
# fio over a Unix socket sees neither an error nor a wrong byte while its connection is cut five times.
# BESIDE: it mostly waits
. "$(dirname "$0")/lib.sh"
requires ip fio jq
requires_root
plan 8

tmpfs_dir DIR
ns_new A
ns_new B
start_dstd "$A" "$DIR/a" || bail "no daemon"
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 128M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "unix:$DIR/export.sock"
start_cutproxy "" "unix:$DIR/proxy.sock" "unix:$DIR/export.sock" || bail "no cutproxy"
attach "$B" vol0 "$DIR/vol0.sock" "unix:$DIR/proxy.sock"

# cut MODE: what is connected is cut that way, and nobody is let through; heal: they are again
cut() { proxy refuse on && proxy cut now "$1"; }
heal() { proxy refuse off; }
hole() { proxy blackhole "$1"; }

load 36
sleep 2
under_cut "reset" 1 "cut rst" heal
under_cut "black hole" 2 "hole on" "hole off"
under_cut "end of stream" 4 "cut fin" heal
under_cut "black hole" 7 "hole on" "hole off"
under_cut "silence" 10 "cut silent" heal
verified
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
