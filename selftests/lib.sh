# What every whole-system test needs: TAP version 13, cleaning up, network namespaces, daemons. README.md tells how to use it.
# To be sourced by bash:  . "$(dirname "$0")/lib.sh"

set -u
export LC_ALL=C
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${BIN:-$TOP/bin}
DSTD=${DSTD:-$BIN/dstd}
PATH=$BIN:$PATH

# The two ends of a pair, the same in every test: each pair has namespaces of its own.
A4=10.77.0.1 B4=10.77.0.2 A6=fd77::1 B6=fd77::2
LINK=dst0

_planned='' _run=0 _bad=0 _ended='' _cleanups=() _pairs=0 _daemons=()

# ---- TAP

echo "TAP version 13"

# plan N: that many results will follow. Without it the number is printed at the end, and a test that stops early is not noticed.
plan() { _planned=$1; echo "1..$1"; }

# diag TEXT: a comment, a line each
diag() { printf '%s\n' "$*" | sed 's/^/# /'; }

ok() { _run=$((_run + 1)); echo "ok $_run - $*"; }

# not_ok WHAT [WHY]
not_ok() {
	_run=$((_run + 1)) _bad=$((_bad + 1))
	echo "not ok $_run - $1"
	[ -z "${2:-}" ] || diag "$2"
}

# skip WHAT WHY: one result that cannot be had here. With CI=true it is a failure: there everything can be had.
skip() {
	if [ "${CI:-}" = true ]; then
		not_ok "$1" "skipped: $2"
	else
		_run=$((_run + 1))
		echo "ok $_run - $1 # SKIP $2"
	fi
}

# skip_all WHY: the whole test, and no more
skip_all() {
	[ "${CI:-}" != true ] || bail "skipped: $1"
	[ -n "$_planned" ] || echo "1..0 # SKIP $1"
	_ended=skip
	exit 0
}

# bail WHY: nothing more can be tested
bail() {
	echo "Bail out! $*"
	_ended=bail
	exit 1
}

# check WHAT COMMAND...: ok if it succeeds; else its output is shown
check() {
	local what=$1 out rc
	shift
	out=$("$@" 2>&1)
	rc=$?
	if [ $rc = 0 ]; then ok "$what"; else not_ok "$what" "exit $rc of: $*"$'\n'"$out"; fi
	return $rc
}

# refused WHAT EXIT PATTERN COMMAND...: ok if it exits with that code and says, on stderr, something like PATTERN (grep -E)
refused() {
	local what=$1 code=$2 pattern=$3 out rc
	shift 3
	out=$("$@" 2>&1 >/dev/null)
	rc=$?
	if [ $rc = "$code" ] && grep -Eq -- "$pattern" <<<"$out"; then
		ok "$what"
	else
		not_ok "$what" "exit $rc, want $code, of: $*"$'\n'"said: $out"$'\n'"want: $pattern"
	fi
}

# is WHAT GOT WANT
is() {
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got:  $2"$'\n'"want: $3"; fi
}

# requires COMMAND...: without one of them the test is skipped
requires() {
	local tool
	for tool in "$@"; do
		command -v "$tool" >/dev/null || skip_all "no $tool: run tools/setup"
	done
}

requires_root() { [ "$(id -u)" = 0 ] || skip_all "must be root"; }

# ---- cleaning up

# cleanup COMMAND: run at the end, however the test ends, the last one given first. It is one string for eval.
cleanup() { _cleanups+=("$1"); }

_finish() {
	local rc=$? i
	trap - EXIT
	trap '' INT TERM
	[ $rc != 0 ] || [ -n "$_ended" ] || _no_leaks
	for ((i = ${#_cleanups[@]} - 1; i >= 0; i--)); do
		eval "${_cleanups[i]}" >&2 || diag "cleanup failed: ${_cleanups[i]}"
	done
	if [ -z "$_ended" ]; then
		[ -n "$_planned" ] || echo "1..$_run"
		[ -z "$_planned" ] || [ "$_planned" = "$_run" ] || { diag "planned $_planned, ran $_run"; rc=1; }
		[ $_bad = 0 ] || rc=1
	fi
	exit $rc
}
trap _finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- waiting

# wait_for SECONDS COMMAND...: until it succeeds; false if that did not happen in time
wait_for() {
	local end=$((${EPOCHREALTIME//[!0-9]/} + $1 * 1000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "${EPOCHREALTIME//[!0-9]/}" -lt $end ] || return 1
		sleep 0.05
	done
}

# stop_pid PID [SIGNAL]: ends a process that this test started and waits for it; KILL if it takes more than 10 s (then false)
stop_pid() {
	kill "-${2:-TERM}" "$1" 2>/dev/null || { wait "$1" 2>/dev/null; return 0; }
	wait_for 10 _gone "$1" && { wait "$1" 2>/dev/null; return 0; }
	kill -KILL "$1" 2>/dev/null
	wait "$1" 2>/dev/null
	return 1
}

# _gone PID: it does not run any more (a zombie does not)
_gone() {
	local state
	state=$(ps -o stat= -p "$1") || return 0
	[ "${state:0:1}" = Z ]
}

# ---- places

# tmpfs_dir NAME [SIZE]: mounts a tmpfs of this test's own and sets the variable NAME to its path
tmpfs_dir() {
	local _dir
	_dir=$(mktemp -d) || bail "mktemp"
	cleanup "rmdir '$_dir'"
	mount -t tmpfs -o "size=${2:-1g},mode=0700" dsttest "$_dir" || bail "cannot mount a tmpfs"
	# What a daemon of this test mounted below goes first.
	cleanup "umount -R '$_dir'"
	printf -v "$1" %s "$_dir"
}

# ns_new NAME: makes a network namespace with lo up and sets the variable NAME to its name
ns_new() {
	local _ns=dst-$$-$((_pairs += 1))
	ip netns add "$_ns" || bail "cannot make a network namespace"
	cleanup "ip netns del '$_ns'"
	ip -n "$_ns" link set lo up
	printf -v "$1" %s "$_ns"
}

# ns_pair A B: makes two namespaces joined by a veth, $A4 and $A6 in the first, $B4 and $B6 in the second, usable when it returns;
# sets the variables A and B to their names. The names hold this process's id: tests may run side by side.
ns_pair() {
	ns_new "$1"
	ns_new "$2"
	ns_join "${!1}" "${!2}"
}

# ns_join NS NS: a cable between two that have none
ns_join() {
	NS_A=$1 NS_B=$2
	ip link add $LINK netns "$NS_A" type veth peer name $LINK netns "$NS_B" || bail "cannot make a veth pair"
	_end_up "$NS_A" $A4 $A6
	_end_up "$NS_B" $B4 $B6
	wait_for 10 _settled "$NS_A" && wait_for 10 _settled "$NS_B" || bail "the veth pair did not come up"
}

# Addresses of IPv6 stay when the link is cut, and are not searched for duplicates, which would take a second each time.
_end_up() {
	in_ns "$1" sh -c "echo 1 >/proc/sys/net/ipv6/conf/$LINK/keep_addr_on_down; echo 0 >/proc/sys/net/ipv6/conf/$LINK/accept_dad"
	ip -n "$1" addr add "$2/24" dev $LINK
	ip -n "$1" addr add "$3/64" dev $LINK nodad
	ip -n "$1" link set $LINK up
}

_settled() {
	ip -n "$1" link show $LINK | grep -q 'state UP' && [ -z "$(ip -n "$1" -6 addr show dev $LINK tentative)" ]
}

# in_ns NS COMMAND...: runs it in the network namespace. Not by "ip netns exec": that has mounts of its own, and what a
# daemon mounts would be seen by nobody else. With NS empty: here.
in_ns() {
	local ns=$1
	shift
	if [ -z "$ns" ]; then "$@"; else nsenter --net="/run/netns/$ns" -- "$@"; fi
}

# link_cut [NS], link_heal [NS]: as when the cable is pulled and put back, at the first end of the newest pair by default
link_cut() { ip -n "${1:-$NS_A}" link set $LINK down; }
link_heal() { ip -n "${1:-$NS_A}" link set $LINK up; }

# blackhole on|off: packets between the newest pair vanish in both directions, the carrier stays. Each end is told a wrong link
# address of the other, so the packets arrive and are dropped as meant for somebody else: needs no netfilter and no scheduler
# module, and works on any kernel. Cutting the link forgets it. blackhole_from NS on|off does one direction only.
blackhole() { blackhole_from "$NS_A" "$1" && blackhole_from "$NS_B" "$1"; }

blackhole_from() {
	local to peers="$B4 $B6"
	[ "$1" = "$NS_A" ] || peers="$A4 $A6"
	for to in $peers; do
		case $2 in
		on) ip -n "$1" neigh replace "$to" lladdr 02:00:00:00:00:99 dev $LINK nud permanent || return 1 ;;
		off) ip -n "$1" neigh del "$to" dev $LINK || return 1 ;;
		esac
	done
}

# ---- daemons

# start_dstd NS DIR [ARGUMENT...]: runs dstd in a namespace ("" for this one) with its directories and log below DIR, and returns
# when it answers. DIR should lie in a tmpfs_dir. Sets DSTD_PID. At the end of the test it must have leaked nothing, and is stopped.
# RUN_DSTD is an array of words to put before the command.
start_dstd() {
	local ns=$1 dir=$2 enter=() before
	shift 2
	mkdir -p "$dir/run" "$dir/state" "$dir/dev"
	[ -z "$ns" ] || enter=(nsenter --net="/run/netns/$ns" --)
	"${enter[@]}" ${RUN_DSTD+"${RUN_DSTD[@]}"} "$DSTD" -run "$dir/run" -state "$dir/state" -dev "$dir/dev" "$@" </dev/null >>"$dir/log" 2>&1 &
	DSTD_PID=$!
	cleanup "stop_pid $DSTD_PID"
	wait_for 10 _answers_or_gone "$ns" "$DSTD_PID"
	if _gone "$DSTD_PID" || ! ctl "$ns" sys show >/dev/null; then
		diag "dstd $*: $(tail -n 20 "$dir/log")"
		return 1
	fi
	# One that came back has nodes already: its first life tells how many descriptors an empty one has.
	before=$(cat "$dir/descriptors" 2>/dev/null) || { before=$(fds "$DSTD_PID") && echo "$before" >"$dir/descriptors"; }
	_daemons+=("$DSTD_PID $before $dir $ns")
}

# A daemon that runs itself anew looks like a zombie for a moment.
_answers_or_gone() { ctl "$1" sys show || { _gone "$2" && sleep 0.2 && _gone "$2"; }; }

# fds PID, threads PID, rss PID: how many descriptors and threads it has, how many KiB of memory
fds() { ls "/proc/$1/fd" 2>/dev/null | wc -l; }
threads() { ls "/proc/$1/task" 2>/dev/null | wc -l; }
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

# Every daemon that lives when the test ends: once its nodes are removed, the descriptors are those of its start, and of the
# goroutines that it prints when it is told to quit none is the data plane's. No log has a panic or a race.
# A leak is a result more than planned.
_no_leaks() {
	local one pid before dir ns name
	for one in ${_daemons+"${_daemons[@]}"}; do
		read -r pid before dir ns <<<"$one"
		if ! _gone "$pid"; then
			for name in $(ctl "$ns" -j show | jq -r '.nodes[].name'); do
				ctl "$ns" del "$name" force >/dev/null || not_ok "$name of $dir is removed at the end"
			done
			wait_for 5 _has_fds "$pid" $((before + ${DRIVER_FDS:-0})) || not_ok "descriptors of $dir return to $before" "$(ls -l "/proc/$pid/fd")"
			stop_pid "$pid" QUIT || not_ok "dstd of $dir prints its goroutines"
			! sed '1,/^SIGQUIT/d' "$dir/log" | grep -q '^dst/dataplane/' ||
				not_ok "no goroutine of $dir is left" "$(sed '1,/^SIGQUIT/d' "$dir/log")"
		fi
		! sed '/^SIGQUIT/,$d' "$dir/log" | grep -Eq '^(panic|fatal error|WARNING: DATA RACE)' || not_ok "no panic in $dir" "$(cat "$dir/log")"
	done
}

_has_fds() { [ "$(fds "$1")" -le "$2" ]; }

# ctl NS WORD...: dstctl in a namespace
ctl() {
	local ns=$1
	shift
	in_ns "$ns" "$BIN/dstctl" "$@"
}

# field NS NAME PATH: one value of "dstctl -j -d -s show NAME", by a jq path below the node: field "$B" vol0 .counters.reads
field() { ctl "$1" -j -d -s show "$2" | jq -r ".nodes[0]$3"; }

# state_is NS NAME STATE: for wait_for
state_is() { [ "$(field "$1" "$2" .state)" = "$3" ]; }

# serve NS NAME FILE ADDR[,ADDR...] [WORD...]: exports a file to everybody
serve() {
	local ns=$1 name=$2 file=$3 addr=$4
	shift 4
	ctl "$ns" export add "$name" device "$file" listen "$addr" "$@" &&
		ctl "$ns" security add "$name" any rw && ctl "$ns" start "$name" || bail "$name cannot be exported"
}

# attach NS NAME SOCKET ADDR [WORD...]: attaches a remote as a Unix socket and sets URI to what NBD clients open
attach() {
	local ns=$1 name=$2 sock=$3 addr=$4
	shift 4
	ctl "$ns" remote add "$name" peer "$addr" attach socket "$sock" "$@" start || bail "$name cannot be attached"
	URI="nbd+unix:///$name?socket=$sock"
}

# start_cutproxy NS LISTEN TARGET: runs the byte-exact proxy; sets CUTPROXY_PID, CUTPROXY (control socket) and CUTPROXY_ADDR
start_cutproxy() {
	local dir
	dir=$(mktemp -d) || bail "mktemp"
	cleanup "rm -rf '$dir'"
	CUTPROXY=$dir/control
	if [ -z "$1" ]; then
		"$BIN/cutproxy" -control "$CUTPROXY" "$2" "$3" </dev/null >"$dir/out" 2>&1 &
	else
		nsenter --net="/run/netns/$1" -- "$BIN/cutproxy" -control "$CUTPROXY" "$2" "$3" </dev/null >"$dir/out" 2>&1 &
	fi
	CUTPROXY_PID=$!
	cleanup "stop_pid $CUTPROXY_PID"
	wait_for 10 grep -q '^listening ' "$dir/out" || { diag "cutproxy: $(cat "$dir/out")"; return 1; }
	CUTPROXY_ADDR=$(sed -n 's/^listening //p' "$dir/out")
}

# proxy WORD...: a command for the newest proxy (cutproxy -h lists them)
proxy() { "$BIN/cutproxy" -send "$CUTPROXY" "$@"; }

# ---- a client that speaks by hand

# wire_open NS ADDR EXPORT ro|rw|nbd: a session of "wire" in the namespace, in the background; sets SAID to its first line: welcome
# and what was granted, or why it was refused. wire_do WORDS: sends a request and sets SAID to what came of it. wire_close: ends it.
wire_open() {
	coproc WIRE { exec 2>&1; in_ns "$1" "$BIN/wire" "${@:2}"; }
	WIRE_IN=${WIRE[1]} WIRE_OUT=${WIRE[0]} WIRE_ID=$WIRE_PID
	IFS= read -r -t 10 -u "$WIRE_OUT" SAID || SAID=nothing
}

wire_do() {
	SAID=closed
	{ echo "$*" >&"$WIRE_IN"; } 2>/dev/null || return
	IFS= read -r -t 10 -u "$WIRE_OUT" SAID || SAID=nothing
}

wire_close() {
	exec {WIRE_IN}>&- {WIRE_OUT}<&-
	wait_for 5 _gone "$WIRE_ID" || stop_pid "$WIRE_ID"
}

# answers REQUEST ANSWER...: a result for each pair: the session of wire_open gets that answer to that request
answers() {
	while [ $# -gt 0 ]; do
		wire_do "$1"
		is "$1: $2" "$SAID" "$2"
		shift 2
	done
}

# ---- load under cuts

# load SECONDS: fio on URI in the background: random read and write, 4 to 256 KiB, 16 deep, with flushes; every block written is read
# back and verified, 256 writes later or at the end of one of ten passes over 128 MiB. Takes about that long, and the cuts more.
load() {
	fio --name=load --ioengine=nbd --uri="$URI" --rw=randrw --bsrange=4k-256k --iodepth=16 --fsync=64 --size=128M --loops=10 \
		--thinktime=$(($1 * 1000000 / 1500)) --thinktime_blocks=16 --verify=crc32c --verify_backlog=256 --verify_fatal=1 --verify_state_save=0 \
		--output-format=json --output="$DIR/fio.json" 2>"$DIR/fio.err" &
	FIO=$!
	FIO_NODE=${URI#*:///} FIO_NODE=${FIO_NODE%%\?*}
	cleanup "stop_pid $FIO"
	wait_for 10 answered_more_than 0 || bail "fio does nothing: $(cat "$DIR/fio.err")"
}

# answered: requests of the load that were answered so far, as the remote in $B counts them
answered() { field "$B" "$FIO_NODE" '.counters | .reads + .writes'; }
answered_more_than() { [ "$(answered)" -gt "$1" ]; }

# under_cut WHAT SECONDS CUT HEAL: two commands with that time between them; a result: requests are answered again. The time it took
# from healing to the first answer is printed.
under_cut() {
	local what="$1 for $2 s" before healed
	$3 >/dev/null || { not_ok "$what"; return; }
	sleep "$2"
	before=$(answered)
	$4 >/dev/null || { not_ok "$what: healing"; return; }
	healed=${EPOCHREALTIME//[!0-9]/}
	wait_for 30 answered_more_than "$before"
	check "$what: requests are answered again" answered_more_than "$before"
	diag "time: $what: first answer $(((${EPOCHREALTIME//[!0-9]/} - healed) / 1000)) ms after it healed"
	sleep 4
}

# verified: two results: the load has lasted until now, and ends without an error
verified() {
	local rc
	check "the load went on through all of it" kill -0 $FIO
	wait $FIO
	rc=$?
	is "fio met no error and verified all of it" "$rc $(cat "$DIR/fio.err")" "0 "
	diag "time: $(jq -r '.jobs[0] | "load \(.job_runtime / 1000 | round) s, \(.write.total_ios) writes and \(.read.total_ios) reads of \((.write.io_bytes + .read.io_bytes) / 1048576 | round) MiB, \(.sync.total_ios) flushes, \(.total_err // .error) errors"' "$DIR/fio.json")"
}
