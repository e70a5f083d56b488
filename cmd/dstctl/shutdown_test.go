package main

import (
	"testing"

	"dst/abi"
)

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
