#!/bin/bash
# A file system without room fails the writes that need some and nothing else: not those of seven other clients of the same export. When
# there is room again, all goes on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.inc"
requires ip jq fio
requires_root
plan 24

two_daemons
tmpfs_dir FULL 48m
truncate -s 64M "$FULL/vol0.img"
serve "$A" vol0 "$FULL/vol0.img" "tcp:$A4:9876" shared
for i in {0..7}; do attach "$B" "r$i" "$DIR/r$i.sock" "tcp:$A4:9876" export vol0; done
field_sum() { ctl "$B" -j stats | jq "[.stats[] | select(.name | test(\"^r[1-7]\")) | .$1] | add"; }
write() { qemu-io -t none -f raw -c "write -P $2 $1" "$URI" >/dev/null 2>&1; }
URI="nbd+unix:///r0?socket=$DIR/r0.sock"

# Seven that write what has its place already, the eighth runs out of room.
check "8 MiB have their place" write '0 8M' 1
dd if=/dev/zero of="$FULL/filler" bs=1M status=none 2>/dev/null
for i in {1..7}; do
	fio --name="r$i" --ioengine=nbd --uri="nbd+unix:///r$i?socket=$DIR/r$i.sock" --rw=randwrite --bs=4k --iodepth=4 --offset=$((i - 1))M --size=1M \
		--rate_iops=200 --time_based --runtime=12 --verify=crc32c --verify_state_save=0 >"$DIR/fio.$i" 2>&1 &
	FIOS[i]=$!
	cleanup "stop_pid $!"
done
wait_for 10 eval '[ "$(field_sum writes)" -gt 100 ]'
before=$(field_sum breaks)
check "a write finds no room, and its client is told so" grep -q 'No space left' <(qemu-io -t none -f raw -c 'write -P 2 32M 64k' "$URI" 2>&1)
sleep 1
once=$(($(field_sum breaks) - before))
for i in {1..50}; do write "$((32 + i % 8))M 64k" 2; sleep 0.05; done
many=$(($(field_sum breaks) - before - once))
diag "time: the seven others: $once breaks by one write without room, $many by 50 more, $(field_sum writes) writes"
is "one write without room disturbs nobody" "$once" 0
is "and neither do 50" "$many" 0
is "its own link stays" "$(field "$B" r0 .counters.breaks)" 0
for i in {1..7}; do
	wait "${FIOS[i]}"
	is "client $i met no error" $? 0
	is "and its link was never broken" "$(field "$B" "r$i" .counters.breaks)" 0
done
check "what had its place is read" qemu-io -t none -f raw -c 'read -P 1 7M 1M' "$URI"
rm "$FULL/filler"
check "with room, writes go on" write '32M 64k' 3
check "and are there" qemu-io -t none -f raw -c 'read -P 3 32M 64k' "$URI"

# One client with a log: room is lost and comes back while it is under load, and replays what it must.
for i in {0..7}; do ctl "$B" del "r$i" force; done
ctl "$A" del vol0
truncate -s 0 "$FULL/vol0.img"
truncate -s 16M "$FULL/vol0.img"
serve "$A" vol0 "$FULL/vol0.img" "tcp:$A4:9876" depth 256
attach "$B" vol0 "$DIR/vol0.sock" "tcp:$A4:9876" depth 256
turns() {
	local i
	for i in {1..6}; do
		sleep 1
		dd if=/dev/zero of="$FULL/filler" bs=1M status=none 2>/dev/null
		sleep 1
		rm "$FULL/filler"
	done
}
turns & TURNS=$!
cleanup "stop_pid $TURNS"
suffer "room comes and goes" -for 14s -errors 1000000
check "the remote has not failed" state_is "$B" vol0 established
diag "time: $(field "$B" vol0 .counters.errors) errors, $(field "$B" vol0 .counters.breaks) breaks"
