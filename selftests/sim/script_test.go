package main

import (
	"slices"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// stage is where a script plays: a world without chance, in which nothing
// happens that it does not ask for.
type play struct{ *world }

// newPlay is a world of two sectors.
func newPlay(h harm, change func(*settings)) play {
	p := &plan{seed: 1, set: settings{sectors: 2, window: 4, depth: 8, workers: 4, pages: 16, records: 32, keepalive: 100 * time.Millisecond,
		logAge: time.Hour, net: 100 * time.Microsecond, disk: 100 * time.Microsecond, punch: true, fua: true, resent: true, exact: true}}
	if change != nil {
		change(&p.set)
	}
	w := newWorld(p, h, nil)
	w.stage, w.limit = stageScript, time.Hour
	play := play{w}
	play.until("the device is there", func() bool { return w.settled() && w.devs[0].proc.link.attached })
	return play
}

// until lets time pass.
func (p play) until(what string, f func() bool) {
	for limit := p.now + time.Minute; p.bad == nil && !f(); {
		if !p.step() || p.now > limit {
			p.blame("it never came to this: %s", what)
		}
	}
}

func (p play) sleep(d time.Duration) {
	over := false
	p.after(d, func() { over = true })
	p.until("time passes", func() bool { return over })
}

// ask begins a request of one sector.
func (p play) ask(op trans.Op, sector int, flags uint64) *ask {
	s := step{op: op, from: sector, n: 1, flags: flags}
	if op == trans.Flush {
		s.n = 0
	}
	p.begin(s)
	return p.history.asks[len(p.history.asks)-1]
}

func (p play) begun() int              { return len(p.server.jobs) }
func (p play) write(sector int) *ask   { return p.ask(trans.Write, sector, 0) }
func (p play) fua(sector int) *ask     { return p.ask(trans.Write, sector, abi.FlagFUA) }
func (p play) read(sector int) *ask    { return p.ask(trans.Read, sector, 0) }
func (p play) flush() *ask             { return p.ask(trans.Flush, 0, 0) }
func (p play) value(sector int) uint64 { return p.disk.sectors[sector].cached }

// done waits for the answers of all.
func (p play) done(all ...*ask) {
	for _, a := range all {
		p.until(a.String()+" is answered", func() bool { return a.ack != 0 || a.lost })
	}
}

// atStore waits until the store does something.
func (p play) atStore() { p.until("the store does something", func() bool { return p.begun() > 0 }) }

func (p play) hit(k faultKind, length time.Duration) { p.inject(fault{kind: k, length: length}) }

// served waits for another WELCOME than those so far.
func (p play) served(f func()) {
	n := p.welcomes
	f()
	p.until("a client is served", func() bool { return p.welcomes > n })
}

// script is a short history that must end well, and with one of harms does not.
type script struct {
	name   string
	harm   harm
	change func(*settings)
	play   func(p play)
}

var scripts = []script{
	{"a write that the store holds back past a cut", noFence, nil, func(p play) {
		p.disk.lag = 2 * time.Second
		a := p.write(0)
		p.atStore()
		p.hit(faultCut, 0)
		p.done(a)
		p.done(p.write(0))
		p.sleep(5 * time.Second)
		p.done(p.read(0))
	}},
	{"power loss of the export's host", noLog, nil, func(p play) {
		p.done(p.write(0))
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"a durable write over one that is not, then a restart", noCut, nil, func(p play) {
		p.done(p.write(0))
		p.done(p.fua(0))
		p.hit(faultExport, time.Millisecond)
		p.done(p.read(0))
	}},
	{"a flush that fails and drops what is dirty", ignoreSync, nil, func(p play) {
		p.done(p.write(0))
		p.hit(faultSync, 0)
		p.done(p.flush())
		p.done(p.read(0))
	}},
	{"a write that the store holds back while the client waits", resendLive, nil, func(p play) {
		p.disk.lag = time.Second
		p.done(p.write(0))
		p.done(p.write(0))
		p.sleep(5 * time.Second)
		p.done(p.read(0))
	}},
	{"a read during a replay", noGate, nil, func(p play) {
		p.done(p.write(0))
		p.served(func() { p.hit(faultExportHost, time.Second) })
		p.disk.lag = time.Second
		p.done(p.read(0))
	}},
	{"a write between a flush and its answer, then power loss", trimAtReply, nil, func(p play) {
		p.done(p.write(0))
		p.disk.lag = time.Second
		f := p.flush()
		p.atStore()
		p.done(p.write(1))
		p.done(f)
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(1))
	}},
	{"power loss of both hosts in the middle of a replay", sequence, func(s *settings) { s.window = 1 }, func(p play) {
		p.done(p.write(0))
		first := p.value(0)
		p.done(p.fua(0))
		p.served(func() { p.hit(faultExport, time.Millisecond) })
		for range 2000 { // of a log of newest bytes nothing is written again
			if p.value(0) == first {
				break
			}
			p.step()
		}
		p.plan.set.lucky = true
		p.hit(faultHosts, time.Millisecond)
		p.sleep(time.Second)
		p.done(p.read(0))
	}},
	{"a cut in the middle of a replay", oneVerifier, func(s *settings) { s.window = 1 }, func(p play) {
		p.done(p.write(0))
		p.done(p.write(1))
		v := p.value(1)
		p.hit(faultExportHost, time.Millisecond)
		p.until("the newest is written again", func() bool { return p.value(1) == v })
		p.hit(faultCut, 0)
		p.done(p.read(0), p.read(1))
	}},
	{"a read behind an unanswered write that was read", onePhase, nil, func(p play) {
		p.disk.hang = time.Second
		a := p.write(0)
		p.until("it is written", func() bool { return p.value(0) != 0 })
		p.done(p.read(0))
		p.disk.lag = time.Second
		r := p.read(0)
		p.until("the second read is at the store", func() bool { return p.begun() == 2 })
		p.served(func() { p.hit(faultExportHost, time.Millisecond) })
		p.disk.lag = 100 * time.Millisecond
		p.done(a, r)
	}},
	{"power loss, and a verifier that must tell", keepVerifier, nil, func(p play) {
		p.done(p.write(0))
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"the client's process dies behind an answer, then power loss", lateCommit, nil, func(p play) {
		p.done(p.write(1))
		p.late = true
		p.done(p.write(0))
		p.hit(faultClient, time.Millisecond)
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"the client's process dies", oldEpoch, nil, func(p play) {
		p.done(p.write(0))
		p.hit(faultClient, time.Millisecond)
		p.done(p.read(0))
	}},
	{"a discard, then power loss", noDiscard, nil, func(p play) {
		p.done(p.fua(0))
		p.done(p.ask(trans.Discard, 0, 0))
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"an old connection whose bytes come late", readOn, func(s *settings) { s.keepalive, s.request = time.Second, 100*time.Millisecond }, func(p play) {
		p.inject(fault{kind: faultLate, length: 3 * time.Second})
		p.done(p.write(0))
		p.done(p.write(0))
		if p.now > 3*time.Second {
			p.blame("the new connection waited for the old one")
		}
		p.sleep(5 * time.Second)
		p.done(p.read(0))
	}},
	{"another store of the same name and size", anyStore, nil, func(p play) {
		p.done(p.fua(0))
		p.done(p.write(0))
		p.hit(faultReplace, time.Millisecond)
		r := p.read(0)
		p.done(r)
		if p.bad == nil && !r.lost {
			p.blame("it was read")
		}
	}},
	{"a client that lost its place and comes back", anyTenure, nil, func(p play) {
		former := p.devs[0]
		p.inject(fault{kind: faultLate, length: time.Minute})
		a := p.write(0)
		p.sleep(time.Millisecond)
		p.hit(faultClient, 3*time.Second)
		p.served(func() { p.hit(faultSteal, 0) })
		p.done(p.fua(0))
		p.devs[0].proc.kill(true)
		p.done(a)
		if former.proc != nil {
			former.proc.kill(true)
		}
		p.hit(faultClientHost, time.Millisecond)
		p.sleep(5 * time.Second)
		p.done(p.read(0))
	}},
	{"a read before the kernel sends again", noGhosts, nil, func(p play) {
		p.disk.hang = time.Second
		a := p.write(0)
		p.until("it is written", func() bool { return p.value(0) != 0 })
		p.done(p.read(0))
		p.hit(faultExportHost, time.Millisecond)
		p.resent = time.Second
		p.hit(faultClient, time.Millisecond)
		p.sleep(10 * time.Millisecond)
		p.done(p.read(0), a)
	}},
	{"a log that is lost, then power loss", noOrphan, nil, func(p play) {
		p.done(p.fua(0))
		p.done(p.write(0))
		p.hit(faultForget, time.Millisecond)
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"two flushes, a write between them, then power loss", joinRunning, nil, func(p play) {
		p.done(p.write(1))
		p.disk.lag = time.Second
		f := p.flush()
		p.atStore()
		p.done(p.write(0))
		p.done(f, p.flush())
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
}

// found are histories that once ended badly: violations that the simulator
// found in the cores.
var found = []script{
	{"a flush while the export's host dies three times", 0, nil, func(p play) {
		p.done(p.write(0))
		p.disk.slow = time.Minute
		f := p.flush()
		for range 4 {
			p.until("the flush is at the store", func() bool { return p.begun() > 0 && p.server.jobs[0].req == nil })
			p.served(func() { p.hit(faultExportHost, time.Millisecond) })
		}
		p.disk.slow = 0
		if p.done(f); f.lost {
			p.blame("the flush failed")
		}
	}},
	{"a change that is sent again by the kernel and fails", 0, nil, func(p play) {
		p.disk.lag = time.Second
		a := p.write(0)
		p.atStore()
		p.hit(faultClient, time.Millisecond)
		p.inject(fault{kind: faultEIO, arg: 0})
		p.done(a)
		if at := p.now; a.lost {
			if p.done(p.read(0)); p.now-at > 5*time.Second {
				p.blame("the read waited for %v", p.now-at)
			}
		}
	}},
	{"a log that is lost, a restart more, then power loss", 0, nil, func(p play) {
		p.done(p.fua(0))
		p.done(p.write(0))
		p.served(func() { p.hit(faultForget, time.Millisecond) })
		p.done(p.write(1))
		p.served(func() { p.hit(faultClient, time.Millisecond) })
		p.hit(faultExportHost, time.Millisecond)
		p.done(p.read(0))
	}},
	{"a log that is lost in the middle of a replay", 0, func(s *settings) { s.window = 1 }, func(p play) {
		p.done(p.fua(0), p.fua(1))
		p.done(p.write(0))
		p.done(p.write(1))
		v := p.value(1)
		p.hit(faultExportHost, time.Millisecond)
		p.until("the newest is written again", func() bool { return p.value(1) == v })
		p.hit(faultForget, time.Millisecond)
		p.done(p.read(0), p.read(1))
	}},
}

// end lets everything come to rest and looks at what there is.
func (s *script) run(h harm) error {
	p := newPlay(h, s.change)
	s.play(p)
	if p.bad == nil {
		p.done(slices.Clone(p.history.asks)...)
	}
	return p.bad
}

// TestScripts: each script ends well with what ships.
func TestScripts(t *testing.T) {
	for _, s := range slices.Concat(scripts, found) {
		t.Run(s.name, func(t *testing.T) {
			if err := s.run(0); err != nil {
				t.Error(err)
			}
		})
	}
}
