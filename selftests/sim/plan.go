package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// plan is all that a run does by itself: what the users ask for and what is
// done to them. A seed makes one; shrinking takes parts of it away. The rest of
// a run is chance, drawn from the seed as well.
type plan struct {
	seed   uint64
	set    settings
	steps  []step
	faults []fault
}

// settings are the shape of a run.
type settings struct {
	sectors   int           // of the device
	window    int           // requests of the users in flight
	depth     int           // elements of a client
	workers   int           // of a session
	pages     int           // payload memory of a client
	records   int           // of its log
	keepalive time.Duration // of both ends
	logAge    time.Duration
	request   time.Duration // request-timeout, 0 = off
	failAfter time.Duration // 0 = never
	net       time.Duration // mean latency of the network
	disk      time.Duration // and of the store
	cutEvery  int           // a connection is cut after about so many bytes; 0 = never
	fua       bool          // the store has durable writes of its own
	punch     bool          // it makes discarded sectors zeroes, else it ignores discards
	stable    bool          // writethrough
	shared    bool          // two clients at once
	resent    bool          // the front sends again what its daemon did not answer
	loseAll   bool          // in the end both hosts are lost
	polite    bool          // users do not ask for what a change of theirs is under way to
	exact     bool          // no chance in latencies
	lucky     bool          // exact: a loss of power leaves all of the cache, else nothing
}

// step is one request of a user.
type step struct {
	op      trans.Op
	flags   uint64
	from, n int           // sectors
	think   time.Duration // since the step before it, at least
	user    int           // which client, if there are two
}

func (s step) String() string {
	word := s.op.String()
	if s.flags&abi.FlagFUA != 0 {
		word += "+fua"
	}
	return fmt.Sprintf("%s %d+%d", word, s.from, s.n)
}

// fault is something that is done to the system.
type fault struct {
	kind   faultKind
	step   int           // happens when so many steps were begun,
	link   int           // or, if not 0, at the so manieth WELCOME,
	event  uint64        // or, if not 0, behind the so manieth event,
	delay  time.Duration // and then this
	length time.Duration // how long it lasts
	arg    int
}

func (f fault) String() string {
	when := fmt.Sprintf("step %d", f.step)
	if f.link != 0 {
		when = fmt.Sprintf("welcome %d", f.link)
	}
	if f.event != 0 {
		when = fmt.Sprintf("event %d", f.event)
	}
	return fmt.Sprintf("%v at %s + %v for %v (%d)", f.kind, when, f.delay, f.length, f.arg)
}

type faultKind uint8

const (
	faultCut        faultKind = iota // both directions end somewhere in what is on its way
	faultHole                        // nothing passes, arg: up, down or both
	faultLate                        // nothing passes on the present connections for a while, arg: up or down; new ones are well
	faultFlip                        // a bit of what is on its way changes
	faultExport                      // the export's process dies
	faultClient                      // the client's process dies
	faultBoth                        // both do
	faultExportHost                  // the export's host loses power
	faultClientHost                  // the client's host is lost, with all that it remembered
	faultHosts                       // both
	faultStall                       // the store does nothing
	faultEIO                         // the arg-th operation of the store from now fails
	faultSync                        // the next flush of the store fails and drops what is dirty
	faultSpace                       // the store is full
	faultJumpClient                  // a clock jumps forward: the host slept
	faultJumpExport
	faultRival   // another client wants the read-write place, and does not give up
	faultSteal   // another client takes the read-write place
	faultForget  // the client's process dies and its log is lost
	faultReplace // the export comes back with another store of the same name and size
	faultShrink  // with a smaller one
	faultKinds
)

var faultNames = [...]string{"cut", "hole", "late", "flip", "kill export", "kill client", "kill both", "lose export host", "lose client host",
	"lose both hosts", "stall", "EIO", "failed flush", "ENOSPC", "client sleeps", "export sleeps", "rival", "steal", "forget the log", "replace the store", "shrink the store"}

func (k faultKind) String() string { return faultNames[k] }

// newPlan is the plan of a seed. Which kinds of faults there are, and how many,
// differs from seed to seed: a run with all of them at once reaches less.
func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := &plan{seed: seed, set: newSettings(r)}
	p.addSteps(r, 8+r.IntN(40))
	p.addFaults(r)
	return p
}

// pick is one of the choices.
func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

func newSettings(r *rand.Rand) settings {
	s := settings{
		sectors: 1 + r.IntN(6), window: 1 + r.IntN(8), depth: 2 + r.IntN(8), workers: 1 + r.IntN(6),
		pages: pick(r, 4, 8, 16, 32), keepalive: pick(r, 100*time.Millisecond, 300*time.Millisecond, time.Second),
		logAge: pick(r, 20*time.Millisecond, time.Second, 5*time.Second), net: pick(r, 20*time.Microsecond, 200*time.Microsecond, 2*time.Millisecond),
		disk: pick(r, 20*time.Microsecond, 500*time.Microsecond, 5*time.Millisecond, 50*time.Millisecond),
		fua:  r.IntN(2) == 0, punch: r.IntN(4) != 0, stable: r.IntN(16) == 0, shared: r.IntN(16) == 0,
		resent: r.IntN(4) != 0, loseAll: r.IntN(2) == 0,
	}
	if s.resent { // else reads that wait for a write could leave no room for it
		s.depth, s.pages = max(s.depth, s.window), max(s.pages, s.window)
	}
	s.polite = r.IntN(3) == 0
	s.records = s.depth + pick(r, 1, 4, 16, 64)
	if r.IntN(8) == 0 {
		s.request = 500 * time.Millisecond
	}
	if r.IntN(32) == 0 {
		s.failAfter = 3 * time.Second
	}
	if r.IntN(4) == 0 {
		s.cutEvery = pick(r, 2_000, 10_000, 50_000)
	}
	return s
}

func (p *plan) addSteps(r *rand.Rand, n int) {
	think := pick(r, 0, 100*time.Microsecond, 2*time.Millisecond, 20*time.Millisecond)
	discards, fua, flushes := r.IntN(3), r.IntN(5), 1+r.IntN(2)
	for range n {
		s := step{from: r.IntN(p.set.sectors), user: r.IntN(2)}
		s.n = 1 + r.IntN(min(3, p.set.sectors-s.from))
		switch k := r.IntN(10); {
		case k < 4-discards/2:
			s.op = trans.Write
		case k < 5:
			s.op = pick(r, trans.Discard, trans.Zero)
			s.flags = pick(r, 0, abi.FlagNoHole)
			if s.op == trans.Discard {
				s.flags = 0
			}
		case k < 10-flushes:
			s.op = trans.Read
		default:
			s.op, s.from, s.n = trans.Flush, 0, 0
		}
		if s.op.Changes() && r.IntN(8) < fua {
			s.flags |= abi.FlagFUA
		}
		if think > 0 {
			s.think = time.Duration(r.Int64N(int64(2 * think)))
		}
		p.steps = append(p.steps, s)
	}
}

// addFaults chooses the kinds of faults: either of many, or only two that may
// need each other, as a loss needs what keeps it from being made good.
func (p *plan) addFaults(r *rand.Rand) {
	var kinds []faultKind
	if r.IntN(3) == 0 {
		kinds = append(kinds, faultKind(r.IntN(int(faultSteal))), faultKind(r.IntN(int(faultSteal))))
	} else {
		for k := range faultSteal {
			if r.IntN(4) == 0 {
				kinds = append(kinds, k)
			}
		}
	}
	if r.IntN(12) == 0 {
		k := faultSteal + faultKind(r.IntN(int(faultKinds-faultSteal)))
		kinds = append(kinds[:min(2, len(kinds))], k)
		if k == faultForget { // matters only if the export loses something too
			kinds = append(kinds, faultExportHost)
		}
	}
	if len(kinds) == 0 {
		return
	}
	for range 1 + r.IntN(5) {
		f := fault{kind: pick(r, kinds...), arg: r.IntN(16)}
		if r.IntN(2) == 0 {
			f.step = r.IntN(len(p.steps) + 1)
		} else {
			f.link = 1 + r.IntN(4)
		}
		f.delay = time.Duration(r.Int64N(int64(pick(r, time.Microsecond, time.Millisecond, 20*time.Millisecond, 300*time.Millisecond))))
		f.length = time.Duration(r.Int64N(int64(pick(r, time.Millisecond, 100*time.Millisecond, time.Second, 8*time.Second))))
		p.faults = append(p.faults, f)
	}
}
