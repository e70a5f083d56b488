package remote

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestWaits: the status tells what the oldest request waits for.
func TestWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		waits := func(want abi.Wait) {
			t.Helper()
			synctest.Wait()
			if s := b.node.Status(); s.Wait != want {
				t.Fatalf("it waits for %v, want %v (%v, %d in flight)", s.Wait, want, s.State, s.InFlight)
			}
		}
		waits(abi.WaitNothing)
		p.set(func(p *peer) { p.on = hold(func(*abi.Header) bool { return true }) })
		b.submit(trans.Write, 0, pattern('a', 512))
		b.submit(trans.Write, 0, pattern('b', 512))
		waits(abi.WaitDisk)
		time.Sleep(5 * time.Second)
		waits(abi.WaitDisk) // its PINGs are answered: it lives
		if s := b.node.Status(); s.Oldest != 5000 || s.State != abi.StateEstablished {
			t.Fatalf("%d ms, %v", s.Oldest, s.State)
		}
		p.set(func(p *peer) { p.mute = true })
		time.Sleep(1900 * time.Millisecond)
		waits(abi.WaitWire) // silent
		p.set(func(p *peer) { p.dialErr = unix.ECONNREFUSED })
		p.cut()
		waits(abi.WaitLink)
		time.Sleep(time.Minute)
		waits(abi.WaitLink)
	})
}

// TestDiskIsToldAtEveryMoment: a disk that stands still is never taken for a
// silent network, whatever else was sent, and when.
func TestDiskIsToldAtEveryMoment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) { p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgIO }) })
		b.submit(trans.Write, 0, pattern('a', 512))
		for phase := time.Duration(0); phase < 2*time.Second; phase += 90 * time.Millisecond {
			b.submit(trans.Read, 4096, make([]byte, 512)) // sent, and not answered
			for end := time.Now().Add(3*time.Second + phase); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if s := b.node.Status(); s.Wait != abi.WaitDisk {
					t.Fatalf("phase %v: it waits for %v, want the disk", phase, s.Wait)
				}
			}
			if b.node.Status().InFlight >= 14 {
				break
			}
		}
	})
}

// TestWaitsForReplay: what was lost is written again before anything else.
func TestWaitsForReplay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.do(trans.Write, 0, pattern('a', 512))
		p.set(func(p *peer) {
			p.welcome.Verifier[0]++
			p.on = hold(func(*abi.Header) bool { return true })
		})
		p.cut()
		b.submit(trans.Read, 4096, make([]byte, 512))
		time.Sleep(time.Second)
		if s := b.node.Status(); s.Wait != abi.WaitReplay || s.State != abi.StateRecovery || s.LogBytes != 512 {
			t.Fatalf("%v for %v, %d bytes in the log", s.State, s.Wait, s.LogBytes)
		}
		p.set(func(p *peer) { p.on = nil })
		p.cut()
		if errno, _ := b.wait(); errno != 0 {
			t.Fatal(errno)
		}
	})
}

// TestSteal: the wish is said until it is granted, and not again.
func TestSteal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.set(func(p *peer) { p.dialErr = unix.ECONNREFUSED })
		b := start(t, p, nil)
		time.Sleep(time.Second)
		b.node.Steal()
		p.set(func(p *peer) { p.dialErr = nil })
		time.Sleep(2 * time.Second)
		b.state(t, abi.StateEstablished)
		b.node.Steal() // it has the place
		p.cut()
		time.Sleep(time.Second)
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.hellos[0].Steal || p.hellos[1].Steal {
			t.Fatalf("%v, then %v", p.hellos[0].Steal, p.hellos[1].Steal)
		}
	})
}

// TestWaitsForNoFenceWithoutALink: the export that spoke of a fence can not be
// reached any more.
func TestWaitsForNoFenceWithoutALink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) {
			p.play = func(l *line) bool {
				if _, err := p.meet(l); err != nil {
					return true
				}
				_ = l.send(abi.Header{Cmd: abi.MsgDraining}, nil, crc)
				time.Sleep(time.Second)
				p.set(func(p *peer) { p.dialErr = unix.EHOSTUNREACH })
				return true
			}
		})
		p.cut()
		b.submit(trans.Read, 0, make([]byte, 512))
		time.Sleep(time.Second / 2)
		if s := b.node.Status(); s.Wait != abi.WaitFence {
			t.Errorf("it waits for %v, want the fence", s.Wait)
		}
		time.Sleep(time.Hour)
		if s := b.node.Status(); s.Wait != abi.WaitLink {
			t.Errorf("it waits for %v, want the link (%v: %s)", s.Wait, s.State, s.Reason)
		}
		p.set(func(p *peer) { p.play, p.dialErr = nil, nil })
		b.wait()
	})
}

// TestWaitsForTheResending: a read waits for the changes that are sent again
// first, whatever they change, and not for an order of its own.
func TestWaitsForTheResending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(*abi.Header) bool { return true })
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		b.submit(trans.Read, 0, make([]byte, 512))
		b.submit(trans.Write, 65536, pattern('w', 512))
		synctest.Wait()
		p.cut()
		time.Sleep(10 * time.Second)
		if s := b.node.Status(); s.Wait != abi.WaitReplay || s.State != abi.StateRecovery {
			t.Fatalf("%v for %v", s.State, s.Wait)
		}
	})
}
