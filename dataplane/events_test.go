package dataplane

import (
	"slices"
	"testing"
	"time"

	"dst/abi"
)

// TestStartIsToldFirst: who watches hears that a remote is started before
// anything of its link, however fast that is.
func TestStartIsToldFirst(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	p.cfg.Notify = func(e abi.Event) {
		if e.Kind == abi.EventKindStart && e.Name == "disk0" {
			if s := p.places["disk0"].node.(*remoteNode).link.Status(); s.State != abi.StateConfigured || len(s.Transitions) != 0 {
				t.Errorf("its start is told when it is %v already", s.State)
			}
		}
		w.notify(e)
	}
	w.pair(p)
	var told []abi.State
	var kinds []abi.EventKind
	for end := time.Now().Add(20 * time.Second); len(told) < 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		told, kinds = nil, nil
		w.mu.Lock()
		for _, e := range w.events {
			if e.Name == "disk0" {
				told, kinds = append(told, e.State), append(kinds, e.Kind)
			}
		}
		w.mu.Unlock()
	}
	if want := []abi.State{abi.StateConfigured, abi.StateConnecting, abi.StateEstablished}; !slices.Equal(told[:min(3, len(told))], want) ||
		!slices.Equal(kinds[:2], []abi.EventKind{abi.EventKindAdd, abi.EventKindStart}) {
		t.Errorf("told %v %v, want %v", kinds, told, want)
	}
}
