#!/bin/bash
# A configuration tool of the original driver works: at the daemon's port, and unmodified, sending to the kernel, with the shim.
# RACE
. "$(dirname "$0")/lib.sh"
requires cc make ip jq
requires_root
plan 76

PORT=0x445354 # abi.Port
FRAMES=$TOP/abi/testdata/original
tmpfs_dir DIR
check "the tool compiles without a warning" cc -Wall -Wextra -Werror -O2 -o "$DIR/dst_tool" "$TOP/selftests/legacy/dst_tool.c" || bail "no tool"
check "and so does the shim" make -s -C "$TOP/tools/cnshim" OUT="$DIR" || bail "no shim"
ns_new A
start_dstd "$A" "$DIR/a" || bail "no daemon"
truncate -s 8M "$DIR/disk" "$DIR/other"
mkdir "$DIR/dir"
printf '1 10.0.0.7\n3 2001:db8::7\n0 10.0.0.8\n3 127.0.0.1\n' >"$DIR/rules"
printf 'secret key bytes' >"$DIR/key"
ctl "" key gen "$DIR/random" >/dev/null && ctl "" key gen "$DIR/more" >/dev/null || bail "no keys"

SHIM=() TO=(-P $PORT)
tool() { in_ns "$A" ${SHIM+"${SHIM[@]}"} "$DIR/dst_tool" ${TO+"${TO[@]}"} "$@"; }
says() { is "$1" "$(tool "${@:3}" 2>&1 | xargs)" "$2"; }
shows() { is "$1" "$(ctl "$A" -j -d show "$2" | jq -c ".nodes[0] | $3")" "$4"; }
L=(-a 127.0.0.1 -p)

# ---- an export, a remote, and what is refused by name

# life HOW: the same whichever way the daemon is reached
life() {
	says "$1: an export, its rules, its digest" "add: ok security: ok security: ok security: ok security: ok crypto: ok" \
		-n disk0 -d "$DIR/disk" "${L[@]}" 9876 -S 4194304 -m 32 -s "$DIR/rules" -x crc32c
	shows "$1: it is what was asked for" disk0 '[.kind, .size, .state, .listen[0], .details.settings.max_pages.value]' \
		'["export",4194304,"configured","tcp:127.0.0.1:9876",32]'
	shows "$1: with its rules" disk0 '[.details.rules[] | .who, .permission]' \
		'["10.0.0.7/32","ro","2001:db8::7/128","rw","10.0.0.8/32","deny","127.0.0.1/32","rw"]'
	says "$1: start" "start: ok" -n disk0 -R
	wire_open "$A" tcp:127.0.0.1:9876 disk0 rw
	is "$1: it is served" "$SAID" "welcome rw"
	says "$1: what is in use is not removed" "del: EBUSY" -n disk0 -D
	wire_close
	says "$1: start again" "start: ok" -n disk0 -R
	says "$1: the digest of a started node stays" "crypto: EEXIST" -n disk0 -x crc32c
	says "$1: a name that is taken" "add: EEXIST" -n disk0 -d "$DIR/other" "${L[@]}" 9877
	says "$1: by another kind" "add: EEXIST" -n disk0 "${L[@]}" 9877
	says "$1: no such node" "security: ENODEV security: ENODEV security: ENODEV security: ENODEV crypto: ENODEV start: ENODEV del: ENODEV" \
		-n none -s "$DIR/rules" -x crc32c -R -D
	wait_for 5 idle disk0
	says "$1: del" "del: ok" -n disk0 -D
	says "$1: a remote, its digest" "add: ok crypto: ok" -n far0 -a 192.0.2.1 -p 9876 -T 2000 -N 5 -x crc32c
	shows "$1: it is what was asked for" far0 '[.kind, .attach, .flags, .peers[0], .details.settings.max_pages.value]' \
		'["remote","nbd",["sole"],"tcp:192.0.2.1:9876",2]'
	says "$1: del" "del: ok" -n far0 -D
	is "$1: nothing is left" "$(ctl "$A" -j show | jq -c .nodes)" "[]"
}
idle() { [ "$(field "$A" "$1" .clients)" = 0 ]; }

life "the daemon's port"
SHIM=(env "LD_PRELOAD=$DIR/cnshim.so") TO=()
life "the shim"
for how in write sendto sendmsg; do
	TO=(-W $how)
	says "the shim, by $how" "del: ENODEV" -n none -D
done
SHIM=() TO=()
says "without it the kernel does not answer" "del: no answer" -n none -D
TO=(-P $PORT)

# ---- the original's bytes

# answers_with WHAT FRAME ANSWER: a frame of the worked examples gets the answer of a file, its errno and sequence replaced
answers_with() {
	local want
	want=$(sed 's/#.*//' "$FRAMES/10.8-ack.hex" | xargs)
	is "$1" "$(tool -F "$FRAMES/10.8-$2.hex")" "$(sed -E "$3" <<<"$want")"
}
answers_with "START of no node, byte for byte" start 's/^(.{108}).{11}/\1ed ff ff ff/'
answers_with "ADD_REMOTE" add-remote 's/^(.{24})03(.{46})03/\100\200/'
says "the frame's node" "del: ok" -n disk0 -D
says "an export of that name" "add: ok security: ok security: ok security: ok security: ok" -n disk0 -d "$DIR/disk" "${L[@]}" 9876 -s "$DIR/rules"
answers_with "START" start ''
check "it is served" state_is "$A" disk0 serving
answers_with "ADD_REMOTE of a name that is taken" add-remote 's/^(.{24})03(.{46})03(.{34}).{11}/\100\200\3ef ff ff ff/'

# ---- what else is refused; nothing has changed

# frame WORD...: hexadecimal bytes of a message whose dst_ctl begins with the words, zeroes up to BYTES of it; NLMSG and CN are its lengths
frame() {
	local cn=$((${CN:-$BYTES})) len=$((${NLMSG:-$((36 + (BYTES + 3) / 4 * 4))})) i
	{
		printf '%02x %02x 00 00 03 00 00 00 07 00 00 00 00 00 00 00 ' $((len & 255)) $((len >> 8))
		printf '06 00 00 00 01 00 00 00 07 00 00 00 00 00 00 00 %02x %02x 00 00 ' $((cn & 255)) $((cn >> 8))
		printf '%s ' "$@"
		for ((i = $#; i < (BYTES + 3) / 4 * 4; i++)); do printf '00 '; done
	} >"$DIR/frame"
	tool -F "$DIR/frame" | awk '{ print /answer/ ? $0 : "0x" $40 $39 $38 $37 }'
}
errno() { printf '0x%08x' $(((1 << 32) - $1)); }
state() { ctl "$A" -j -d show | jq -c 'del(.nodes[] | .state_age_ms, .details.history)'; }
before=$(state)

is "zeroes are a DEL of no name: ENODEV"   "$(BYTES=64 frame)"           "$(errno 19)"
is "63 bytes: EBADMSG"                     "$(BYTES=63 frame)"           "$(errno 74)"
is "a length that lies: EBADMSG"           "$(BYTES=64 CN=400 frame)"    "$(errno 74)"
is "an nlmsg_len that lies is not answered" "$(BYTES=64 NLMSG=200 frame)" "no answer"
is "too much: EMSGSIZE"                    "$(BYTES=16400 frame)"        "$(errno 90)"
is "an unknown command: EINVAL"            "$(BYTES=64 frame 61 $(printf '00 %.0s' {1..35}) 06)" "$(errno 22)"
is "ADD_EXPORT without its data: EINVAL"   "$(BYTES=64 frame 61 $(printf '00 %.0s' {1..35}) 02)" "$(errno 22)"
is "a name without an end: EINVAL"         "$(BYTES=204 frame $(printf '61 %.0s' {1..32}) 00 00 00 00 01)" "$(errno 22)"

new=(-n new -d "$DIR/other")
says "no such device" "add: ENOENT" -n new -d "$DIR/none" "${L[@]}" 9877
says "a directory" "add: ENOTBLK" -n new -d "$DIR/dir" "${L[@]}" 9877
says "a device in use" "add: EBUSY" -n new -d "$DIR/disk" "${L[@]}" 9877
says "an address of somebody else" "add: EADDRNOTAVAIL" "${new[@]}" -a 192.0.2.1 -p 9877
start_cutproxy "$A" tcp:127.0.0.1:9878 tcp:127.0.0.1:9 || bail "no cutproxy"
says "an address in use" "add: EADDRINUSE" "${new[@]}" "${L[@]}" 9878
says "more than there is" "add: ERANGE" "${new[@]}" "${L[@]}" 9877 -S 8389120
says "a hash that is not known" "add: ok crypto: EINVAL del: ok" "${new[@]}" "${L[@]}" 9877 -x md5 -D
says "a cipher without a hash" "add: ok crypto: EOPNOTSUPP del: ok" "${new[@]}" "${L[@]}" 9877 -c 'cbc(aes)' -C "$DIR/random" -D
says "hmac(sha1)" "add: ok crypto: EOPNOTSUPP del: ok" "${new[@]}" "${L[@]}" 9877 -x 'hmac(sha1)' -H "$DIR/random" -D
says "a passphrase" "add: ok crypto: EINVAL del: ok" "${new[@]}" "${L[@]}" 9877 -c 'gcm(aes)' -C "$DIR/key" -D
says "a cipher with a key" "add: ok crypto: ok del: ok" "${new[@]}" "${L[@]}" 9877 -c 'gcm(aes)' -C "$DIR/random" -D
says "a cipher and a hash, each with its key" "add: ok crypto: ok" "${new[@]}" "${L[@]}" 9877 -c 'cbc(aes)' -C "$DIR/random" -x 'hmac(sha256)' -H "$DIR/more" -t 3
shows "they are what was asked for" new '[.details.keys[0].cipher, .details.keys[0].hash, .details.settings.crypto_threads.value]' '["cbc(aes)","hmac(sha256)",3]'
had=$(ctl "$A" -j crypto show new)
ctl "$A" crypto set new cipher 'cbc(aes)' cipher-key "$DIR/random" hash 'hmac(sha256)' hash-key "$DIR/more"
is "and the keys are those of dstctl" "$(ctl "$A" -j crypto show new)" "$had"
says "del" "del: ok" -n new -D
says "start without a rule" "add: ok start: EINVAL del: ok" "${new[@]}" "${L[@]}" 9877 -R -D
is "nothing has changed" "$(state)" "$before"
check "the reasons are in the log" grep -q 'add-export \\*"new\\*": .*is locked' "$DIR/a/log"
check "and no key is" eval "! grep -q 'secret key' '$DIR/a/log'"

# ---- without the kernel's driver a remote cannot be started, and says so

says "a remote" "add: ok" -n far0 -a 192.0.2.1 -p 9876
started=$(tool -n far0 -R)
diag "start of a remote: $started"
check "its start is answered" grep -Eq '^start: (ok|E[A-Z]+)$' <<<"$started"
case $started in
"start: ok") check "the kernel has the driver: it is under way" eval '! state_is "$A" far0 configured' ;;
*) check "there is none: it is as before" state_is "$A" far0 configured ;;
esac
says "del" "del: ok" -n far0 -D
