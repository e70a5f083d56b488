#!/bin/bash
# A thousand exports and two hundred remotes come from one file of commands, are shown, counted, watched, started and removed; what it
# takes is printed.
. "$(dirname "$0")/lib.sh"
requires ip jq
requires_root
plan 18

EXPORTS=1000 REMOTES=200
tmpfs_dir DIR
ns_new A
# The garbage collector shall run often, so that the heap is what lives.
RUN_DSTD=(env GOGC=10)
start_dstd "$A" "$DIR/a" || bail "no daemon"
mkdir "$DIR/img" "$DIR/sock"
for ((i = 0; i < EXPORTS; i++)); do echo "$DIR/img/$i"; done | xargs truncate -s 1M

sys() { ctl "$A" -j sys show | jq ".sys.$1"; }
# now: milliseconds
now() { echo $((${EPOCHREALTIME//[!0-9]/} / 1000)); }
# timed WHAT COMMAND...: a result, and the time it took; sets TOOK to milliseconds
timed() {
	local what=$1 start
	shift
	start=$(now)
	"$@" >"$DIR/out" 2>"$DIR/err"
	is "$what" "$? $(head -n 3 "$DIR/err")" "0 "
	TOOK=$(($(now) - start))
	diag "time: $what: $TOOK ms"
}

# Ten exports share each address. A remote is offered at a socket, or not at all.
for ((i = 0; i < EXPORTS; i++)); do
	echo "export add e$i device $DIR/img/$i listen tcp:127.0.0.1:$((10000 + i / 10))"
	echo "security add e$i 127.0.0.0/8 rw"
done >"$DIR/add"
for ((i = 0; i < REMOTES; i++)); do
	attach=none
	[ $((i % 2)) = 0 ] || attach="socket $DIR/sock/$i"
	echo "remote add r$i peer tcp:127.0.0.1:$((10000 + i / 10)) export e$i attach $attach"
done >>"$DIR/add"

heap=$(sys heap) memory=$(rss "$DSTD_PID")
nsenter --net="/run/netns/$A" -- "$BIN/dstctl" -j monitor >"$DIR/events" 2>&1 & MONITOR=$!
cleanup "stop_pid $MONITOR"
wait_for 5 grep -q sync "$DIR/events"

timed "1000 exports and 200 remotes are added" ctl "$A" -b "$DIR/add"
check "in less than ten times 10 s" test $TOOK -lt 100000
is "all of them are there" "$(sys nodes)" 1200
each=$((($(sys heap) - heap) / 1200))
diag "time: heap of an idle node: $((each / 1024)) KiB; memory of the daemon: $memory KiB before, $(rss "$DSTD_PID") KiB with 1200, $(fds "$DSTD_PID") descriptors"
check "less than ten times 64 KiB of heap each" test $each -lt 655360
timed "show" ctl "$A" show
is "shows all" "$(grep -Ec '^[er][0-9]+:' "$DIR/out")" 1200
timed "show -j" ctl "$A" -j -d -s show
is "is whole" "$(jq '.nodes | length' "$DIR/out")" 1200
timed "stats" ctl "$A" -j stats
is "counts all" "$(jq '.. | .name? // empty' "$DIR/out" | wc -l)" 1200
watch() {
	nsenter --net="/run/netns/$A" -- "$BIN/dstctl" monitor >"$DIR/list" &
	cleanup "stop_pid $!"
	wait_for 30 grep -q '^sync' "$DIR/list" && [ "$(grep -c '^exists' "$DIR/list")" = 1200 ]
}
timed "monitor lists all" watch

# Each started remote has 4 MiB of its own, and its session at the export as much: as many as the daemon's budget allows.
STARTED=$(($(sys budget) / (8 << 20) - 16))
[ $STARTED -lt $REMOTES ] || STARTED=$REMOTES

for ((i = 0; i < EXPORTS; i++)); do echo "start e$i"; done >"$DIR/start"
for ((i = 0; i < STARTED; i++)); do echo "start r$i"; done >>"$DIR/start"
timed "all are started" ctl "$A" -b "$DIR/start"
is "each remote is established" "$(ctl "$A" -j show | jq '[.nodes[] | select(.state == "established")] | length')" $STARTED
live=$((($(sys heap) - heap - each * 1200) / STARTED))
diag "time: with $STARTED sessions: heap of a remote and its session $((live / 1024)) KiB, heap $(($(sys heap) / 1024)) KiB, memory $(rss "$DSTD_PID") KiB, $(fds "$DSTD_PID") descriptors, $(threads "$DSTD_PID") threads"

{ for ((i = 0; i < REMOTES; i++)); do echo "del r$i"; done; for ((i = 0; i < EXPORTS; i++)); do echo "del e$i"; done; } >"$DIR/del"
timed "all are removed" ctl "$A" -b "$DIR/del"
is "none is left" "$(sys nodes)" 0
told() { grep -c "\"event\":\"$1\"" "$DIR/events"; }
wait_for 10 eval '[ "$(told del)" -ge 1200 ]'
is "the monitor lost nothing" "$(told add),$(told del)" 1200,1200
is "nothing was lost" "$(grep -c resync "$DIR/events")" 0
near() { [ "$(sys heap)" -lt $((heap + (8 << 20))) ]; }
check "the heap is near what it was" wait_for 10 near
diag "time: after all: heap $(($(sys heap) / 1024)) KiB, memory $(rss "$DSTD_PID") KiB, $(fds "$DSTD_PID") descriptors"
