#!/bin/bash
# fio on xfs on a kernel device over TCP on IPv6 sees neither an error nor a wrong byte while the cable is pulled three times.
# VM: qemu
# MODULES: nbd veth xfs
# PROGRAMS: fio mkfs.xfs xfs_repair
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 12

two_hosts
CUTS=("link down:1:link_cut:link_heal" "black hole:4:blackhole on:blackhole off" "link down:10:link_cut:link_heal")
fs_through_cuts xfs "tcp:[$A6]:9876" "tcp:[$A6]:9876"
