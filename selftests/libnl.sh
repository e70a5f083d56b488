#!/bin/bash
# A C program on libnl-genl finds the family "dst" by name, adds an export, reads the dump and understands a refusal.
. "$(dirname "$0")/lib.sh"
requires gcc pkg-config ip
pkg-config --exists libnl-genl-3.0 || skip_all "no libnl-genl-3: run tools/setup"
requires_root
plan 10

tmpfs_dir DIR
ns_new A
start_dstd "$A" "$DIR/a" || bail "no daemon"
truncate -s 5M "$DIR/one.img" "$DIR/two.img"

check "the program compiles without a warning" gcc -Wall -Wextra -Werror -O2 -o "$DIR/dst_add" "$TOP/selftests/libnl/dst_add.c" \
	$(pkg-config --cflags --libs libnl-genl-3.0) || bail "nothing to run"
add() { in_ns "$A" "$DIR/dst_add" "$@"; }

out=$(add one "$DIR/one.img" 127.0.0.1 9876)
is "it adds an export" $? 0
check "it resolved the family by name" grep -Eq '^family [0-9]+$' <<<"$out"
check "the export is in the dump" grep -qx 'node one kind 2 size 5242880' <<<"$out"
is "and in dstctl's" "$(ctl "$A" -j show one | jq -r '.nodes[0] | .kind, .device, .listen[0]' | xargs)" "export $DIR/one.img tcp:127.0.0.1:9876"
out=$(add two "$DIR/two.img" 127.0.0.1 9876)
is "the dump has all" "$(grep -c ^node <<<"$out")" 2

out=$(add one "$DIR/one.img" 127.0.0.1 9876)
is "a refusal is a refusal" $? 2
check "with its errno and a sentence" grep -Eq '^error 17 .*"one" exists' <<<"$out"
out=$(add three "$DIR/none.img" 127.0.0.1 9876)
# 16 bytes of netlink, 4 of genetlink and 12 of the name precede the device.
check "that names the attribute to blame" grep -Eq '^error 2 offset 32 .*none.img' <<<"$out"
diag "$out"
is "nothing is left of what was refused" "$(ctl "$A" -j show | jq -r '.nodes[].name' | xargs)" "one two"
