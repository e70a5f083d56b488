#!/bin/bash
# An export serves whom its rules name, as far as they say, and a change of rules is felt at once. The client speaks the wire by hand,
# so that it is the export that refuses.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq nbdinfo
requires_root
plan 40

tmpfs_dir DIR
ns_pair A B
start_dstd "$A" "$DIR/a" || bail "no daemon"
head -c 16M /dev/urandom >"$DIR/vol0.img"
want=$(sha256sum <"$DIR/vol0.img")
unchanged() { [ "$(sha256sum <"$DIR/vol0.img")" = "$want" ]; }
ctl "$A" export add vol0 device "$DIR/vol0.img" listen "tcp:$A4:9876,tcp:[$A6]:9876" || bail "no export"
ctl "$A" security add vol0 10.88.0.0/16 rw
ctl "$A" start vol0 || bail "not started"
rule() { ctl "$A" security add vol0 $B4/32 "$1"; }

# ---- who is not named

# heard NS ADDR: how many bytes the export says to who calls and sends a mark, until it closes
heard() { in_ns "$1" timeout 10 bash -c "exec 3<>/dev/tcp/$2/9876 && { head -c 48 /dev/zero >&3; cat <&3; }" 2>/dev/null | wc -c; }
is "an unlisted address is closed without a byte" "$(heard "$B" $A4)" 0
is "over IPv6, too" "$(heard "$B" $A6)" 0
wire_open "$B" "tcp:$A4:9876" vol0 ro
check "no client of it is served: $SAID" grep -q refused <<<"$SAID"
wire_close
check "the refusals are counted" test "$(field "$A" vol0 .counters.refused)" -ge 3

# ---- who may read only

rule ro
wire_open "$B" "tcp:$A4:9876" vol0 rw
is "who may only read is granted no more" "$SAID" "welcome ro"
answers "read 0 4096" "ok $(head -c 1 "$DIR/vol0.img" | od -An -tu1 | tr -d ' ')" \
	"write 0 4096 1" EPERM "discard 0 4096" EPERM "zeroes 0 4096" EPERM "flush" ok "ping" ok
check "the bytes are unchanged" unchanged
wire_close

# ---- live changes

rule rw
wire_open "$B" "tcp:$A4:9876" vol0 rw
is "who may write is granted that" "$SAID" "welcome rw"
answers "write 0 4096 1" ok "read 0 512" "ok 1"
want=$(sha256sum <"$DIR/vol0.img")
rule ro
answers "write 0 4096 2" EPERM "read 0 512" "ok 1"
check "and nothing was written" unchanged
rule rw
rule deny
answers "read 0 512" closed
wire_close
rule rw
check "read-only cuts nobody off" ctl "$A" export set vol0 read-only on
wire_open "$B" "tcp:$A4:9876" vol0 rw
is "but grants no more than that" "$SAID" "welcome ro"
answers "write 0 512 2" EPERM
wire_close
ctl "$A" export set vol0 read-only off

# ---- requests that cannot be

size=$((16 << 20))
wire_open "$B" "tcp:$A4:9876" vol0 rw
answers "read $size 512" EINVAL "write $size 4096 7" EINVAL "read $((size - 512)) 1024" EINVAL "write $((size - 512)) 1024 7" EINVAL \
	"write 0 100 7" EINVAL "read 0 2097152" EINVAL "discard $((1 << 60)) 4096" EINVAL "zeroes 0 0" EINVAL "read 0 512" "ok 1"
wire_close

# ---- the same through the NBD door

start_dstd "$B" "$DIR/b" || bail "no daemon"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"
wire_open "" "unix:$DIR/vol0.sock" vol0 nbd
answers "read $size 512" EINVAL "write $size 4096 7" ENOSPC "write 100 512 7" EINVAL "read 0 100" EINVAL "read 0 512" "ok 1"
wire_close
check "nothing of it was written" unchanged

attach "$B" lookonly "$DIR/ro.sock" "tcp:$A4:9876" export vol0 read-only
check "a remote may ask for less" nbdinfo --is read-only "$URI"
wire_open "" "unix:$DIR/ro.sock" lookonly nbd
answers "write 0 512 7" EPERM "read 0 512" "ok 1"
wire_close
