#!/bin/bash
# fio on ext4 on a kernel device over TCP on IPv4, 20 ms away and 1 % lost sees neither an error nor a wrong byte while the cable is pulled three times.
# VM: qemu
# MODULES: nbd veth sch_netem
# PROGRAMS: fio mkfs.ext4 fsck.ext4
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 12

two_hosts
slow_link 20ms 1%
FIO_SIZE=8M # it takes its time
CUTS=("link down:1:link_cut:link_heal" "black hole:4:blackhole on:blackhole off" "link down:10:link_cut:link_heal")
fs_through_cuts ext4 "tcp:$A4:9876" "tcp:$A4:9876"
