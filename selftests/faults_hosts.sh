#!/bin/bash
# Hosts that are not what they were: a peer's second address where another store is, and a client's host that crashed and forgot all. What
# was flushed is there, what the dead host had under way comes out before anybody else writes, or never, and one alone has the place.
# TIMEOUT: 300
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq qemu-io
requires_root
STALL=${STALL:-12}
plan 59

two_daemons
ns_new C
start_dstd "$C" "$DIR/c" && DSTD_C=$DSTD_PID || bail "no daemon"
io() { timeout 60 qemu-io -t none -f raw "${@/#/-c}" "$URI" >/dev/null 2>&1; }
talk() { wire_open "" "unix:$DIR/vol0.sock" vol0 nbd; }
failed() { [ "$(field "$1" vol0 .state)" = failed ] && field "$1" vol0 .reason | grep -Eq "$2"; }

# ---- several addresses of a peer

# second WHAT: vol0 is attached at $A, and at the Unix socket that listens at "second"; written to, then the cable is pulled
second() {
	attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876,unix:$DIR/second" log-age 1h keepalive 500ms
	is "$1: the first address is taken" "$(field "$B" vol0 .details.peer)" "tcp:$A4:9876"
	talk
	answers "write 0 65536 5" ok flush ok "write 65536 65536 6" ok
	link_cut
}

truncate -s 16M "$DIR/one.img" "$DIR/other.img"
serve "$A" vol0 "$DIR/one.img" "tcp:$A4:9876,unix:$DIR/second" keepalive 500ms
second "the same store"
at_second() { [ "$(field "$B" vol0 .details.peer)" = "unix:$DIR/second" ] && state_is "$B" vol0 established; }
check "it goes on at the second one" wait_for 20 at_second
answers "read 65536 512" "ok 6" "write 131072 512 7" ok
wire_close
ctl "$B" del vol0 || not_ok "vol0 is removed"
link_heal
ctl "$A" del vol0
serve "$A" vol0 "$DIR/one.img" "tcp:$A4:9876" keepalive 500ms
serve "$C" vol0 "$DIR/other.img" "unix:$DIR/second" keepalive 500ms
sum=$(sha256sum <"$DIR/other.img")
second "another store, of the same name and size"
check "it fails and says why" wait_for 20 failed "$B" "another store"
diag "$(field "$B" vol0 .reason)"
answers "read 65536 512" EIO "write 131072 512 8" EIO flush EIO
link_heal
sleep 2
check "it has failed for good" failed "$B" "another store"
is "nothing was written to the other disk" "$(sha256sum <"$DIR/other.img")" "$sum"
is "nor read from it" "$(field "$C" vol0 '.counters | .reads + .writes + .flushes')" 0
wire_close
check "it is removed" ctl "$B" del vol0
ctl "$A" del vol0
ctl "$C" del vol0

# ---- the client's host is lost

# another_boot: a command of start_dstd sees a boot id that this kernel never had
another_boot() {
	local id
	id=$DIR/boot.$((BOOTS += 1))
	cat /proc/sys/kernel/random/uuid >"$id"
	RUN_DSTD=(unshare --mount sh -c 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$id")
}
BOOTS=0

# crash: $B's host vanishes without a word; its cable with it. What its daemon had is in $DIR/b.
crash() {
	ip -n "$B" link del "$LINK"
	stop_pid "$DSTD_B" KILL
	rm -f "$DIR/vol0.sock"
}

# boot WIPED: it is there again, with the same address, in a namespace that knows nothing of old connections
boot() {
	ns_new B
	ns_join "$A" "$B"
	wait_for 10 _settled "$A" && wait_for 10 _settled "$B" || bail "the veth pair did not come up"
	[ "$1" != wiped ] || find "$DIR/b/run" -mindepth 1 -delete
	another_boot
	start_dstd "$B" "$DIR/b" && DSTD_B=$DSTD_PID || bail "no daemon"
	unset RUN_DSTD
}

start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876,unix:$DIR/second"
tcp() { attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" log-age 1h; }
held() { disk stats && [ "${SAID#* held "$1" }" != "$SAID" ]; }
tcp
for run in wiped kept; do
	id=$(field "$B" vol0 .details.client_id)
	talk
	answers "write 0 65536 1" ok flush ok "write 0 4096 2" ok "write 65536 4096 2" ok
	wire_close
	disk stall write for "${STALL}s" after 0 times 1
	io 'write -P 3 128k 4k' & W=$!
	check "$run: a write is under way" wait_for 5 held 1
	before=${EPOCHREALTIME%.*}
	crash
	wait $W
	boot $run
	is "$run: the host comes up without a node" "$(ctl "$B" -j show | jq -r '.nodes | length')" 0
	ctl "$B" -wait 0s remote add vol0 peer "tcp:$A4:9876" attach socket "$DIR/vol0.sock" log-age 1h start
	URI="nbd+unix:///vol0?socket=$DIR/vol0.sock"
	check "$run: attached anew it gets the place" wait_for $((STALL + 30)) state_is "$B" vol0 established
	check "when the old write is over, not before" held 0
	diag "time: $run: attached again $((${EPOCHREALTIME%.*} - before)) s after the crash, the disk held a write for $STALL s"
	check "as another client" test "$(field "$B" vol0 .details.client_id)" != "$id"
	check "what was flushed is there" io 'read -P 1 4k 60k'
	check "and what was not, since its export lives" io 'read -P 2 0 4k' 'read -P 2 64k 4k'
	check "it writes over what the dead host had written" io 'write -P 4 0 4k' 'write -P 4 64k 4k' 'write -P 4 128k 4k'
	# What it has acknowledged is lost at the export, too, and written again: its own log, not the dead host's.
	stop_pid "$DSTD_A" KILL
	disk lose 100
	start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"
	check "$run: what it wrote outlives the export and its cache" io 'read -P 4 0 4k' 'read -P 4 64k 4k' 'read -P 4 128k 4k'
	check "the remote has not failed" state_is "$B" vol0 established
done

# ---- another client, and the place

other() { ctl "$C" -wait "$1" remote add vol0 peer "unix:$DIR/second" attach socket "$DIR/other.sock" start; }
refused_there() { field "$1" vol0 .reason | grep -q "writes there"; }
refused "a living client has the place alone" 5 "writes there" other 5s
check "with steal the other one takes it" ctl "$C" -wait 10s start vol0 steal
check "who had it is refused" wait_for 10 refused_there "$B"
ctl "$C" del vol0 || not_ok "vol0 is removed"
check "and fails when it is let in again" wait_for 20 failed "$B" "another client"
ctl "$B" del vol0 || not_ok "vol0 is removed"

# The host crashes, and the other client wants the place while it is down.
tcp
check "flushed before the crash" io 'write -P 5 0 64k' flush
crash
check "the place of a host that does not answer is given away" other 30s
URI="nbd+unix:///vol0?socket=$DIR/other.sock"
check "what it had flushed is there" io 'read -P 5 0 64k' 'write -P 6 0 64k'
boot wiped
refused "when it is back it is refused like anybody" 5 "writes there" \
	ctl "$B" -wait 5s remote add vol0 peer "tcp:$A4:9876" attach socket "$DIR/vol0.sock" start
check "what the other one wrote stays" io 'read -P 6 0 64k' flush
check "with steal it has the place again" ctl "$B" -wait 10s start vol0 steal
check "and the other one is refused" wait_for 10 refused_there "$C"
URI="nbd+unix:///vol0?socket=$DIR/vol0.sock"
check "it reads what the other one flushed" io 'read -P 6 0 64k'
