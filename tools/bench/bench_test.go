package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needs ends the test if it cannot run here; on CI everything can.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	var missing error
	if os.Getuid() != 0 {
		missing = errors.New("not root")
	}
	for _, tool := range tools {
		_, err := exec.LookPath(tool)
		missing = errors.Join(missing, err)
	}
	switch {
	case missing == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v: run tools/setup as root", missing)
	default:
		t.Skipf("%v: run tools/setup as root", missing)
	}
}

// build makes dstd and dstctl and returns their directory.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "dst/cmd/dstd", "dst/cmd/dstctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// nothingLeft holds that no namespace, mount or directory of ours is there any more.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	spaces, _ := filepath.Glob(fmt.Sprintf("/run/netns/dst-bench-%d-*", os.Getpid()))
	files, _ := filepath.Glob(filepath.Join(dir, "dst-bench-*"))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if len(spaces)+len(files) > 0 || strings.Contains(string(mounts), dir) {
		t.Errorf("left behind: %q, %q, or a mount", spaces, files)
	}
}

// TestBench measures for moments: both systems start, verify and answer, and nothing is left of them.
func TestBench(t *testing.T) {
	needs(t, "ip", "nbdkit")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, said bytes.Buffer
	code := run([]string{"-bin", build(t), "-rounds", "2", "-time", "20ms", "-warm", "0s", "-size", "16m", "-dir", dir, "-threads", "4",
		"-congestion", "reno", "-depth", "1,16", "-json"}, &out, &said)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, said.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != 6 || len(r.Versions) != 2 {
		t.Fatalf("%d cases of %v", len(r.Cases), r.Versions)
	}
	for _, c := range r.Cases {
		for _, y := range c.Systems {
			if m := y.Median; len(y.Rounds) != 2 || m.IOPS <= 0 || m.P99 < m.P50 || m.P50 <= 0 || m.Near.Total <= 0 || m.Far.Total <= 0 {
				t.Errorf("%s %d depth %d: %+v", c.Op, c.Block, c.Depth, y)
			}
		}
		if len(c.Ratios) != 1 || c.Ratios[0].IOPS <= 0 || c.Ratios[0].PerCPU <= 0 {
			t.Errorf("%s %d depth %d: ratio %+v", c.Op, c.Block, c.Depth, c.Ratios)
		}
	}
	nothingLeft(t, dir)
}

// TestBenchChannels measures one build over two channels, which are held against the first.
func TestBenchChannels(t *testing.T) {
	needs(t, "ip")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, said bytes.Buffer
	code := run([]string{"-bin", build(t), "-channels", "none,crc32c", "-rounds", "1", "-time", "20ms", "-warm", "0s", "-size", "16m",
		"-depth", "16", "-bs", "128k", "-json"}, &out, &said)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, said.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cases {
		if len(c.Ratios) != 1 || c.Ratios[0].Of != "crc32c" || c.Ratios[0].To != "none" || c.Ratios[0].IOPS <= 0 {
			t.Errorf("%s: %+v", c.Op, c.Ratios)
		}
	}
	nothingLeft(t, dir)
}

// canceller ends a run as soon as that says something.
type canceller context.CancelCauseFunc

var errEnough = errors.New("enough")

func (c canceller) Write(b []byte) (int, error) {
	c(errEnough)
	return len(b), nil
}

// TestBenchBrokenOff ends a run between its cases.
func TestBenchBrokenOff(t *testing.T) {
	needs(t, "ip", "nbdkit")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	o, err := parse(strings.Fields("-only nbdkit -rounds 1 -time 20ms -size 16m -depth 1"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var out bytes.Buffer
	if err := bench(ctx, o, &out, canceller(cancel)); !errors.Is(err, errEnough) || out.Len() > 0 {
		t.Errorf("a run that was broken off: %v, %s", err, out.String())
	}
	nothingLeft(t, dir)
}

// TestBenchFails holds that what cannot start is told, and nothing left.
func TestBenchFails(t *testing.T) {
	needs(t, "ip", "nbdkit")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, said bytes.Buffer
	for line, want := range map[string]string{
		"-size 16m -bin " + dir:                               "make build",
		"-size 16m -only nbdkit -congestion none-such":        "none-such",
		"-size 16m -only nbdkit -dir " + dir + "/no/such/dir": "no such file",
	} {
		said.Reset()
		if code := run(strings.Fields(line), &out, &said); code != exitFail || !strings.Contains(said.String(), want) {
			t.Errorf("%s: exit %d, %s", line, code, said.String())
		}
		nothingLeft(t, dir)
	}
}
