#!/bin/bash
# A daemon that is started by hand protects itself: none of its threads may do more than it needs, its memory reaches nobody, what it
# makes is its own, and it says which protections it has. With fewer rights it runs and says what it lacks.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq setpriv prlimit qemu-io
requires_root
plan 23

tmpfs_dir DIR
ns_new A
RUN_DSTD=(bash -c 'umask 000; exec "$@"' bash)
start_dstd "$A" "$DIR/a" || bail "no daemon"
unset RUN_DSTD
PID=$DSTD_PID

# ---- every thread of it

# mask NUMBER...: a set of capabilities, of those that this machine gives to root, as /proc shows it
mask() {
	local c set=0
	for c in "$@"; do set=$((set | 1 << c)); done
	printf %016x $((set & 16#$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)))
}
DAC_OVERRIDE=1 NET_BIND_SERVICE=10 NET_ADMIN=12 IPC_LOCK=14 SYS_PTRACE=19 SYS_ADMIN=21 SYS_RESOURCE=24
KEPT=$(mask $DAC_OVERRIDE $NET_BIND_SERVICE $NET_ADMIN $IPC_LOCK $SYS_PTRACE $SYS_ADMIN $SYS_RESOURCE)
# What nobody can have where root lacks CAP_SYS_RESOURCE.
LACKING=
[ "$(mask $SYS_RESOURCE)" != "$(mask)" ] || LACKING="io-flusher oom-score"
# all_threads FIELD: its values in the status of all threads, each once
all_threads() { awk -v field="$1:" '$1 == field { print $2 }' /proc/$PID/task/*/status | sort -u | xargs; }
for field in CapPrm CapEff CapBnd; do is "$field of every thread" "$(all_threads $field)" "$KEPT"; done
is "none is inherited" "$(all_threads CapInh) $(all_threads CapAmb)" "0000000000000000 0000000000000000"
is "no thread can gain privileges" "$(all_threads NoNewPrivs)" 1
is "system calls are filtered for every thread" "$(all_threads Seccomp)" 2
is "there are no core files" "$(prlimit --pid $PID --core --noheadings --output SOFT,HARD | xargs)" "0 0"
is "what it makes is its own" "$(awk '/^Umask/ { print $2 }' /proc/$PID/status)" 0077
check "its mark is not left in its environment's way" test -z "$(tr '\0' '\n' <"/proc/$PID/environ" | grep -v "^DSTD_AGAIN=$PID$" | grep DSTD_AGAIN)"
inactive() { ctl "$1" -j sys show | jq -r '[.sys.protections[] | select(.active | not) | .name] | join(" ")'; }
is "it says that all are in effect" "$(inactive "$A")" "$LACKING"
is "and which" "$(ctl "$A" -j sys show | jq -r '[.sys.protections[].name] | sort | join(" ")')" \
	"capabilities io-flusher memory-lock no-dumps no-new-privileges oom-score system-calls"

# ---- what it makes

modes() { find "$DIR/a/run" "$DIR/a/state" "$DIR/a/dev" "$@" -printf '%P %m\n'; }
truncate -s 4M "$DIR/vol0.img"
chown 65534 "$DIR/vol0.img" && chmod 600 "$DIR/vol0.img"
check "a store of another user is served" ctl "$A" export add vol0 device "$DIR/vol0.img" listen tcp:127.0.0.1:876
ctl "$A" security add vol0 any rw
ctl "$A" start vol0
attach "$A" far "$DIR/far.sock" tcp:127.0.0.1:876 export vol0
check "and written, at a port below 1024" timeout 30 qemu-io -t none -f raw -c 'write -P 7 0 64k' -c flush "$URI"
is "no file of the daemon can be read by others" "$(modes -type f -perm /077)" ""
is "no directory can be entered by others" "$(modes -mindepth 1 -type d -perm /077)" ""
is "nor can the socket be" "$(stat -c %a "$DIR/far.sock")" 600

# ---- with fewer rights

# less WHAT OPTION...: a daemon started by setpriv with these options; sets SAID to the protections that it lacks
less() {
	ns_new LESS
	RUN_DSTD=(setpriv "${@:2}")
	start_dstd "$LESS" "$DIR/$LESS" || bail "no daemon $1"
	unset RUN_DSTD
	SAID=$(inactive "$LESS")
}
less "without CAP_SETPCAP" --bounding-set -setpcap
is "without CAP_SETPCAP nothing more is lacking" "$SAID" "$LACKING"
PID=$DSTD_PID
is "the rights are as few" "$(all_threads CapPrm) $(all_threads CapEff)" "$KEPT $KEPT"
less "without CAP_SYS_RESOURCE" --bounding-set -sys_resource
is "without CAP_SYS_RESOURCE it says what is lacking" "$SAID" "io-flusher oom-score"

# Two processes with the same rights look into each other, if they may be dumped.
FEWER=(setpriv --bounding-set -sys_ptrace)
looks() { "${FEWER[@]}" readlink "/proc/$1/fd/0"; }
"${FEWER[@]}" sleep 1000 </dev/null & SLEEPER=$!
cleanup "stop_pid $SLEEPER"
less "without CAP_SYS_PTRACE" --bounding-set -sys_ptrace
check "root without CAP_SYS_PTRACE looks into others of its kind" wait_for 5 looks $SLEEPER
check "but not into the daemon" eval '! looks '"$DSTD_PID"

refused "who has no right to serve is told so" 2 'needs CAP_NET_ADMIN' setpriv --bounding-set -net_admin "$DSTD" -run "$DIR/none"
check "and nothing was made" test ! -e "$DIR/none"
