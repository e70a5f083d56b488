package main

import (
	"fmt"
	"slices"
)

// shrink makes a plan that fails smaller as long as it fails, in whatever way:
// fewer faults, fewer steps, less trouble in the settings.
func shrink(p *plan, h harm, bad error) (*plan, error) {
	try := func(q *plan) bool {
		err := newWorld(q, h, nil).run()
		if err == nil {
			return false
		}
		p, bad = q, err
		return true
	}
	for again, rounds := true, 0; again && rounds < 20; rounds++ {
		again = false
		for i := len(p.faults) - 1; i >= 0; i-- {
			q := *p
			q.faults = slices.Delete(slices.Clone(p.faults), i, i+1)
			again = try(&q) || again
		}
		for size := len(p.steps) / 2; size > 0; size /= 2 {
			for i := len(p.steps) - size; i >= 0; i -= size {
				if i+size > len(p.steps) {
					continue
				}
				q := *p
				q.steps = slices.Delete(slices.Clone(p.steps), i, i+size)
				q.faults = slices.Clone(p.faults)
				for j := range q.faults {
					if q.faults[j].step > i {
						q.faults[j].step = max(i, q.faults[j].step-size)
					}
				}
				again = try(&q) || again
			}
		}
		for _, simpler := range []func(*settings){
			func(s *settings) { s.cutEvery = 0 }, func(s *settings) { s.request = 0 }, func(s *settings) { s.loseAll = false },
			func(s *settings) { s.shared = false }, func(s *settings) { s.exact = true }, func(s *settings) { s.workers = 4 },
		} {
			q := *p
			if simpler(&q.set); q.set != p.set {
				again = try(&q) || again
			}
		}
	}
	return p, bad
}

// quietly is run without the panic that a trace is told of.
func (w *world) quietly() (bad error) {
	defer func() {
		if p := recover(); p != nil {
			bad = fmt.Errorf("panic: %v", p)
		}
	}()
	return w.run()
}
