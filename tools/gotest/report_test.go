package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	ev := func(action, test, output string) string {
		return fmt.Sprintf(`{"Action":%q,"Package":"p","Test":%q,"Output":%q}`+"\n", action, test, output)
	}
	tests := []struct {
		name, stream            string
		noskip                  bool
		err                     error
		passed, failed, skipped int
		says                    string
	}{
		{name: "pass", stream: ev("run", "TestA", "") + ev("pass", "TestA", "") + ev("output", "", "coverage: 81.5% of statements\n") + ev("pass", "", ""),
			passed: 1, says: "coverage 81.5%"},
		{name: "a parent is not counted", passed: 2,
			stream: ev("run", "TestA", "") + ev("pass", "TestA/x", "") + ev("pass", "TestA/y", "") + ev("pass", "TestA", "") + ev("pass", "", "")},
		{name: "fail", failed: 1, err: errors.New("exit status 1"), says: "it is broken",
			stream: ev("output", "TestA", "it is broken\n") + ev("fail", "TestA", "") + ev("fail", "", "")},
		{name: "a subtest fails", passed: 1, failed: 1,
			stream: ev("fail", "TestA/x", "") + ev("pass", "TestA/y", "") + ev("fail", "TestA", "") + ev("fail", "", "")},
		{name: "panic in a test", failed: 1, says: "TestA did not end",
			stream: ev("run", "TestA", "") + ev("output", "TestA", "panic: x\n") + ev("fail", "", "")},
		{name: "the process dies", failed: 1, says: "signal: killed",
			stream: ev("output", "", "signal: killed\n") + ev("fail", "", "")},
		{name: "the stream ends early", failed: 1, stream: ev("run", "TestA", "")},
		{name: "it does not build", failed: 1, says: "undefined: x",
			stream: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"undefined: x\n"}` + "\n" +
				`{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}` + "\n"},
		{name: "go test itself fails", failed: 1, err: errors.New("exit status 2"), says: "exit status 2"},
		{name: "skip", passed: 1, skipped: 1,
			stream: ev("pass", "TestB", "") + ev("skip", "TestA", "") + ev("pass", "", "")},
		{name: "skip is failure", noskip: true, passed: 1, failed: 1, says: "no fio",
			stream: ev("pass", "TestB", "") + ev("output", "TestA", "no fio\n") + ev("skip", "TestA", "") + ev("pass", "", "")},
		{name: "no tests", stream: ev("skip", "", "")},
		{name: "other text", stream: "hello\n", says: "hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out, tt.noskip)
			if err := read(strings.NewReader(tt.stream), r); err != nil {
				t.Fatal(err)
			}
			r.end(tt.err)
			if r.passed != tt.passed || r.failed != tt.failed || r.skipped != tt.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d", r.passed, r.failed, r.skipped, tt.passed, tt.failed, tt.skipped)
			}
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("said %q, want %q in it", out.String(), tt.says)
			}
		})
	}
}
