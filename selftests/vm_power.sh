#!/bin/bash
# The host of an export loses its power under a mounted file system, and its disk a random part of what was not made durable: what was
# durable is there, and once the host is back, with nothing but its disk and another boot, all that was acknowledged is there again.
# VM: uml
# MODULES: nbd veth fuse
# PROGRAMS: mkfs.ext4 fsck.ext4
# MEM: 1536
# TIMEOUT: 1500
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
. "$(dirname "$0")/faults.inc"
requires_vm
plan 14

[ "${CI:-}" != true ] || LOSSES=${LOSSES:-5} SPREAD=${SPREAD:-1}
LOSSES=${LOSSES:-30} SPREAD=${SPREAD:-4}

# boot_a: the export's daemon on a host that has just booted, which has nothing of the other one mounted
boot_a() {
	cat /proc/sys/kernel/random/uuid >"$DIR/boot_id"
	RUN_DSTD=(unshare --mount --propagation private sh -c '
		! mountpoint -q "$0" || umount "$0"
		mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"' "$DIR/mnt" "$DIR/boot_id")
	start_a
	unset RUN_DSTD
}

# serve_a: it is told again what to export, as a unit of the system does
serve_a() { serve "$A" vol0 "$DIR/disk/disk" "tcp:$A4:9876"; }

tmpfs_dir DIR 700m
ns_pair A B
start_disk "$DIR/disk" $((64 << 20))
boot_a
serve_a
start_b
device vol0 "tcp:$A4:9876"
check "mkfs.ext4" mkfs.ext4 -q "$DEV"
mounted "$DEV" -o noatime
mkdir "$DIR/tree"
for i in {1..8}; do head -c $((RANDOM * 4 + 1)) /dev/urandom >"$DIR/tree/$i"; done
(cd "$DIR/tree" && sha256sum -- * >"$DIR/sums")
start_files "$MNT" "$DIR/disk/disk"

replayed() { field "$B" vol0 .counters.replayed; }
copy() { cp -r "$DIR/tree" "$MNT/tree.$1" && sync -f "$MNT/tree.$1"; }

# lose_power: the export's host is gone; a copy of the tree is written meanwhile. Sets SAID to how many acknowledged sectors its disk
# lost, and of how many that it could.
lose_power() {
	# Every other time nobody is told: the cable is dead before the connection is closed.
	[ $((round % 2)) = 0 ] || link_cut "$A"
	stop_pid "$DSTD_A" KILL
	disk lose $((40 + RANDOM % 61)) && taken=$((taken + ${SAID#ok })) && files lost || return
	copy $round >"$DIR/copy" 2>&1 & copier=$!
}

# come_back: it boots. Its run directory is gone, or of another boot, which is as good.
come_back() {
	[ $((round % 4)) -lt 2 ] || rm -rf "$DIR/a/run"
	boot_a
	nodes=$(ctl "$A" -j show | jq '.nodes | length')
	[ "$nodes" = 0 ] || { diag "$nodes nodes are remembered from another boot"; return 1; }
	before=$(finished)
	began=${EPOCHREALTIME//[!0-9]/}
	serve_a
	[ $((round % 2)) = 0 ] || link_heal "$A"
	wait_for 60 finished_more_than "$before" || return
	echo $(((${EPOCHREALTIME//[!0-9]/} - began) / 1000)) >>"$DIR/healed"
	wait $copier || { diag "$(cat "$DIR/copy")"; return 1; }
}

lost=0 taken=0 lossy=0 again=0 total=0
for ((round = 1; round <= LOSSES; round++)); do
	sleep $((1 + RANDOM % SPREAD)).$((RANDOM % 10))
	lose_power || break
	n=${SAID#ok } n=${n% of *}
	lost=$((lost + n)) lossy=$((lossy + (n > 0)))
	come_back && files check || break
	n=$(replayed)
	again=$((again + (n > total))) total=$n
done
is "the host loses its power $LOSSES times, and no file what was acknowledged" $((round - 1)) "$LOSSES"
diag "time: $(sort -n "$DIR/healed" | awk '{ t[NR] = $1 } END {
	print "requests finished " t[int((NR + 1) / 2)] " ms after the export is there again in the median of " NR ", " t[NR] " ms at most" }')"
diag "time: the disk lost $taken sectors, of the files $lost that were acknowledged, in $lossy of $LOSSES losses; $total changes were written again, in $again; in the files ${SAID#ok }"
check "in most losses the disk lost what was acknowledged" test $((3 * lossy)) -ge $((2 * LOSSES))
check "and in most it was written again" test $((3 * again)) -ge $((2 * LOSSES))
is "the remote did not fail" "$(field "$B" vol0 .state)" established
is "no request failed" "$(field "$B" vol0 .counters.errors)" 0
check "the writers end" stop_pid $FILES_PID
is "and complain of nothing" "$(cat "$DIR/files.out")" ready

check "umount" umount "$MNT"
check "the file system is clean" fs_check ext4 "$DEV"
mount -o ro "$DEV" "$MNT"
bad=$(cd "$MNT" && for tree in tree.*; do (cd "$tree" && sha256sum --quiet -c "$DIR/sums") 2>&1 || echo "$tree"; done)
is "$(ls -d "$MNT"/tree.* | wc -l) copies of a tree are right" "$bad" ""
umount "$MNT"
all_gone
