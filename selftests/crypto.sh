#!/bin/bash
# Keys are made, given to both ends, exchanged under load, and outlive daemon and file; what crosses the wire then can be read by nobody
# else, and who has no key, or another, gets nothing.
# RACE
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
requires ip jq fio nbdcopy qemu-io
requires_root
plan 67

tmpfs_dir DIR 2g
ns_pair A B
start_a() { start_dstd "$A" "$DIR/a" && DSTD_A=$DSTD_PID || bail "no daemon"; }
start_b() { start_dstd "$B" "$DIR/b" && DSTD_B=$DSTD_PID || bail "no daemon"; }
start_a
start_b
truncate -s 160M "$DIR/vol0.img" "$DIR/vol1.img" "$DIR/vol2.img"
yes 'PLAINTEXT-MARKER' | head -c 8M >"$DIR/pattern"

# ---- files of keys

for key in one two three; do
	check "key gen makes a key" ctl "" key gen "$DIR/$key"
done
is "of 32 bytes, for nobody else" "$(stat -c '%s %a %u' "$DIR/one")" "32 600 0"
refused "one that exists stays" 2 "exists" ctl "" key gen "$DIR/one"
serve "$A" vol0 "$DIR/vol0.img" "tcp:$A4:9876"
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876"
refuses() { refused "$1" 2 "$2" ctl "$A" crypto set vol0 key "$3"; }
cp "$DIR/one" "$DIR/open" && chmod 644 "$DIR/open"
refuses "a key that others may read" "mode 0644" "$DIR/open"
ln -s one "$DIR/link"
refuses "a link to one" "symbolic link" "$DIR/link"
cp "$DIR/one" "$DIR/foreign" && chmod 600 "$DIR/foreign" && chown 65534 "$DIR/foreign"
refuses "one of another user" "belongs to user 65534" "$DIR/foreign"
(umask 077 && echo "correct horse battery staple" >"$DIR/words" && head -c 15 /dev/urandom >"$DIR/short" && mkfifo "$DIR/fifo")
refuses "a passphrase" "text" "$DIR/words"
refuses "a short one" "16 to 1024" "$DIR/short"
refuses "a pipe" "regular" "$DIR/fifo"
refuses "none" "$DIR/none" "$DIR/none"
refused "a cipher that anybody can undo" 2 "use gcm" ctl "$A" crypto set vol0 cipher 'ecb(aes)' key "$DIR/one"
refused "a cipher that anybody can change" 2 "hmac" ctl "$A" crypto set vol0 cipher 'cbc(aes)' key "$DIR/one"
refused "hmac(sha1)" 2 "allow-legacy" ctl "$A" crypto set vol0 hash 'hmac(sha1)' hash-key "$DIR/one"
is "nothing of that has changed anything" "$(field "$A" vol0 .crypto) $(field "$B" vol0 .state)" "null established"

# ---- what crosses the wire

established() { state_is "$B" vol0 established; }
both() { ctl "$A" crypto set vol0 "$@" && ctl "$B" crypto set vol0 "$@" && wait_for 15 established; }

# crosses: copies the pattern there and back and sets SEEN to whether somebody on the way could read it
crosses() {
	local pid
	nsenter --net="/run/netns/$B" -- "$BIN/wire" -sniff >"$DIR/wire" 2>"$DIR/wire.err" &
	pid=$!
	cleanup "stop_pid $pid"
	wait_for 10 grep -q listening "$DIR/wire.err" || bail "wire: $(cat "$DIR/wire.err")"
	nbdcopy "$DIR/pattern" "$URI" && nbdcopy "$URI" "$DIR/back" && cmp -n $((8 << 20)) "$DIR/pattern" "$DIR/back"
	local rc=$?
	stop_pid $pid
	SEEN=no
	! grep -aqF PLAINTEXT-MARKER "$DIR/wire" || SEEN=yes
	diag "wire: $(tail -n 1 "$DIR/wire.err")"
	[ "$(stat -c %s "$DIR/wire")" -gt $((16 << 20)) ] || rc=1 # it has seen all of it
	rm "$DIR/wire" "$DIR/back"
	return $rc
}

# protects WHAT SEEN ARGUMENTS...: four results
protects() {
	local what=$1 seen=$2
	shift 2
	check "$what at both ends, while it is served" both "$@"
	is "$what: shown" "$(field "$A" vol0 .crypto) $(field "$B" vol0 .crypto)" "$what $what"
	crosses
	is "$what: the bytes come back" $? 0
	is "$what: somebody on the way sees them" "$SEEN" "$seen"
}

crosses
is "without a key everybody on the way sees the bytes" "$SEEN" yes
protects 'gcm(aes)' no key "$DIR/one"
protects 'rfc7539(chacha20,poly1305)' no cipher 'rfc7539(chacha20,poly1305)' key "$DIR/one"
protects 'cbc(aes)+hmac(sha256)' no cipher 'cbc(aes)' cipher-key "$DIR/one" hash 'hmac(sha256)' hash-key "$DIR/two"
protects 'ctr(aes)+hmac(sha512)' no cipher 'ctr(aes)' cipher-key "$DIR/one" hash 'hmac(sha512)' hash-key "$DIR/two"
protects 'hmac(sha256)' yes hash 'hmac(sha256)' hash-key "$DIR/one"
check "which is warned of" grep -q 'not encrypted' <(field "$A" vol0 '.warnings[]')
check "workers are counted anew" eval "ctl '$A' crypto set vol0 threads 2 && ctl '$B' crypto set vol0 threads 2"
is "and shown" "$(field "$A" vol0 .details.settings.crypto_threads.value) $(field "$B" vol0 .details.settings.crypto_threads.value)" "2 2"

# ---- who has no key, or another

nsenter --net="/run/netns/$A" -- "$BIN/dstctl" -j monitor >"$DIR/events" 2>&1 &
MONITOR=$!
cleanup "stop_pid $MONITOR"
wait_for 5 grep -q sync "$DIR/events"
heard() { in_ns "$B" timeout 10 bash -c "exec 3<>/dev/tcp/$A4/9876 && { head -c 48 /dev/zero >&3; cat <&3; }" 2>/dev/null | wc -c; }
both key "$DIR/one" || bail "gcm does not work"
id() { ctl "$1" -j crypto show vol0 | jq -r ".keys[$2].id"; }
one=$(id "$A" 0)
is "both ends show one key" "$(id "$B" 0)" "$one"
is "a client in clear is closed without a byte" "$(heard)" 0
wire_open "$B" "tcp:$A4:9876" vol0 ro
check "and not served: $SAID" grep -q refused <<<"$SAID"
wire_close
had=$(field "$A" vol0 .counters.auth_errors)
ctl "$B" crypto set vol0 key "$DIR/three"
says() { field "$B" vol0 .reason | grep -q "$1"; }
check "a wrong key: the remote says so" wait_for 10 says "refused the key"
check "the export counts it" test "$(field "$A" vol0 .counters.auth_errors)" -gt "${had:-0}"
told() { jq -rs '.[] | select(.event == "refuse").reason' "$DIR/events" | grep -q key; }
check "and tells it" wait_for 15 told
ctl "$B" crypto set vol0 key "$DIR/one"
check "with the right one it goes on" wait_for 15 established

# ---- another key, under load

load 12
check "the export takes a second key" ctl "$A" crypto add vol0 key "$DIR/two"
sleep 2
check "the client uses it" eval "ctl '$B' crypto set vol0 key '$DIR/two' && wait_for 15 established"
two=$(id "$B" 0)
sessions() { ctl "$A" -j crypto show vol0 | jq -c '[.keys[] | .id, .sessions]'; }
moved() { [ "$(sessions)" = "[\"$one\",0,\"$two\",1]" ]; }
check "the export knows" wait_for 10 moved
sleep 2
check "the first one goes" ctl "$A" crypto del vol0 key-id "$one"
refused "the last one does not" 2 "in clear" ctl "$A" crypto del vol0 key-id "$two"
verified

# ---- keys outlive the daemon and their files

rm "$DIR/one" "$DIR/two"
for signal in TERM KILL; do
	stop_pid "$DSTD_A" $signal
	start_a
	stop_pid "$DSTD_B" $signal
	start_b
	check "$signal: both are back with the key whose file is gone" wait_for 15 established
	is "$signal: the same one" "$(id "$A" 0) $(id "$B" 0)" "$two $two"
done
check "and serve" timeout 30 qemu-io -t none -f raw -c "write -P 7 0 1M" -c "read -P 7 0 1M" "$URI"

# ---- rules that are tied to a key

ctl "$A" security add vol0 any rw key "$one"
ctl "$A" security del vol0 any
check "a rule for another key is none for this one" wait_for 10 eval "! established"
ctl "$A" security add vol0 any rw key "$two"
check "one for this key is" wait_for 15 established
is "and shown" "$(ctl "$A" -j security show vol0 | jq -c '[.rules[] | .who, .permission, .key]')" "[\"any\",\"rw\",\"$one\",\"any\",\"rw\",\"$two\"]"

# ---- an export that is never served in clear

ctl "$A" export add vol1 device "$DIR/vol1.img" listen "tcp:$A4:9877" require-crypto && ctl "$A" security add vol1 any rw
refused "it does not start without a key" 2 "requires crypto" ctl "$A" start vol1
check "it does with one" eval "ctl '$A' crypto set vol1 key '$DIR/three' && ctl '$A' start vol1"
refused "and does not go back" 2 "requires crypto" ctl "$A" crypto set vol1 hash crc32c
ctl "$A" export add vol2 device "$DIR/vol2.img" listen "tcp:$A4:9877" && ctl "$A" security add vol2 any rw
refused "another one at its address needs a key, too" 2 "vol1" ctl "$A" start vol2
check "and starts with one" eval "ctl '$A' crypto set vol2 key '$DIR/three' && ctl '$A' start vol2"
