package main

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194304 101 0 0 0 250 75 9 9 20 0 1 0 272964 3133440 390\n"
	tests := []struct {
		line string
		ok   bool
	}{
		{"42 (dstd)" + rest, true},
		{"42 (a b) R 1 (c)" + rest, true},
		{"42 ()" + rest, true},
		{"", false},
		{"42 (dstd) S 1 2 3", false},
		{"42 (dstd) S 1 2 3 0 -1 4194304 101 0 0 0 many 75 9", false},
		{"42 (dstd) S 1 2 3 0 -1 4194304 101 0 0 0 250 -75 9", false},
	}
	for _, tt := range tests {
		u, err := parseStat([]byte(tt.line))
		want := usage{3250 * time.Millisecond, 2500 * time.Millisecond, 750 * time.Millisecond}
		if tt.ok != (err == nil) || tt.ok && u != want {
			t.Errorf("%q: %v, %v", tt.line, u, err)
		}
	}
}

func TestReadUsage(t *testing.T) {
	before, err := readUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for {
		now, err := readUsage(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		d := now.sub(before)
		if d.total < 0 || d.user < 0 || d.system < 0 {
			t.Fatalf("CPU time ran backwards: %+v", d)
		}
		if d.total > 50*time.Millisecond {
			if diff := (d.total - d.user - d.system).Abs(); diff > 4*tick {
				t.Errorf("the clock says %v, stat %v and %v", d.total, d.user, d.system)
			}
			break
		}
	}
	if _, err := readUsage(1 << 30); err == nil {
		t.Error("a process that cannot be has CPU time")
	}
}
