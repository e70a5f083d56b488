#!/bin/bash
# The demonstration holds what it shows, and leaves nothing behind.
# TIMEOUT: 330
. "$(dirname "$0")/lib.sh"
requires mkfs.ext4 fsck.ext4
requires_root
plan 4

start=$SECONDS
check "the demonstration" "$TOP/tools/demo"
took=$((SECONDS - start))
echo "# time: demonstration $took s"
check "in less than five minutes" test $took -lt 300
is "no namespace is left" "$(ip netns list | grep -c dst-demo)" 0
is "no mount is left" "$(grep -c '^dstdemo ' /proc/self/mounts)" 0
