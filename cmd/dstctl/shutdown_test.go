package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestShutdownGoesOn: a remote that cannot be set keeps no other one waiting,
// one that has failed is not asked.
func TestShutdownGoesOn(t *testing.T) {
	d := exampleNodes()
	for _, name := range []string{"aaa", "zzz"} {
		d.nodes[name] = &abi.Node{Name: name, Kind: abi.KindRemote, Status: &abi.Status{State: abi.StatePause}}
		d.order = append(d.order, name)
	}
	d.fail["set aaa"] = fmt.Errorf("no room: %w", unix.ENOSPC)
	d.nodes["disk0"].Status.State = abi.StateFailed
	if got := dstctl(t, d, "sys shutdown"); got.code != exitRefused || !strings.Contains(got.err, "no room") {
		t.Errorf("%+v", got)
	}
	if f := d.nodes["zzz"].Knobs.FailAfter; f == nil || *f != 10_000 {
		t.Error("zzz waits for ever")
	}
	if f := d.nodes["disk0"].Knobs.FailAfter; f != nil && *f == 10_000 {
		t.Error("what has failed was set")
	}
}

// TestShutdown: remotes that would wait for longer get the limit, others and
// exports are left alone.
func TestShutdown(t *testing.T) {
	for _, tt := range []struct {
		command   string
		have, set uint32
	}{
		{"sys shutdown", 0, 10_000},
		{"sys shutdown", 90_000, 10_000},
		{"sys shutdown", 10_000, 0},
		{"sys shutdown", 500, 0},
		{"sys shutdown after 1s", 10_000, 1000},
	} {
		d := exampleNodes()
		d.nodes["disk0"].Knobs.FailAfter = &tt.have
		got := dstctl(t, d, tt.command)
		n := d.nodes["disk0"]
		changed := n.Kind == 0 // the fake keeps the request
		if got != (result{}) || changed != (tt.set != 0) || changed && *n.Knobs.FailAfter != tt.set || d.nodes["vol0"].Kind != abi.KindExport {
			t.Errorf("%s with %d: %+v, %+v", tt.command, tt.have, got, n.Knobs)
		}
	}
}
