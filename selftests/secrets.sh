#!/bin/bash
# No key is found where it has no business: not in logs at the debug level, what the programs say, events, command lines, environments,
# the run directory but for the file of keys, nor in the trace of a daemon that is told to die; and a daemon leaves no core.
. "$(dirname "$0")/lib.sh"
requires cc ip jq nbdcopy base64
requires_root
plan 23

tmpfs_dir DIR
OUT=$DIR/out # all that is searched
mkdir "$OUT"
check "the original's tool compiles" cc -O2 -o "$DIR/dst_tool" "$TOP/selftests/legacy/dst_tool.c" || bail "no tool"
ns_pair A B
start_a() { start_dstd "$A" "$OUT/a" -log-level debug && DSTD_A=$DSTD_PID || bail "no daemon"; }
start_a
start_dstd "$B" "$OUT/b" -log-level debug -log-format json && DSTD_B=$DSTD_PID || bail "no daemon"
truncate -s 8M "$DIR/vol0.img" "$DIR/vol1.img"
for key in one two old wrong; do
	ctl "" key gen "$DIR/$key" >>"$OUT/said" || bail "no key"
done
nsenter --net="/run/netns/$A" -- "$BIN/dstctl" -j monitor >"$OUT/monitor" 2>&1 &
MONITOR=$!
cleanup "stop_pid $MONITOR"

# ---- where it could be: everything that is said, at both doors, about good and bad requests

say() { ctl "$@" >>"$OUT/said" 2>&1; }
say "$A" export add vol0 device "$DIR/vol0.img" listen "tcp:$A4:9876" require-crypto
say "$A" security add vol0 any rw
check "a cipher and a hash with keys" say "$A" crypto set vol0 cipher 'cbc(aes)' cipher-key "$DIR/one" hash 'hmac(sha256)' hash-key "$DIR/two"
check "one more" say "$A" crypto add vol0 key "$DIR/one"
say "$A" start vol0
for words in "hash crc32c" "cipher ecb(aes) key $DIR/one" "hash hmac(sha1) hash-key $DIR/two" "cipher gcm(aes) key $DIR/one hash hmac(sha256) hash-key $DIR/two"; do
	# shellcheck disable=SC2086 # words are several
	! say "$A" crypto set vol0 $words || not_ok "$words is accepted"
done
! say "$A" crypto add vol0 key "$DIR/one" || not_ok "a key is accepted twice"
tool() { in_ns "$A" "$DIR/dst_tool" -P 0x445354 "$@" >>"$OUT/said" 2>&1; }
check "keys at the door of the original's tools" tool -n vol1 -d "$DIR/vol1.img" -a $A4 -p 9877 -c 'ctr(aes)' -C "$DIR/old" -x 'hmac(sha512)' -H "$DIR/two" -t 2
! tool -n vol1 -c 'cbc(aes)' -C "$DIR/old" || not_ok "a cipher without a hash is accepted"
! tool -n vol1 -x 'hmac(sha1)' -H "$DIR/old" || not_ok "hmac(sha1) is accepted"
say "$B" remote add vol0 peer "tcp:$A4:9876" attach socket "$DIR/vol0.sock"
say "$B" crypto set vol0 key "$DIR/wrong"
say "$B" -wait 0s start vol0
refused_there() { [ "$(field "$A" vol0 .counters.auth_errors)" -gt 0 ]; }
check "a wrong key is refused" wait_for 10 refused_there
say "$B" crypto set vol0 key "$DIR/one"
established() { state_is "$B" vol0 established; }
check "a right one is not" wait_for 15 established
head -c 4M /dev/urandom >"$DIR/data"
check "data is copied" nbdcopy "$DIR/data" "nbd+unix:///vol0?socket=$DIR/vol0.sock"
for ns in "$A" "$B"; do
	for words in "-j -s -d show" "-s -d show" "-j crypto" "crypto show" "-j -d sys" "-j security" "-j stats" "node why vol0"; do
		# shellcheck disable=SC2086
		say "$ns" $words
	done
done
say "" help crypto set

# ---- what a running daemon shows of itself

look() {
	local pid=$1
	cat "/proc/$pid/cmdline" "/proc/$pid/environ" "/proc/$pid/comm" >>"$OUT/proc"
	cat "/proc/$pid/task"/*/comm >>"$OUT/proc"
	ls -l "/proc/$pid/fd" >>"$OUT/proc" 2>&1
}
look "$DSTD_A"
look "$DSTD_B"
is "the keys of both nodes are remembered, for root alone" "$(stat -c '%a %u' "$OUT"/a/run/nodes/vol0/keys "$OUT"/a/run/nodes/vol1/keys | sort -u)" "600 0"
is "and of the remote" "$(stat -c '%a %u' "$OUT/b/run/nodes/vol0/keys")" "600 0"
is "no core is dumped" "$(awk '/^Max core/ { print $5, $6 }' "/proc/$DSTD_A/limits" "/proc/$DSTD_B/limits" | sort -u)" "0 0"
is "nor may others of its user look into it" "$(ctl "$A" -j sys | jq '.sys.protections[] | select(.name == "no-dumps").active')" true

# Secrets: the bytes of the files, and what the daemon has made of them: 32 bytes behind the second of the remembered form.
secrets=("$DIR/one" "$DIR/two" "$DIR/old" "$DIR/wrong")
for kept in a/run/nodes/vol0 a/run/nodes/vol1 b/run/nodes/vol0; do
	dd if="$OUT/$kept/keys" of="$DIR/psk.${#secrets[@]}" bs=1 skip=2 count=32 status=none
	secrets+=("$DIR/psk.${#secrets[@]}")
done
is "there are seven secrets" "$(cat "${secrets[@]}" | wc -c)" $((7 * 32))

# A daemon that is told to die says where each of its threads is, and what they were called with.
ctl "$B" -j show >/dev/null
stop_pid "$DSTD_B" QUIT
stop_pid "$DSTD_A" QUIT
check "both say where they were" grep -c '^goroutine ' "$OUT/a/log" "$OUT/b/log"
is "and leave no core" "$(find "$OUT" "$PWD" -maxdepth 3 -name 'core*' -newer "$DIR/wrong" -size +1M)" ""
stop_pid $MONITOR
check "events were told" grep -q '"event":"refuse"' "$OUT/monitor"
find "$OUT" -name keys -delete

# hex FILE OFFSET COUNT
hex() { od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

# forms FILE: how text could tell 8 bytes in the middle of a secret: hex, decimal, base64 in its three phases, as Go quotes it, and as
# the words of a trace
forms() {
	local hex i
	hex=$(hex "$1" 9 8)
	echo "$hex"
	sed 's/../& /g; s/ $//' <<<"$hex"
	sed 's/../\\x&/g' <<<"$hex"
	sed 's/../0x&, /g; s/, $//' <<<"$hex"
	for i in 8 16; do
		echo "0x$(dd if="$1" bs=1 skip=$i count=8 status=none | od -An -v -tx8 | tr -d ' ')"
	done
	for i in ' ' ','; do
		od -An -v -tu1 -j 9 -N 8 "$1" | xargs | tr ' ' "$i"
	done
	for i in 9 10 11; do
		dd if="$1" bs=1 skip=$i count=9 status=none | base64
		dd if="$1" bs=1 skip=$i count=9 status=none | base64 | tr '+/' '-_'
	done
}
raw() { hex "$1" 9 8 | sed 's/../\\x&/g'; }

# found WHERE...: prints the files that have a secret in any form
found() {
	local secret
	for secret in "${secrets[@]}"; do
		forms "$secret" | grep -v '^$' >"$DIR/forms"
		grep -raliF -f "$DIR/forms" -- "$@"
		grep -ralP "$(raw "$secret")" -- "$@"
	done | sort -u
}

cp "${secrets[0]}" "$DIR/control"
is "a key would be found as bytes" "$(found "$DIR/control")" "$DIR/control"
hex "${secrets[2]}" 0 32 >"$DIR/control"
is "as hex" "$(found "$DIR/control")" "$DIR/control"
base64 "${secrets[5]}" >"$DIR/control"
is "as base64" "$(found "$DIR/control")" "$DIR/control"
od -An -v -tu1 "${secrets[4]}" | xargs >"$DIR/control"
is "and as Go prints bytes" "$(found "$DIR/control")" "$DIR/control"
check "there is much to search" test "$(cat "$OUT/said" "$OUT/monitor" "$OUT"/*/log "$OUT/proc" | wc -c)" -gt 30000
is "the logs have none" "$(found "$OUT/a/log" "$OUT/b/log")" ""
is "what was said has none" "$(found "$OUT/said" "$OUT/monitor" "$OUT/proc")" ""
is "and nothing else that the daemons have left" "$(found "$OUT")" ""
