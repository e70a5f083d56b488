#!/bin/bash
# A peer that vanishes without a word, in both directions or in one, is noticed within three keepalives. A disk that stands still for
# a long time is no reason to break a link.
# TIMEOUT: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq qemu-io
requires_root
KEEPALIVE=${KEEPALIVE:-1000} STALL=${STALL:-20}
plan 23

two_daemons
start_disk "$DIR/disk" $((16 << 20))
start_cutproxy "$B" tcp:127.0.0.1:9877 "tcp:$A4:9876" || bail "no cutproxy"
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876" keepalive "${KEEPALIVE}ms"
attach "$B" vol0 "$DIR/vol0.sock" tcp:127.0.0.1:9877 keepalive "${KEEPALIVE}ms"
now() { echo $((${EPOCHREALTIME//[!0-9]/} / 1000)); }
state() { field "$B" vol0 .state; }
not_established() { [ "$(state)" != established ]; }
io() { timeout 120 qemu-io -t none -f raw "${@/#/-c}" "$URI"; }

# It is looked for four times in a keepalive; the rest is for a slow machine.
for dir in 'both ways' up down; do
	words=()
	[ "$dir" = 'both ways' ] || words=(dir "$dir")
	io 'write -P 1 0 64k' >/dev/null
	proxy blackhole on "${words[@]}" >/dev/null
	start=$(now)
	check "$dir: a black hole is noticed" wait_for 10 not_established
	took=$(($(now) - start))
	diag "time: black hole $dir noticed after $took ms, keepalive $KEEPALIVE ms"
	check "within three keepalives" test $took -lt $((KEEPALIVE * 13 / 4 + 1000))
	io 'write -P 2 0 64k' >/dev/null & W=$!
	proxy blackhole off "${words[@]}" >/dev/null
	start=$(now)
	wait $W
	is "what was written meanwhile is written" $? 0
	diag "time: first answer $(($(now) - start)) ms after the hole was closed"
	check "and is there" io 'read -P 2 0 64k'
done

before=$(field "$B" vol0 .counters.breaks)
held() { disk stats && [ "${SAID#* held 0 }" = "$SAID" ]; }
told_disk() { [ "$(ctl "$B" -j node why vol0 | jq -r .wait)" = disk ]; }
for op in write sync; do
	disk stall $op for "${STALL}s" after 0 times 1
	start=$(now)
	io 'write -P 3 0 64k' flush >/dev/null & W=$!
	wait_for 5 held
	wire_open "" "unix:$DIR/vol0.sock" vol0 nbd # qemu-io would flush
	wire_do "read 1048576 512"
	is "$op stands still: others are served" "$SAID" "ok 0"
	wire_close
	sleep $((STALL - 4))
	held || not_ok "it stands still no longer"
	is "the link stays" "$(state) $(field "$B" vol0 .counters.breaks)" "established $before"
	check "and that it is the disk is told" wait_for 2 told_disk # a starved machine is silent for a moment, in truth
	wait $W
	is "and in the end it is done" $? 0
	check "when the disk has done it" test $(($(now) - start)) -ge $((STALL * 1000))
done
is "no link was broken" "$(field "$B" vol0 .counters.breaks)" "$before"
