#!/bin/bash
# Every control operation is refused to everybody but root of the daemon's own network namespace, whoever they say they are, and
# nothing has changed.
# RACE
. "$(dirname "$0")/lib.sh"
requires ip jq setpriv unshare
requires_root

tmpfs_dir DIR
ns_new A
ns_new ELSEWHERE
start_dstd "$A" "$DIR/a" || bail "no daemon"
truncate -s 1M "$DIR/one.img" "$DIR/new.img"
L=tcp:127.0.0.1:9876
serve "$A" one "$DIR/one.img" $L
ctl "$A" remote add far peer tcp:127.0.0.1:9999 attach none
head -c 32 /dev/urandom >"$DIR/key"
chmod 755 "$DIR" && chmod 600 "$DIR/key"
CGO_ENABLED=0 "${GO:-go}" build -C "$TOP" -o "$DIR/spoof" ./selftests/spoof || bail "no spoof"
# Nobody may not look into the directory of the tree.
cp "$BIN/dstctl" "$DIR/dstctl" && chmod 755 "$DIR/dstctl" "$DIR/spoof"

# Every operation that there is; those that are here to stay would change or tell something.
OPERATIONS=(
	"show" "show one" "stats" "stats one" "sys show" "security show one" "monitor"
	"export add new device $DIR/new.img listen $L" "export set one read-only on"
	"remote add new peer $L attach socket $DIR/new.sock" "remote set far keepalive 2s" "start far"
	"security add one any ro" "security del one any"
	"crypto set one hash none" "crypto set far cipher gcm(aes) cipher-key $DIR/key"
	"crypto add one cipher gcm(aes) cipher-key $DIR/key" "crypto del one key-id 0011223344556677"
	"del far" "del one force" "sys shutdown"
)
# Who is not allowed, how such a process is made, and what it is told.
NOBODY="setpriv --reuid 65534 --regid 65534 --clear-groups"
ACTORS=(
	"nobody|$NOBODY|2|only root"
	"root without CAP_NET_ADMIN|setpriv --bounding-set -net_admin|2|CAP_NET_ADMIN"
	"nobody with all inheritable|setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +net_admin|2|only root"
	"root of a user namespace of root|unshare -Ur|2|only root|CAP_NET_ADMIN"
	"root of a user namespace of nobody|$NOBODY unshare -Ur|2|only root|CAP_NET_ADMIN"
	"root of a user and a network namespace|unshare -Urn|4|no dstd answers"
	"root of another network namespace|nsenter --net=/run/netns/$ELSEWHERE|4|no dstd answers"
)
plan $((${#ACTORS[@]} * (${#OPERATIONS[@]} + 1) + 10))

# What there is, without what time changes by itself.
state() { ctl "$A" -j -d show | jq -c 'del(.nodes[] | .state_age_ms, .details.history)'; }
before=$(state)
unchanged() { [ "$(state)" = "$before" ] || { state; false; }; }

cd / || bail "no directory"
for actor in "${ACTORS[@]}"; do
	IFS='|' read -r who become code says <<<"$actor"
	if [ "${become#*unshare}" != "$become" ] && ! in_ns "$A" $become true 2>/dev/null; then
		for operation in "${OPERATIONS[@]}" all; do skip "$who: $operation" "no user namespaces here"; done
		continue
	fi
	for operation in "${OPERATIONS[@]}"; do
		refused "$who: ${operation//$DIR\//}" "$code" "$says" in_ns "$A" $become timeout 10 "$DIR/dstctl" $operation
	done
	check "$who: nothing has changed" unchanged
done

# ---- messages by hand: in all ways, over both doors

# said WAY COMMAND...: what became of the attempts whose way is like that, each answer once
said() { in_ns "$A" "${@:2}" "$DIR/spoof" ${SPOOF+"${SPOOF[@]}"} one 2>&1 | awk -v way="$1" '$2 ~ way { print $3 }' | sort -u | xargs; }
is "nobody cannot send to the daemon, whoever he says that he is" "$(said . $NOBODY)" "EPERM"
is "nor can root of a user namespace" "$(said . unshare -Ur)" "EPERM"
is "nor can root without CAP_NET_ADMIN" "$(said . setpriv --bounding-set -net_admin)" "EPERM"
check "nothing has changed" unchanged
SPOOF=(-uid 65534)
is "who was handed a socket of root cannot say that he is root" "$(said 'sendto|credentials|multicast')" "EPERM"
is "what he sends over one that root has connected arrives" "$(said connected)" "sent"
unset SPOOF
# The one door has read it when it answers who comes later, the other one says so in the log.
check "and is refused" wait_for 5 grep -q 'only root may do this, not uid 65534' "$DIR/a/log"
check "and changes nothing" unchanged
is "what root sends in the same way" "$(said 'connected|sendto')" "sent"
is "is done" "$(ctl "$A" -j show | jq -r '[.nodes[].name] | join(" ")')" far
