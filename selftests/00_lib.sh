#!/bin/bash
# The tools of the tests themselves: a failure is seen, what was made is removed, links can be cut.
. "$(dirname "$0")/lib.sh"
requires ip nsenter timeout ps
requires_root
plan 30

work=$(mktemp -d)
cleanup "rm -rf '$work'"

# script NAME: makes a little test of stdin
script() { { echo ". '$TOP/selftests/lib.sh'"; cat; } >"$work/$1.sh"; }

# verdict NAME: the last line of the runner about that little test, and its exit code
verdict() {
	local out rc
	out=$(COUNTS=/dev/null CI="${WITH_CI:-}" "$TOP/selftests/run" -d "$work" "$1")
	rc=$?
	echo "$(tail -n 1 <<<"$out"), exit $rc"
}

script good <<<'plan 2; ok one; check two true'
script bad <<<'plan 3; ok one; check two false; is three 1 2'
script short <<<'plan 2; ok one'
script dies <<<'plan 1; ok one; exit 3'
script bails <<<'plan 2; ok one; bail "no more"'
script silent <<<'kill -KILL $$'
script skips <<<'plan 2; ok one; skip two "no such thing"'
script lacks <<<'requires no-such-command; plan 1; ok one'
script refuses <<<'plan 3; refused a 3 "^no$" sh -c "echo no >&2; exit 3"; refused b 3 x sh -c "exit 3"; refused c 3 "" true'
{ echo '# TIMEOUT: 1'; echo ". '$TOP/selftests/lib.sh'; plan 1; sleep 30; ok one"; } >"$work/hangs.sh"

is "what succeeds is counted"        "$(verdict good)"    "2 passed, 0 failed, 0 skipped, exit 0"
is "what fails is counted"           "$(verdict bad)"     "1 passed, 2 failed, 0 skipped, exit 1"
is "stopping early is a failure"     "$(verdict short)"   "1 passed, 1 failed, 0 skipped, exit 1"
is "a bad exit is a failure"         "$(verdict dies)"    "1 passed, 1 failed, 0 skipped, exit 1"
is "bailing out is a failure"        "$(verdict bails)"   "1 passed, 1 failed, 0 skipped, exit 1"
is "saying nothing is a failure"     "$(verdict silent)"  "0 passed, 1 failed, 0 skipped, exit 1"
is "hanging is a failure"            "$(verdict hangs)"   "0 passed, 1 failed, 0 skipped, exit 1"
is "a refusal is checked"            "$(verdict refuses)" "1 passed, 2 failed, 0 skipped, exit 1"
is "a skip is counted"               "$(verdict skips)"   "1 passed, 0 failed, 1 skipped, exit 0"
is "a missing tool skips"            "$(verdict lacks)"   "0 passed, 0 failed, 1 skipped, exit 0"
WITH_CI=true
is "a skip fails in CI"              "$(verdict skips)"   "1 passed, 1 failed, 0 skipped, exit 1"
is "a missing tool fails in CI"      "$(verdict lacks)"   "0 passed, 1 failed, 0 skipped, exit 1"

# Everything a test made is gone when it ends, in reverse order, also when it is killed.
script leaves <<END
tmpfs_dir DIR
ns_pair A B
sleep 1000 & cleanup "stop_pid \$!"
echo "\$DIR \$A \$B \$!" >"$work/made"
cleanup "echo one >>'$work/order'"
cleanup "echo two >>'$work/order'"
ok made
kill -TERM \$\$
wait
END
timeout 30 bash "$work/leaves.sh" >/dev/null 2>&1
read -r dir a b pid <"$work/made"
is "cleanups run backwards" "$(xargs <"$work/order")" "two one"
check "the tmpfs is gone" test ! -e "$dir"
check "the namespaces are gone" test ! -e "/run/netns/$a" -a ! -e "/run/netns/$b"
check "the process is gone" test ! -e "/proc/$pid"

# Nobody listens at the port: a host that is reached refuses at once, and one that is not says nothing.
reached() { in_ns "$NS_B" timeout 1 bash -c "</dev/tcp/$1/9" 2>&1 | grep -q refused; }
both() { reached $A4 && reached $A6; }
neither() { ! reached $A4 && ! reached $A6; }

ns_pair A B
tmpfs_dir DIR 1m
is "a tmpfs of its own" "$(stat -f -c %T "$DIR")" tmpfs
check "the pair is joined" both
link_cut
check "the link is cut" neither
link_heal
check "and healed" wait_for 10 both
blackhole on
check "packets vanish in a black hole, the carrier stays" neither
blackhole off
check "and pass again" wait_for 10 both
blackhole_from "$B" on
check "one way" neither
blackhole_from "$B" off
check "and again both" wait_for 10 both

start_cutproxy "$B" tcp:127.0.0.1:0 "tcp:$A4:9" || bail "no cutproxy"
check "the proxy takes commands" proxy cut after 48 bytes dir up mode rst
refused "and says what it does not understand" 1 'want one of' proxy cut it

# A daemon that leaves something behind is a failure, although each result is good.
for leak in 'true' 'echo 1 >"\$DIR/a/descriptors"' 'echo "panic: no" >>"\$DIR/a/log"' 'echo "WARNING: DATA RACE" >>"\$DIR/a/log"'; do
	script leaks <<END
tmpfs_dir DIR
ns_new A
start_dstd "\$A" "\$DIR/a" || bail "no daemon"
truncate -s 1M "\$DIR/vol0.img"
serve "\$A" vol0 "\$DIR/vol0.img" tcp:127.0.0.1:9876
ok one
$leak
END
	case $leak in true) want=0 ;; *) want=1 ;; esac
	is "a leak is a failure: $leak" "$(verdict leaks)" "1 passed, $want failed, 0 skipped, exit $want"
done
