#!/bin/bash
# Bad clients by the thousand, silent, slow, with a wrong key or with garbage, do not disturb good ones: those go on as before, others can
# come, and memory and descriptors of the daemon stay within bounds; also if both have the same address. BAD is how many, RATE in a second.
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
requires ip jq
requires_root
BAD=${BAD:-1500} RATE=${RATE:-500}
plan 38

tmpfs_dir DIR
CGO_ENABLED=0 "${GO:-go}" build -C "$TOP" -o "$DIR/siege" ./selftests/siege || bail "no siege"
ns_new A
start_dstd "$A" "$DIR/a" || bail "no daemon"
PID=$DSTD_PID
truncate -s 1M "$DIR/plain.img" "$DIR/secret.img"
ctl "$A" key gen "$DIR/key" >/dev/null || bail "no key"
# Eight clients write, so the exports are shared.
serve "$A" plain "$DIR/plain.img" tcp:127.0.0.1:9876 shared
ctl "$A" export add secret device "$DIR/secret.img" listen tcp:127.0.0.1:9877 shared || bail "no export"
ctl "$A" crypto set secret key "$DIR/key"
ctl "$A" security add secret any rw
ctl "$A" start secret || bail "not started"

# The limits that the manual names: half-open connections in all, and from one address.
ALL=256 EACH=16
got() { jq -r "$1" "$DIR/result"; }
few_fds() { [ "$(fds $PID)" -le "$1" ]; }

# besieged WHAT HALF PORT EXPORT [OPTION...]: eight results: a siege, and that all of it is bounded, half-open connections by HALF
besieged() {
	local what=$1 half=$2 idle
	idle=$(fds $PID)
	check "$what: the siege takes place" in_ns "$A" sh -c '"$@" >'"$DIR/result" sh \
		"$DIR/siege" -bad "$BAD" -rate "$RATE" -pid $PID "${@:5}" "127.0.0.1:$3" "$4"
	diag "$(cat "$DIR/result")"
	diag "time: $what: $(got '"p50 and p99 of 8 good clients \(.quiet.p50) and \(.quiet.p99) us before and after, \(.during.p50) and \(.during.p99) us in \(.seconds) s of siege; memory \(.daemon.rss_before) and at most \(.daemon.rss_most) KiB, descriptors \(.daemon.fds_before) and at most \(.daemon.fds_most); who came was served \(.newcomer.served) times after \(.newcomer.refused) refusals, after \(.newcomer.p50_ms) and at worst \(.newcomer.worst_ms) ms"')"
	is "$what: the export closed all of them" "$(got '.bad | "\(.opened) \(.closed) \(.stayed) \(.failed)"')" "$BAD $BAD 0 0"
	is "$what: no link of a good one was cut" "$(got .breaks)" 0
	# The aim is twice; the machine has other things to do as well.
	check "$what: the good ones are not slowed down" test "$(got .during.p99)" -lt "$(got '[.quiet.p99 * 20, 250000] | max')"
	check "$what: memory is bounded" test "$(got '.daemon.rss_most - .daemon.rss_before')" -lt 32768
	# A few more: one that is being refused, and sessions of who came and went.
	check "$what: half-open connections are bounded" test "$(got '.daemon.fds_most - .daemon.fds_before')" -le $((half + 8))
	check "$what: who comes meanwhile is served" test "$(got .newcomer.served)" -gt 0
	check "$what: nothing is left of it" wait_for 10 few_fds "$idle"
}
besieged "plain" $ALL 9876 plain
besieged "plain, from the good ones' address" $EACH 9876 plain -from 127.0.2.1/32
check "strangers are counted" test "$(field "$A" plain .counters.refused)" -gt "$BAD"
besieged "with a key" $ALL 9877 secret -key "$DIR/key"
besieged "with a key, from the good ones' address" $EACH 9877 secret -key "$DIR/key" -from 127.0.2.1/32
check "wrong keys are counted" test "$(field "$A" secret .counters.auth_errors)" -gt 0
is "and only where there is a key" "$(field "$A" plain .counters.auth_errors)" 0

# ---- the end of a daemon under siege

idle=$(fds $PID)
nsenter --net="/run/netns/$A" -- "$DIR/siege" -bad 100000 -rate 1000 -alone 1ms -pid $PID 127.0.0.1:9876 plain >/dev/null 2>&1 & SIEGE=$!
cleanup "stop_pid $SIEGE"
crowded() { [ "$(fds $PID)" -gt $((idle + 100)) ]; }
check "there are more than a hundred half-open connections" wait_for 20 crowded
check "the daemon stops nevertheless" stop_pid $PID
start_dstd "$A" "$DIR/a" && PID=$DSTD_PID
check "and the next one serves" state_is "$A" secret serving
stop_pid $SIEGE
