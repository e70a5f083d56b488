package main

import (
	"strings"
	"testing"

	"dst/abi"
)

// TestWhy: every place where a request can wait has a sentence of its own.
func TestWhy(t *testing.T) {
	said := map[string]abi.Wait{}
	for w := abi.WaitNothing; w <= abi.WaitDisk; w++ {
		d := exampleNodes()
		st := d.nodes["disk0"].Status
		st.Wait, st.InFlight, st.Oldest, st.Reason = w, 3, 41_000, "no sign of life for 3s"
		got := dstctl(t, d, "node why disk0")
		if got.code != 0 || !strings.HasPrefix(got.out, "disk0 has been in state pause for 420ms. Reason: no sign of life for 3s. ") || strings.Contains(got.out, "does not know") {
			t.Errorf("%v: %+v", w, got)
		}
		if before, ok := said[got.out]; ok {
			t.Errorf("%v and %v are told alike: %s", before, w, got.out)
		}
		said[got.out] = w
		if w != abi.WaitNothing && !strings.Contains(got.out, "3 requests are unanswered, the oldest for 41s: it waits for ") {
			t.Errorf("%v: %s", w, got.out)
		}
	}
}

func TestWhyOfOthers(t *testing.T) {
	d := exampleNodes()
	golden(t, "why-json.golden", dstctl(t, d, "-j -p node why disk0").out)
	for command, part := range map[string]string{
		"node why vol0": "has lost its place and its last requests are with the disk",
		"node why none": "",
	} {
		got := dstctl(t, d, command)
		if !strings.Contains(got.out, part) || (got.code == 0) != (part != "") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	d.nodes["vol0"].Status.Sessions = []abi.Session{{}}
	if got := dstctl(t, d, "node why vol0"); !strings.Contains(got.out, "waits to be let in") {
		t.Errorf("%+v", got)
	}
	d.nodes["vol0"].Status.Sessions = nil
	if got := dstctl(t, d, "node why vol0"); !strings.Contains(got.out, "3 requests are unanswered, the oldest for 12ms: it is with the disk, /srv/vol0.img.") {
		t.Errorf("%+v", got)
	}
	d.nodes["disk0"].Status.State, d.nodes["disk0"].Status.Reason = abi.StateFailed, "could not be restored (start tries again): no disk"
	if got := dstctl(t, d, "node why disk0"); !strings.Contains(got.out, "dstctl start") || strings.Contains(got.out, "EIO") {
		t.Errorf("%+v", got)
	}
	d.nodes["disk0"].Status.Reason = "another store"
	if got := dstctl(t, d, "node why disk0"); !strings.Contains(got.out, "EIO") {
		t.Errorf("%+v", got)
	}
}
