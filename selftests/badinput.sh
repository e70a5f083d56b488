#!/bin/bash
# Whatever is wrong with a command is said in a sentence that tells what to do, with the exit code of its kind, and nothing has changed.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq setpriv strace nbdkit
requires_root
plan 71

tmpfs_dir DIR
ns_new A
start_dstd "$A" "$DIR/a" || bail "no daemon"
truncate -s 1M "$DIR/one.img" "$DIR/two.img"
: >"$DIR/empty.img"
L=tcp:127.0.0.1
serve "$A" one "$DIR/one.img" "$L:9876"
ctl "$A" export add idle device "$DIR/two.img" listen "$L:9876"
ctl "$A" remote add far peer "$L:9999" attach none
truncate -s 1M "$DIR/new.img"

# What there is, without what time changes by itself.
state() { ctl "$A" -j -d show | jq -c 'del(.nodes[] | .state_age_ms, .details.history)'; }
before=$(state)

# wrong EXIT PATTERN WORD...: dstctl refuses these words; nothing has changed. For exit 1 nothing was sent, either.
wrong() {
	local code=$1 pattern=$2 what
	shift 2
	what=${*//$DIR\//}
	refused "$what" "$code" "^Error: .*$pattern" ctl "$A" "$@"
	[ "$(state)" = "$before" ] || not_ok "$what: nothing changed" "$(state)"
	[ "$code" != 1 ] || ! sent "$@" || not_ok "$what: nothing was sent" "$(cat "$DIR/trace")"
}

# sent WORD...: dstctl opens a netlink socket for these words
sent() {
	in_ns "$A" strace -f -qq -e trace=socket -e signal=none -o "$DIR/trace" "$BIN/dstctl" "$@" >/dev/null 2>&1
	grep -q AF_NETLINK "$DIR/trace"
}
check "strace sees what is sent" sent show

add=(export add new device "$DIR/new.img" listen "$L:9877")

# ---- not understood: exit 1

wrong 1 'unknown object "exprot".*did you mean "export"' exprot
wrong 1 'unknown command "frob"' export frob
wrong 1 'unknown word "sized"' "${add[@]}" sized 1M
wrong 1 'unknown word "rx"' security add one any rx
wrong 1 'missing' start
wrong 1 'missing' export add new listen "$L:9877"
wrong 1 'not a size' "${add[@]}" size 1Z
wrong 1 'size 0' "${add[@]}" size 0
wrong 1 'not a size' "${add[@]}" size -1
wrong 1 'udp' export add new device "$DIR/new.img" listen udp:127.0.0.1:9877
wrong 1 'port' export add new device "$DIR/new.img" listen "$L:99999"
wrong 1 'port' export add new device "$DIR/new.img" listen tcp:127.0.0.1
wrong 1 'address' export add new device "$DIR/new.img" listen ''
wrong 1 'prefix length' security add one 10.0.0.0/33 rw
wrong 1 'name' export add a/b device "$DIR/new.img" listen "$L:9877"
wrong 1 'name' export add "$(printf 'x%.0s' {1..32})" device "$DIR/new.img" listen "$L:9877"
wrong 1 'name' start ''
wrong 1 'another' export add help device "$DIR/new.img" listen "$L:9877"
wrong 1 'options stand before' show -d
wrong 1 'max-pages' "${add[@]}" max-pages 9000
wrong 1 'depth' "${add[@]}" depth 0
wrong 1 'keepalive 5ms is out of range' "${add[@]}" keepalive 5ms
wrong 1 'not a time' "${add[@]}" keepalive 5
wrong 1 'option' -z show
wrong 1 'twice|already' "${add[@]}" size 1M size 1M

# ---- refused: exit 2

wrong 2 '"one" exists' export add one device "$DIR/new.img" listen "$L:9877"
wrong 2 '"one" exists' remote add one peer "$L:9999" attach none
wrong 2 'no node "none"' start none
wrong 2 'no node "none"' del none
wrong 2 'no node "none"' show none
wrong 2 'no node "none"' stats none
wrong 2 'no node "none"' security add none any rw
wrong 2 'does not exist' export add new device "$DIR/none.img" listen "$L:9877"
wrong 2 'neither a regular file nor a block device' export add new device "$DIR" listen "$L:9877"
wrong 2 'neither a regular file nor a block device' export add new device /dev/null listen "$L:9877"
wrong 2 'symbolic link' export add new device "$(ln -s one.img "$DIR/link"; echo "$DIR/link")" listen "$L:9877"
wrong 2 'locked' export add new device "$DIR/one.img" listen "$L:9877"
wrong 2 '0 bytes' export add new device "$DIR/empty.img" listen "$L:9877"
wrong 2 'more than' "${add[@]}" size 2M
wrong 2 'no such address' export add new device "$DIR/new.img" listen tcp:192.0.2.1:9877
in_ns "$A" nbdkit -f -p 9878 -i 127.0.0.1 null 2>/dev/null & cleanup "stop_pid $!"
wait_for 5 in_ns "$A" bash -c "</dev/tcp/127.0.0.1/9878"
wrong 2 'in use' export add new device "$DIR/new.img" listen "$L:9878"
: >"$DIR/file.sock"
wrong 2 'exist|something else' remote add new peer "$L:9999" attach socket "$DIR/file.sock"
wrong 2 'directory' remote add new peer "$L:9999" attach socket "$DIR/none/x.sock"
wrong 2 'no security rule' start idle
wrong 2 'no security rule' "${add[@]}" start
# A host that has the driver would have to make a device; what that meets is tested in the virtual machine.
if [ -d /sys/module/nbd ] || modprobe -nq nbd 2>/dev/null; then
	wrong 1 'partscan' remote add new peer "$L:9999" partscan maybe
else
	wrong 2 'modprobe nbd.*attach socket' remote add new peer "$L:9999" start
fi
wrong 2 'hash "md5" is not known' "${add[@]}" hash md5
wrong 2 'rules belong to exports' security add far any rw

# A device that even root may not write: mounted read-only.
mkdir "$DIR/ro" && mount -t tmpfs -o size=2m dsttest "$DIR/ro" && truncate -s 1M "$DIR/ro/f" && mount -o remount,ro "$DIR/ro"
wrong 2 'read-only' export add new device "$DIR/ro/f" listen "$L:9877"

# ---- who may not, and who is not there

as_nobody() { in_ns "$A" setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
refused "others than root are refused" 2 'only root' as_nobody "$BIN/dstctl" show
refused "and so is root without CAP_NET_ADMIN" 2 'CAP_NET_ADMIN' in_ns "$A" setpriv --bounding-set -net_admin "$BIN/dstctl" show
check "nothing changed" test "$(state)" = "$before"
ns_new EMPTY
refused "no daemon" 4 'no dstd answers' ctl "$EMPTY" show
refused "the wait ran out, with the reason" 5 'not established after 300ms.*refused' \
	ctl "$A" -wait 300ms remote add waits peer "$L:1" attach none start
ctl "$A" del waits

# ---- batches

batch() { printf '%s\n' "$@" >"$DIR/batch"; ctl "$A" -b "$DIR/batch"; }
refused "a batch that fails at its first line" 2 'batch:1: there is no node "none"' batch 'start none' 'security add idle any ro'
refused "or cannot be understood" 1 'batch:1: unknown object' batch 'secrity add idle any ro'
check "has changed nothing" test "$(state)" = "$before"
refused "a batch that fails later is partly done" 3 'batch:2: there is no node "none"' batch 'security add idle any ro' 'start none' 'start idle'
check "what preceded is" test "$(ctl "$A" -j security show idle | jq -r '.. | .who? // empty')" = any
check "what follows is not" state_is "$A" idle configured
printf '%s\n' 'start none' 'start idle' >"$DIR/batch"
refused "-force goes on" 3 'batch:1' ctl "$A" -force -b "$DIR/batch"
check "to the end" state_is "$A" idle serving

# ---- the daemon's own

second() { in_ns "$A" "$DSTD" -run "$DIR/other" -state "$DIR/other" -dev "$DIR/other"; }
refused "a second daemon names the first" 2 "held by dstd \\(pid $DSTD_PID\\)" second
refused "and so does one with its directory" 2 'belongs to another dstd' in_ns "$EMPTY" "$DSTD" -run "$DIR/a/run" -state "$DIR/a/state" -dev "$DIR/a/dev"
refused "no daemon without CAP_NET_ADMIN" 2 'needs CAP_NET_ADMIN: run it as root' in_ns "$EMPTY" setpriv --bounding-set -net_admin "$DSTD" -run "$DIR/x"
refused "an option that there is not" 1 'see dstd -h' "$DSTD" -frob
refused "a log level that there is not" 1 'none of debug' "$DSTD" -log-level loud
RUN_DSTD=(setpriv --bounding-set -sys_resource)
start_dstd "$EMPTY" "$DIR/b" || bail "no daemon without CAP_SYS_RESOURCE"
unset RUN_DSTD
protection() { ctl "$EMPTY" -j sys show | jq -r ".sys.protections[] | select(.name == \"$1\") | .active, .reason"; }
check "without CAP_SYS_RESOURCE it runs and says so" grep -q 'CAP_SYS_RESOURCE' <(protection io-flusher)
check "in its log, too" grep -q 'io-flusher' "$DIR/b/log"
check "sys show says it in words" grep -q 'io-flusher inactive: .*CAP_SYS_RESOURCE' <(ctl "$EMPTY" sys show)
