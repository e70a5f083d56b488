package main

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dst/dataplane/trans"
)

// touch is one request as one sector sees it.
type touch struct {
	change bool
	value  uint64
}

// register is a sector: it holds the value that was written last.
var register = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, in, out any) (bool, any) {
		if t := in.(touch); t.change {
			return true, t.value
		}
		return out.(uint64) == state.(uint64), state
	},
}

// touches is the history of one sector for porcupine; none if a change failed:
// that may be seen, and then not be there any more.
func (h *history) touches(sector int) (all []porcupine.Operation) {
	for _, a := range h.asks {
		if a.op == trans.Flush || sector < a.from || sector >= a.from+a.n {
			continue
		}
		v := a.values[sector-a.from]
		switch {
		case a.op.Changes() && a.lost:
			return nil
		case a.op.Changes():
			all = append(all, porcupine.Operation{ClientId: a.id, Input: touch{true, v}, Call: int64(a.start), Return: int64(a.ack)})
		case a.ack != 0:
			all = append(all, porcupine.Operation{ClientId: a.id, Input: touch{}, Output: v, Call: int64(a.start), Return: int64(a.ack)})
		}
	}
	return all
}

var judged = flag.Int("judged", 2000, "how many seeds porcupine looks at")

// gentle is the plan of a seed without what takes a request's answer away, so
// that porcupine can follow: it needs one device and answers to all.
func gentle(seed uint64) *plan {
	p := newPlan(seed)
	p.faults = slices.DeleteFunc(p.faults, func(f fault) bool {
		switch f.kind {
		case faultClientHost, faultHosts, faultEIO, faultSpace, faultSteal, faultForget, faultReplace, faultShrink:
			return true
		case faultClient, faultBoth:
			return !p.set.resent
		}
		return false
	})
	// What is in flight together when a client dies is sent again in any order.
	p.set.polite = p.set.polite || slices.ContainsFunc(p.faults, func(f fault) bool { return f.kind == faultClient || f.kind == faultBoth })
	p.set.punch, p.set.shared, p.set.loseAll, p.set.failAfter = true, false, false, 0
	return p
}

// TestPorcupine: another judge, which knows nothing of failover, finds every
// sector linearizable. It judges some of what O1 must leave open.
func TestPorcupine(t *testing.T) {
	hard := 0
	for seed := uint64(1); seed <= uint64(*judged); seed++ {
		w := newWorld(gentle(seed), 0, nil)
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(w.attached) > 1 {
			continue // the device failed, as it may after three failed flushes
		}
		for sector := range w.history.changes {
			switch porcupine.CheckOperationsTimeout(register, w.history.touches(sector), 2*time.Second) {
			case porcupine.Illegal:
				t.Errorf("seed %d: sector %d is not linearizable", seed, sector)
			case porcupine.Unknown:
				hard++
			}
		}
	}
	t.Logf("%d seeds, %d sectors too hard to judge", *judged, hard)
}
