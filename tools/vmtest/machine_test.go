package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's binary be the keeper of the machines that it starts.
func TestMain(m *testing.M) {
	if os.Args[0] == keeperName {
		main()
	}
	// Under the race detector a process waits a second before it ends: there will be many.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// fakeJob is a job whose machine is a script that has the descriptors of a machine.
func fakeJob(t *testing.T, script string) (j *job, out *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "machine")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out = &bytes.Buffer{}
	return &job{
		wants:  wants{VM: "uml", Mem: 1, Timeout: 200 * time.Millisecond},
		kernel: kernel{image: path}, out: out, bootTime: 30 * time.Second, offTime: 30 * time.Second,
	}, out
}

func TestMachine(t *testing.T) {
	tests := []struct {
		name, script string
		impatient    bool // with a machine that hangs
		out          string
		code         int
		says         string
	}{
		{name: "it succeeds", script: "echo hello >&3; echo exit 0 >&4", out: "hello\n"},
		{name: "it fails", script: "echo hello >&3; echo exit 3 >&4", out: "hello\n", code: 3},
		{name: "it is killed", script: "echo signal 9 >&4", code: 137},
		{name: "all output comes, also what was written late", script: "echo exit 0 >&4; seq 20000 | tail -n 1 >&3", out: "20000\n"},
		{name: "no exit code", script: "echo fine >&3", out: "fine\n", code: exitBroken, says: "without an exit code"},
		{name: "no exit code, and a machine that fails", script: "exit 7", code: exitBroken, says: "exit status"},
		{name: "half an exit code", script: "printf 'exit 0' >&4", code: exitBroken, says: "without an exit code"},
		{name: "nonsense", script: "echo fine >&4", code: exitBroken, says: "unreadable"},
		{name: "a module fails", script: "echo broken module: nbd >&4", code: exitBroken, says: "in the guest: module: nbd"},
		{name: "it hangs", script: "echo up >&3; sleep 1000", impatient: true, out: "up\n", code: exitBroken, says: "nothing heard"},
		{name: "it does not power off", script: "echo exit 4 >&4; sleep 1000", impatient: true, code: 4},
		{name: "its children do not end", script: "sleep 1000 & echo exit 0 >&4", impatient: os.Geteuid() != 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j, out := fakeJob(t, tt.script)
			if tt.impatient {
				j.bootTime, j.offTime = 0, 100*time.Millisecond
			}
			code, err := j.start(nothing(t), "")
			if code != tt.code || out.String() != tt.out {
				t.Errorf("exit code %d and output %q, want %d and %q (%v)", code, out, tt.code, tt.out, err)
			}
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

func TestKmsg(t *testing.T) {
	j, _ := fakeJob(t, "echo the kernel >&5; echo the machine >&2; echo exit 0 >&4")
	file := filepath.Join(t.TempDir(), "kmsg")
	code, err := j.start(nothing(t), file)
	text, rerr := os.ReadFile(file)
	if code != 0 || err != nil || rerr != nil || string(text) != "the kernel\nthe machine\n" {
		t.Errorf("%d, %v; %q, %v", code, err, text, rerr)
	}
}

// TestSignal sends this process what ends a machine.
func TestSignal(t *testing.T) {
	j, _ := fakeJob(t, "echo up >&3; sleep 1000")
	j.out = writerFunc(func(p []byte) (int, error) { return len(p), syscall.Kill(os.Getpid(), syscall.SIGTERM) })
	code, err := j.start(nothing(t), "")
	if code != exitBroken || err == nil || !strings.Contains(err.Error(), "ended by terminated") {
		t.Errorf("%d, %v", code, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// nothing is an empty image.
func nothing(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
