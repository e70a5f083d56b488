#!/bin/bash
# The virtual machine for tests is what they count on: modules load, namespaces are joined by a veth that delays, devices come and go.
# VM: qemu
# MODULES: nbd veth sch_netem sctp vsock vsock_loopback loop +dummy
# PROGRAMS: mkfs.ext4
# BESIDE
. "$(dirname "$0")/lib.sh"
requires_root
plan 13

is "this is the guest" "${IN_VM:-}" 1
for module in nbd veth sch_netem sctp vsock_loopback; do
	check "module $module is loaded" test -d "/sys/module/$module"
done
check "one that was carried only is loaded by its name" modprobe dummy
check "the daemon is there" test -x "$DSTD"

# round_trip ADDR: milliseconds until the other end refuses a connection
round_trip() {
	local start=${EPOCHREALTIME//[!0-9]/}
	in_ns "$A" bash -c "exec 3<>/dev/tcp/$1/9" 2>&1 | grep -q refused || { echo 0; return; }
	echo $(((${EPOCHREALTIME//[!0-9]/} - start) / 1000))
}
ns_pair A B
check "netem is there" tc -n "$A" qdisc add dev "$LINK" root netem delay 300ms
for to in "$B4" "$B6"; do
	took=$(round_trip "$to")
	check "it delays what goes to $to" test "$took" -ge 300
	diag "time: $took ms to $to"
done

tmpfs_dir DIR
truncate -s 64M "$DIR/disk"
check "a file system can be made" mkfs.ext4 -q "$DIR/disk"
mkdir "$DIR/mnt"
check "and mounted by a loop device" mount -o loop "$DIR/disk" "$DIR/mnt"
