#!/bin/bash
# Errors that last end in a device that has failed and says why, not in a loop; so does a server that comes back with another disk of
# the same name and size, or with a smaller one, and nothing is written to that.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq
requires_root
plan 54

two_daemons
start_disk "$DIR/disk" $((16 << 20))
serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876"
again() { attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" log-age 1h; }
talk() { wire_open "" "unix:$DIR/vol0.sock" vol0 nbd; }
breaks() { field "$B" vol0 .counters.breaks; }
connects() { field "$B" vol0 .counters.connects; }
failures() { grep -c 'the store failed' "$DIR/a/log"; }

# quiet: it does not try any more
quiet() {
	local had
	had=$(connects)
	sleep 2
	is "$1: it does not come back for ever" "$(connects)" "$had"
}

# failed WHAT PATTERN: it has failed because of that, everything gets EIO, and it can be removed
failed() {
	check "$1: the remote fails" wait_for 20 state_is "$B" vol0 failed
	check "and says why" grep -Eq "reason: .*$2" <(ctl "$B" show vol0)
	diag "$(ctl "$B" show vol0 | grep reason), after $(breaks) breaks"
	answers "read 0 512" EIO "write 0 512 3" EIO flush EIO
	wire_close
	check "$1: not more than a few times it tried" test "$(breaks)" -le 6
	quiet "$1"
	check "it is removed" ctl "$B" del vol0
}

again
talk
answers "write 0 4096 1" ok flush ok

# Reads alone: whoever reads is told, and nothing else happens.
disk fail read with EIO after 0 times 0
answers "read 0 512" EIO "write 0 512 2" ok flush ok "read 0 512" EIO
is "errors of reads break no link" "$(breaks)" 0
disk heal read
answers "read 0 512" "ok 2"

# Writes: what the export has acknowledged can not be written again.
answers "write 8192 4096 7" ok
before=$(failures)
disk fail write with EIO after 0 times 0
answers "write 0 512 3" EIO
failed "writes that fail" "take back"
check "the disk was not tried for ever" test $(($(failures) - before)) -le 64
disk heal write

# Syncs: the kernel's flush is not told that all is well.
again
talk
answers "write 8192 4096 8" ok
disk fail sync with EIO after 0 times 0
answers flush EIO
failed "syncs that fail" "flush"
disk heal sync
disk evict
again
talk
answers "write 0 4096 1" ok flush ok "read 0 512" "ok 1"
wire_close
check "healed, attached again, it works" state_is "$B" vol0 established
check "it is removed" ctl "$B" del vol0

# Another disk of the same name and size.
truncate -s 16M "$DIR/vol1.img" "$DIR/other.img"
serve "$A" vol1 "$DIR/vol1.img" "tcp:$A4:9877"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9877" export vol1 log-age 1h
talk
answers "write 0 65536 5" ok
stop_pid "$DSTD_A" KILL
mv "$DIR/other.img" "$DIR/vol1.img"
sum=$(sha256sum <"$DIR/vol1.img")
start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"
failed "another disk" "another store"
is "nothing was written to the wrong disk" "$(sha256sum <"$DIR/vol1.img")" "$sum"

# The same disk, smaller.
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9877" export vol1 log-age 1h
talk
answers "write 0 65536 5" ok
stop_pid "$DSTD_A" KILL
truncate -s 8M "$DIR/vol1.img"
sum=$(sha256sum <"$DIR/vol1.img")
start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"
failed "a smaller disk" "shrank"
is "nothing was written to it" "$(sha256sum <"$DIR/vol1.img")" "$sum"
