package remote

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestFailedStaysFailed: what ended a device for good is remembered for later
// daemons. They serve its users with errors, and leave the export alone: its disk
// may have been repaired meanwhile, and the log must not be written over that.
func TestFailedStaysFailed(t *testing.T) {
	for name, end := range map[string]func(b *bench){
		"fail-after": func(b *bench) { b.peer.set(func(p *peer) { p.dialErr = unix.EHOSTUNREACH }); b.peer.cut() },
		"tenure":     func(b *bench) { b.peer.set(func(p *peer) { p.welcome.Tenure[0]++ }); b.peer.cut() },
		"lost":       func(b *bench) { b.node.Fail(errors.New("somebody took the device away")) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer()
				b := start(t, p, func(c *Config) { c.FailAfter = 10 * time.Second })
				b.do(trans.Write, 0, pattern('a', 512)) // acknowledged, not flushed
				end(b)
				time.Sleep(time.Minute)
				b.state(t, abi.StateFailed)
				why := b.node.Status().Reason
				b.node.Stop()
				p.set(func(p *peer) {
					p.dialErr = nil
					p.welcome = goodWelcome()
					p.welcome.Verifier[0]++
					copy(p.disk, pattern('r', 512))
					p.hellos = nil
				})
				for range 2 {
					b = restart(t, p, b.page, nil)
					time.Sleep(time.Minute)
					b.state(t, abi.StateFailed)
					if s := b.node.Status(); s.Reason != why || len(s.Transitions) != 1 || s.Unflushed != 0 {
						t.Fatalf("it was %q: %+v", why, s)
					}
					if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != unix.EIO {
						t.Fatal(errno)
					}
					if len(b.ups) != 1 || len(b.events.all) != 1 || b.events.all[0].State != abi.StateFailed {
						t.Fatalf("up %d times, told %+v", len(b.ups), b.events.all)
					}
					b.node.Fail(errors.New("again"))
					b.node.Close()
				}
				if p.disk[0] != 'r' || len(p.hellos) != 0 {
					t.Fatalf("%d connections, the disk has %q", len(p.hellos), p.disk[:1])
				}
			})
		})
	}
}

// TestFailedHereIsTriedAgain: a device that this host could not make is the next
// daemon's.
func TestFailedHereIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		page := make([]byte, SavedSize)
		for range 2 { // at the first WELCOME, then at once
			b := assemble(t, p, page, nil)
			b.node.env.Up = func(Info) error { return unix.EPERM }
			b.node.Start()
			b.state(t, abi.StateFailed)
			b.node.Stop()
		}
		restart(t, p, page, nil).state(t, abi.StateEstablished)
	})
}

// TestFailedBeforeItWasKnown: a node whose peer never came has no device.
func TestFailedBeforeItWasKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.dialErr = unix.ECONNREFUSED
		b := start(t, p, func(c *Config) { c.FailAfter = time.Second })
		time.Sleep(10 * time.Second)
		b.state(t, abi.StateFailed)
		b.node.Stop()
		p.set(func(p *peer) { p.dialErr = nil })
		b = restart(t, p, b.page, nil)
		b.state(t, abi.StateFailed)
		if s := b.node.Status(); !strings.Contains(s.Reason, "fail-after") || len(b.ups) != 0 {
			t.Fatalf("up %d times: %s", len(b.ups), s.Reason)
		}
	})
}

// TestFailedWithAFullLog: requests get EIO at once, though the log had all of the
// payload memory.
func TestFailedWithAFullLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgFlush })
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		for range 4 {
			b.do(trans.Write, 0, pattern('w', 1<<20))
		}
		got := make(chan unix.Errno)
		go func() {
			errno, _ := b.do(trans.Read, 0, make([]byte, 1<<20))
			got <- errno
		}()
		b.state(t, abi.StateEstablished)
		if s := b.node.Status(); s.LogBytes != 4<<20 || s.InFlight != 1 { // the flush
			t.Fatalf("%+v", s)
		}
		p.set(func(p *peer) { p.welcome.StoreID[0]++ })
		p.cut()
		if errno := <-got; errno != unix.EIO {
			t.Fatal(errno)
		}
		b.state(t, abi.StateFailed)
	})
}
