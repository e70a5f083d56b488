package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	good := map[string]int{"1": 1, "4096": 4096, "4k": 4096, "128K": 128 << 10, "256m": 256 << 20, "1g": 1 << 30}
	for s, want := range good {
		if n, err := parseBytes(s); err != nil || n != want {
			t.Errorf("%q: %d, %v, want %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "k", "0", "-1", "4kk", "4 k", "4k4", "0x10", "1.5k", "99999999999999g", "99999999999999999999"} {
		if n, err := parseBytes(s); err == nil {
			t.Errorf("%q is taken for %d", s, n)
		}
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		line  string
		cases int // -1: an error
	}{
		{"", 8},
		{"-op read", 4},
		{"-bs 4k", 6},
		{"-bs 4096,128k -depth 16", 4},
		{"-depth 1 -op write", 1},
		{"-bs 128k -depth 1", -1},
		{"-bs 8k", -1},
		{"-bs x", -1},
		{"-only nbdkit", 8},
		{"-only other -against old", 8},
		{"-only other", -1},
		{"-only qemu", -1},
		{"-op trim", -1},
		{"-channels all", 8},
		{"-channels none,gcm -bs 128k", 2},
		{"-channels gcm,tls", -1},
		{"-channels none,gcm -against old", -1},
		{"-rounds 0", -1},
		{"-time 0s", -1},
		{"-size 1m", -1},
		{"-size 16777217", -1},
		{"-size 1k,2k", -1},
		{"-nonsense", -1},
		{"word", -1},
	}
	for _, tt := range tests {
		o, err := parse(strings.Fields(tt.line), io.Discard)
		got := -1
		if err == nil {
			got = len(o.cases())
		}
		if got != tt.cases {
			t.Errorf("%q: %d cases, want %d: %v", tt.line, got, tt.cases, err)
		}
	}
	var help bytes.Buffer
	if code := run([]string{"-h"}, io.Discard, &help); code != exitDone || !strings.Contains(help.String(), "-depth") {
		t.Errorf("-h: exit %d, %q", code, help.String())
	}
	if code := run([]string{"-only", "x"}, io.Discard, &help); code != exitUsage {
		t.Errorf("a mistake: exit %d", code)
	}
}

func TestPattern(t *testing.T) {
	p, name := newPattern(), filepath.Join(t.TempDir(), "img")
	const size = 4 * blockMax
	if err := p.fill(name, size); err != nil {
		t.Fatal(err)
	}
	check := func(what string, verified int64, ok bool) {
		t.Helper()
		if err := p.check(name, size, verified); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("filled", 0, true)
	check("nothing was written", blockMin, false)
	write := func(b []byte, offset int64) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, offset); err != nil {
			t.Fatal(err)
		}
	}
	write(p.at(0, genVerified, blockMax), 0)
	write(p.at(blockMax, genTimed, blockMin), blockMax)
	check("written", blockMax+blockMin, true)
	write(p.at(blockMin, genVerified, blockMin), 0)
	check("written to the wrong place", 0, false)
	write(p.at(0, genVerified, blockMin), 0)
	write([]byte{0}, size-1)
	check("one byte is another", 0, false)
	if err := p.check(name, size+blockMax, 0); err == nil {
		t.Error("a short file passes")
	}
}

func TestReport(t *testing.T) {
	o := &options{rounds: 3, time: time.Second, size: 1 << 30, congestion: "reno"}
	r := newReport(o, []*system{{name: "dst", version: "dstd 1"}, {name: "nbdkit", version: "nbdkit 2"}})
	w := newRow(shape{"read", 4096, 16, true}, 2)
	for _, n := range []float64{1, 2, 9} {
		w.Systems[0].Rounds = append(w.Systems[0].Rounds, sample{IOPS: 300 * n, Near: cpu{Total: 4}, Far: cpu{Total: 1}})
		w.Systems[1].Rounds = append(w.Systems[1].Rounds, sample{IOPS: 100 * n, Near: cpu{Total: 8}, Far: cpu{Total: 2}})
	}
	r.add(w)
	if got := r.Cases[0]; got.Ratios[0].IOPS != 3 || got.Ratios[0].PerCPU != 2 || got.Systems[0].Median.IOPS != 600 || got.Systems[0].Cost != 5 ||
		got.Systems[0].Spread != 4 {
		t.Errorf("%+v, ratio %+v", got, got.Ratios)
	}
	var text, encoded bytes.Buffer
	if err := r.print(&text, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dstd 1\nnbdkit 2\n", "reno", "tmpfs", "4 KiB random read, depth 16", "3.00×", "2.00×"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
	if err := r.print(&encoded, true); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Schema int
		Cases  []struct {
			Depth   int
			Ratios  []map[string]any
			Systems []struct {
				Name   string
				Rounds []any
			}
		}
	}
	if err := json.Unmarshal(encoded.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Schema != 2 || back.Cases[0].Depth != 16 || back.Cases[0].Ratios[0]["iops"] != 3.0 || len(back.Cases[0].Systems[1].Rounds) != 3 {
		t.Errorf("%s", encoded.String())
	}
	alone := newReport(o, []*system{{name: "dst"}})
	w = newRow(w.shape, 1)
	w.Systems[0].Rounds = []sample{{IOPS: 1}}
	alone.add(w)
	if alone.Cases[0].Ratios != nil {
		t.Error("one system has a ratio")
	}
}
