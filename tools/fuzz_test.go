package tools_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeGo plays the go command to tools/fuzz: its first run of a target prints
// first and fails; the one by count then ends with the code of second.
const fakeGo = `#!/bin/sh
case "$*" in
*list*) echo "$TARGETS" ;;
*" 77x "*) echo "fuzz: elapsed: 1s, execs: 77 (77/sec)"; exit "$SECOND" ;;
*) printf 'fuzz: elapsed: 3s, execs: 77 (0/sec)\n--- FAIL: FuzzOne (3.20s)\n%b\nFAIL\n' "$FIRST"; exit 1 ;;
esac
`

// Only a failure that is the end of the time and nothing else gets another run.
func TestFuzzKnowsFindingsFromTheEndOfTheTime(t *testing.T) {
	dir := t.TempDir()
	golang := filepath.Join(dir, "go")
	if err := os.WriteFile(golang, []byte(fakeGo), 0o755); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte("func FuzzOne(f *testing.F) {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, first, second string
		passes              bool
	}{
		{"the end of the time", `    context deadline exceeded`, "0", true},
		{"a fault by count too", `    context deadline exceeded`, "1", false},
		{"a finding", `    Failing input written to testdata/fuzz/FuzzOne/1`, "0", false},
		{"a panic", `    context deadline exceeded\npanic: index out of range`, "0", false},
		{"an error of the target", `    x_test.go:3: context deadline exceeded`, "0", false},
		{"another error", `    fuzzing process hung or terminated unexpectedly`, "0", false},
	} {
		cmd := exec.Command("./fuzz", ".")
		cmd.Env = append(os.Environ(), "GO="+golang, "TARGETS="+dir, "FIRST="+c.first, "SECOND="+c.second, "COUNTS=", "FUZZTIME=3s")
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.passes || strings.HasPrefix(string(out), "ok") != c.passes {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}
