#!/bin/bash
# A virtual machine's exit code does not lie: the program's own, or 125 with the kernel's last words; and it leaves nothing behind.
# BESIDE: one processor is enough
. "$(dirname "$0")/lib.sh"
requires_root
plan 15

tmpfs_dir DIR
vm() { "$BIN/vmtest" "$@" </dev/null >"$DIR/out" 2>"$DIR/err"; }
said() { cat "$DIR/out" "$DIR/err"; }

# ends WHAT CODE PATTERN SCRIPT [OPTION...]: a script ends with that code in user-mode Linux, and says something like the pattern
ends() {
	local what=$1 code=$2 pattern=$3 rc
	printf '#!/bin/bash\n%s\n' "$4" >"$DIR/script"
	shift 4
	vm -uml "$@" "$DIR/script"
	rc=$?
	if [ $rc = "$code" ] && said | grep -Eq -- "$pattern"; then ok "$what"; else not_ok "$what" "exit $rc, want $code and $pattern: $(said)"; fi
}

ends "success" 0 'one processor: 1$' 'echo "one processor: $(nproc)"'
ends "the program's code" 3 '^fine$' 'echo fine; exit 3'
ends "what it left running is no matter" 4 '^fine$' 'setsid sleep 1000 & echo fine; exit 4'
ends "a signal" 137 '^so far$' 'echo so far; kill -KILL $$'
ends "a panic" 125 'sysrq: Trigger a crash' 'echo c >/proc/sysrq-trigger; sleep 100'
ends "init is killed" 125 'without an exit code' 'kill -ABRT 1; sleep 100; kill -SEGV 1; sleep 100' -t 2s
ends "it hangs" 125 'it took more than 1s' 'sleep 100' -t 1s
ends "a module that refuses its parameters" 125 'module: nbd max_part=x: invalid argument' 'exit 0' -m nbd:max_part=x
ends "a module that does not exist" 125 'nosuch: not in the package' 'exit 0' -m nosuch
ends "nothing of 8 MiB is lost" 0 '^end$' 'yes xxxxxxx | head -c 8388608; echo end'
is "all of it came" "$(tr -cd x <"$DIR/out" | wc -c)" 7340032

# A package's tests, as go test sees them.
mkdir -p "$DIR/pkg/testdata"
cat >"$DIR/pkg/go.mod" <<<'module pkg'
echo data >"$DIR/pkg/testdata/file"
cat >"$DIR/pkg/pkg_test.go" <<'END'
package pkg

import ("os"; "testing")

func TestGood(t *testing.T) {
	if text, err := os.ReadFile("testdata/file"); err != nil || string(text) != "data\n" || os.Getenv("IN_VM") != "1" {
		t.Fatal(string(text), err)
	}
}

func TestBad(t *testing.T) { t.Fatal("it is bad") }
END
gotest() { (cd "$DIR/pkg" && CGO_ENABLED=0 "${GO:-go}" test -count=1 -exec "$BIN/vmtest -uml" "$@"); }
check "a package's tests run beside their data" gotest -run Good .
refused "one that fails fails go test" 1 '' gotest -run Bad .

# killed SIGNAL CODE: while a guest runs
killed() {
	printf '#!/bin/bash\necho up; sleep 1000\n' >"$DIR/script"
	vm -uml "$DIR/script" &
	local pid=$! rc
	wait_for 30 grep -q up "$DIR/out" || { not_ok "the guest comes up" "$(said)"; return; }
	pid=$(pgrep -P $pid -x vmtest || echo $pid)
	kill -"$1" "$pid"
	wait $!
	rc=$?
	if [ $rc = "$2" ] && wait_for 10 nothing_left "$pid"; then
		ok "at SIG$1 nothing is left"
	else
		not_ok "at SIG$1 nothing is left" "exit $rc, $(ps -eo pid,ppid,stat,args | grep "umid=vmtest-$pid" | grep -v grep)"
	fi
}
nothing_left() { ! ps -eo stat,args | grep -v '^Z' | grep -q "umid=vmtest-$1 [c]on"; }
killed TERM 125
killed KILL 137
