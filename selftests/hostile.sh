#!/bin/bash
# Clients that stall, flood, lie or close by halves cost an export bounded memory and disturb nobody: a good client goes on, another
# one can come, and afterwards nothing is left of them.
. "$(dirname "$0")/lib.sh"
requires ip jq fio nbdinfo
requires_root
plan 11

tmpfs_dir DIR
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
EXPORTER=$DSTD_PID
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 64M "$DIR/vol0.img"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876,tcp:127.0.0.1:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"

# busy SECONDS: fio on the good client; sets RATE to its requests per second
busy() {
	fio --name=good --ioengine=nbd --uri="$URI" --rw=randrw --bs=4k --iodepth=8 --size=32M --verify=crc32c --verify_backlog=64 \
		--verify_fatal=1 --verify_state_save=0 --time_based --runtime="$1" --output-format=json --output="$DIR/fio.json" 2>&1
}
rate() { jq '.jobs[0] | .read.iops + .write.iops | round' "$DIR/fio.json"; }

check "the good client works" busy 2
before=$(rate)
idle=$(fds "$EXPORTER")
memory=$(rss "$EXPORTER")

in_ns "$B" "$BIN/wire" -hostile all -n 64 -for 12s "tcp:$A4:9876" vol0 >"$DIR/hostile" 2>&1 &
siege=$!
cleanup "stop_pid $siege"
wait_for 5 eval '[ "$(fds "$EXPORTER")" -gt $((idle + 16)) ]'
most=0
watch() { while kill -0 $siege 2>/dev/null; do rss "$EXPORTER"; sleep 0.2; done >"$DIR/rss"; }
watch & watcher=$!
check "it works beside 64 bad ones, verified" busy 8
diag "time: requests per second: $before alone, $(rate) under siege"
check "and is not starved" test $(($(rate) * 50)) -gt "$before"
is "its link was never broken" "$(field "$B" vol0 .counters.breaks)" 0
wire_open "$A" tcp:127.0.0.1:9876 vol0 ro
is "another client can come from elsewhere" "$SAID" "welcome ro"
answers "read 0 512" "$(printf 'ok %d' "0x$(head -c 1 "$DIR/vol0.img" | od -An -tx1 | tr -d ' ')")"
wire_close
wait $siege
is "the siege lasted" $? 0
diag "$(cat "$DIR/hostile")"
wait $watcher
most=$(sort -n "$DIR/rss" | tail -n 1)
diag "time: memory of the export's daemon: $memory KiB before, $most KiB at most"
# Each session may have an arena of 64 MiB; the budget is for all of them.
check "memory stays within the budget" test "$most" -lt $((memory + $(ctl "$A" -j sys show | jq .sys.budget) / 1024))
check "the export closed and refused many" test "$(field "$A" vol0 .counters.refused)" -gt 64
returned() { [ "$(fds "$EXPORTER")" -le "$idle" ]; }
check "their descriptors return" wait_for 15 returned
alone() { [ "$(field "$A" vol0 '.details.sessions | length')" = 1 ]; }
check "only the good client is left" wait_for 15 alone
