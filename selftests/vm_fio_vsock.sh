#!/bin/bash
# fio on ext4 on a kernel device over vsock sees neither an error nor a wrong byte while the export's host does not answer, or serves nobody.
# VM: qemu
# MODULES: nbd veth vsock vsock_loopback
# PROGRAMS: fio mkfs.ext4 fsck.ext4
# TIMEOUT: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/device.inc"
requires_vm
plan 12

two_hosts
CUTS=("silence:1:hold_a:let_a" "denied:4:deny_b:allow_b" "silence:10:hold_a:let_a")
fs_through_cuts ext4 vsock:any:9876 vsock:1:9876
