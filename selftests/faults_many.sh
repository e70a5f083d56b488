#!/bin/bash
# An export that is killed under many remotes, and comes back, is not stormed: all of them are back within 10 s, not all in one moment.
# TIMEOUT: 200
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 5

two_daemons 3g
# Each remote has 4 MiB of its own, and its session as much: as many as the budget allows.
REMOTES=$(($(ctl "$A" -j sys show | jq .sys.budget) / (5 << 20) - 16))
[ $REMOTES -lt 200 ] || REMOTES=200
truncate -s 16M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876" shared
for ((i = 0; i < REMOTES; i++)); do echo "remote add r$i peer tcp:$A4:9876 export vol0 attach none start"; done >"$DIR/add"
check "$REMOTES remotes are attached" ctl "$B" -b "$DIR/add"
established() { ctl "$B" -j show | jq '[.nodes[] | select(.state == "established")] | length'; }
all_back() { [ "$(established)" = $REMOTES ]; }
now() { echo $((${EPOCHREALTIME//[!0-9]/} / 1000)); }
check "and served" wait_for 20 all_back

for ((turn = 0; turn < 3; turn++)); do
	stop_pid "$DSTD_A" KILL
	# Long enough for the pauses to have grown.
	sleep $((turn * 2 + 1))
	start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"
	start=$(now)
	wait_for 60 all_back
	took=$(($(now) - start))
	diag "time: $REMOTES remotes were back $took ms after the export"
	check "all are back within 10 s" test $took -lt 10000
done
diag "time: $(ctl "$B" -j stats | jq -r '"\([.stats[].connects] | add) connections in all"'), $(fds "$DSTD_A") descriptors, $(rss "$DSTD_A") KiB at the export"
