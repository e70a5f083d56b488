#!/bin/bash
# "dstctl monitor" lists what exists, says that it is in step, and then tells what happens as it happens: as text and as JSON.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq
requires_root
plan 14

tmpfs_dir DIR
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
A_DSTD=$DSTD_PID
start_dstd "$B" "$DIR/b" || bail "no daemon"
truncate -s 1M "$DIR/vol0.img" "$DIR/old.img"
ctl "$A" export add old device "$DIR/old.img" listen "tcp:$A4:9876"

# watch NS FILE OPTION...: a monitor into the file; returns when it is in step
watch() {
	local ns=$1 file=$2
	shift 2
	nsenter --net="/run/netns/$ns" -- "$BIN/dstctl" "$@" monitor >"$file" 2>&1 &
	cleanup "stop_pid $!"
	WATCHER=$!
	wait_for 5 grep -q sync "$file" || bail "monitor: $(cat "$file")"
}
watch "$A" "$DIR/a.text"
watch "$B" "$DIR/b.text" -t
watch "$A" "$DIR/a.json" -j
A_MONITOR=$WATCHER
watch "$B" "$DIR/b.json" -j

serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"
link_cut
wait_for 10 grep -q broken "$DIR/b.json"
link_heal
wait_for 10 state_is "$B" vol0 established
ctl "$A" security add old any ro
wire_open "$B" "tcp:$A4:9876" vol0 rw
wire_close
ctl "$B" del vol0
ctl "$A" del vol0
deleted() { grep -q "event\":\"del" "$DIR/$1.json" && grep -q '^\(\[.*\] \)\?del vol0' "$DIR/$1.text"; }
check "the removal is told on both sides" wait_for 10 eval 'deleted a && deleted b'

# told FILE: the events of a stream, in short: event name state
told() { jq -r '[.event, .name // "-", .state // "-"] | join(" ")' "$DIR/$1.json"; }
is "what exists comes first, then sync" "$(told a | head -n 2 | xargs)" "exists old configured sync - -"
# Between the cut and its end an attempt may fail for another reason than the first.
is "a remote's life" "$(told b | sed 's/^start.*/start/' | uniq | xargs)" "sync - - add vol0 configured start state vol0 established state vol0 broken \
state vol0 established state vol0 closed del vol0 -"
is "an export's life" "$(told a | grep -v session | sed 1,2d | uniq | xargs)" "add vol0 configured change vol0 configured \
start vol0 serving change old configured refuse vol0 - del vol0 -"
check "why a link broke is told" grep -q '"event":"state".*"state":"broken","peer":"tcp:10.77.0.1:9876","reason":"no sign of life' "$DIR/b.json"
check "who is served is told" grep -q '"event":"session".*"peer":"tcp:10.77.0.2:[0-9]*","reason":"a client is served rw"' "$DIR/a.json"
check "who is refused is told" grep -q '"event":"refuse".*"peer":"tcp:10.77.0.2:.*"reason":"client .* writes there' "$DIR/a.json"
check "each line is one object of the schema" jq -es 'all(.schema == 1 and (.ts | length == 24))' "$DIR/a.json"
is "no event is missing" "$(jq -r 'select(.seq > 0) | .seq' "$DIR/a.json" | xargs)" "$(jq -r 'select(.seq > 0) | .seq' "$DIR/a.json" | sort -n | xargs)"
is "the numbers have no gap" "$(jq -s 'map(.seq) | max' "$DIR/a.json")" "$(jq -s 'map(select(.seq > 0)) | length' "$DIR/a.json")"

check "the text has a line for each event" test "$(wc -l <"$DIR/a.text")" = "$(wc -l <"$DIR/a.json")"
check "with words" grep -q '^state vol0 state broken peer tcp:10.77.0.1:9876 reason no sign of life' <(sed 's/^\[[^]]*\] //' "$DIR/b.text")
check "-t tells the time" grep -Eq '^\[20[0-9-]+T[0-9:.]+\] add vol0 state configured$' "$DIR/b.text"

stop_pid "$A_DSTD"
wait_for 10 _gone "$A_MONITOR"
wait "$A_MONITOR"
is "a monitor ends with its daemon" $? 4
