#!/bin/bash
# ext4 and xfs, written and verified all the time, live through the death of their export's daemon every few seconds, and then through
# that of the daemon that attaches them: no request fails, every file is right, and both file systems are clean.
# VM: qemu
# MODULES: nbd veth xfs
# PROGRAMS: fio mkfs.ext4 fsck.ext4 mkfs.xfs xfs_repair
# MEM: 1536
# TIMEOUT: 1200
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 16

# How often each is killed, and how many seconds are between two deaths: 2 and so many more at random.
[ "${CI:-}" != true ] || KILLS=${KILLS:-5} CLIENT_KILLS=${CLIENT_KILLS:-3} SPREAD=${SPREAD:-1}
KILLS=${KILLS:-30} CLIENT_KILLS=${CLIENT_KILLS:-10} SPREAD=${SPREAD:-9}
TYPES=(ext4 xfs) MOUNTS=() DEVS=() NBDS=()
replayed=0 errors=0

two_hosts
mkfifo "$DIR/never"
mkdir "$DIR/tree"
for i in {1..16}; do head -c $((RANDOM * 4 + 1)) /dev/urandom >"$DIR/tree/$i"; done
(cd "$DIR/tree" && sha256sum -- * >"$DIR/sums")

for type in "${TYPES[@]}"; do
	truncate -s 320M "$DIR/$type.img"
	serve "$A" "$type" "$DIR/$type.img" "tcp:$A4:9876"
	device "$type" "tcp:$A4:9876"
	check "mkfs.$type" mkfs."$type" -q "$DEV"
	mkdir "$DIR/$type"
	mount "$DEV" "$DIR/$type" || bail "$type cannot be mounted: $(dmesg | tail -n 3)"
	cp -r "$DIR/tree" "$DIR/$type/tree.0"
	MOUNTS+=("$DIR/$type") DEVS+=("$DEV") NBDS+=("$NBD")
done
sync

# counts: how many requests each device has finished, in COUNTS
counts() {
	local nbd s
	COUNTS=()
	for nbd in "${NBDS[@]}"; do
		read -ra s <"/sys/block/$nbd/stat"
		COUNTS+=($((s[0] + s[4] + s[11])))
	done
}

# watch MICROSECONDS: waits until each device has finished a request, at most a minute; says how many ms after that time it was
watch() {
	local -a before=("${COUNTS[@]}")
	until counts && [ "${COUNTS[0]}" -gt "${before[0]}" ] && [ "${COUNTS[1]}" -gt "${before[1]}" ]; do
		[ $((${EPOCHREALTIME//[!0-9]/} - $1)) -lt 60000000 ] || return 1
		read -rt 0.01 <>"$DIR/never"
	done
	echo $(((${EPOCHREALTIME//[!0-9]/} - $1) / 1000))
}

# copies N: one more copy of the tree in each file system, made durable
copies() {
	local mnt
	for mnt in "${MOUNTS[@]}"; do cp -r "$DIR/tree" "$mnt/tree.$1" && sync -f "$mnt/tree.$1" || return; done
}

# tally: what the remotes have counted so far, which their daemon's death would erase
tally() {
	local type
	for type in "${TYPES[@]}"; do
		replayed=$((replayed + $(field "$B" "$type" .counters.replayed))) errors=$((errors + $(field "$B" "$type" .counters.errors)))
	done
}

# deaths WHO N PID START: a result: the daemon with the id in the variable PID is killed N times, and with the next one all goes on
deaths() {
	local who=$1 n=$2 round took copier watcher
	for ((round = 1; round <= n; round++)); do
		sleep $((2 + RANDOM % SPREAD))
		[ "$4" = start_a ] || tally
		stop_pid "${!3}" KILL
		sleep 0.$((RANDOM % 9 + 1))
		copies "$who.$round" >"$DIR/copies" 2>&1 & copier=$!
		counts
		watch "${EPOCHREALTIME//[!0-9]/}" >"$DIR/took" & watcher=$!
		$4
		wait $watcher && took=$(cat "$DIR/took") && wait $copier || break
		echo "$took" >>"$DIR/healed.$who"
	done
	is "the $who's daemon is killed $n times and all goes on" "$((round - 1)) $(cat "$DIR/copies")" "$n "
	diag "time: $who killed: requests of both finished $(sort -n "$DIR/healed.$who" | awk '{ t[NR] = $1 } END {
		print t[int((NR + 1) / 2)] " ms after the start of the next daemon in the median of " NR ", " t[NR] " ms at most" }')"
}

MNT=${MOUNTS[0]}:${MOUNTS[1]} FIO_MORE=(--numjobs=2 --group_reporting)
fs_load 1
deaths export "$KILLS" DSTD_A start_a
deaths client "$CLIENT_KILLS" DSTD_B start_b
fs_verified
tally
is "no request failed" $errors 0
diag "time: $replayed changes were written again"

for i in 0 1; do
	check "${TYPES[i]}: umount" umount "${MOUNTS[i]}"
	check "${TYPES[i]}: the file system is clean" fs_check "${TYPES[i]}" "${DEVS[i]}"
	mount -o ro "${DEVS[i]}" "${MOUNTS[i]}"
	bad=$(cd "${MOUNTS[i]}" && for tree in tree.*; do (cd "$tree" && sha256sum --quiet -c "$DIR/sums") 2>&1 || echo "$tree"; done)
	is "${TYPES[i]}: $(ls -d "${MOUNTS[i]}"/tree.* | wc -l) copies of a tree are right" "$bad" ""
	umount "${MOUNTS[i]}"
done
all_gone
