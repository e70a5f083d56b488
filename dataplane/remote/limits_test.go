package remote

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestReplayRefused: a disk that takes a part of a replay back each time, and never
// all of it, has failed.
func TestReplayRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.do(trans.Write, 8192, pattern('b', 512)) // a bad block
		b.do(trans.Write, 0, pattern('a', 512))
		p.set(func(p *peer) {
			p.welcome.Verifier[0]++
			p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
				if h.Sector != 16 {
					return true
				}
				time.Sleep(10 * time.Millisecond) // the other one is answered meanwhile
				p.set(func(p *peer) { p.welcome.Verifier[0]++ })
				_ = p.fail(l, h, unix.EIO)
				return false
			}
		})
		p.cut()
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != unix.EIO {
			t.Fatal(errno)
		}
		b.state(t, abi.StateFailed)
		if s := b.node.Status(); !strings.Contains(s.Reason, "take back") || s.Epoch != 1+flushTries+1 {
			t.Fatalf("epoch %d: %s", s.Epoch, s.Reason)
		}
	})
}

// TestFailAfterOfAPeerThatOnlyGreets: a link that comes up, and breaks before it
// has answered anything, does not begin the wait anew.
func TestFailAfterOfAPeerThatOnlyGreets(t *testing.T) {
	for name, play := range map[string]func(p *peer, l *line, h *abi.Header) bool{
		"silent":  func(*peer, *line, *abi.Header) bool { return false },
		"no room": func(p *peer, l *line, h *abi.Header) bool { _ = p.fail(l, h, unix.ENOSPC); return false },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer()
				b := start(t, p, func(c *Config) { c.RequestTimeout, c.FailAfter = 5*time.Second, 30*time.Second })
				b.do(trans.Write, 0, pattern('a', 512))
				p.set(func(p *peer) {
					p.welcome.Verifier[0]++
					p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool { return h.Cmd != abi.MsgIO || play(p, l, h) }
				})
				p.cut()
				began := time.Now()
				if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != unix.EIO {
					t.Fatal(errno)
				}
				if d := time.Since(began); d < 30*time.Second || d > 37*time.Second {
					t.Fatalf("after %v", d)
				}
				b.state(t, abi.StateFailed)
			})
		})
	}
}

// TestFailAfterOfWhatWasNeverSent: a full log holds the writes back and its flush
// is never answered; they wait for the peer all the same.
func TestFailAfterOfWhatWasNeverSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgFlush })
		b := start(t, p, func(c *Config) { c.RequestTimeout, c.FailAfter = 5*time.Second, 30*time.Second })
		b.state(t, abi.StateEstablished)
		for i := range b.node.core.log.Records() {
			b.do(trans.Discard, uint64(i)*512, make([]byte, 512))
		}
		if errno, _ := b.do(trans.Discard, 0, make([]byte, 512)); errno != unix.EIO {
			t.Fatal(errno)
		}
		b.state(t, abi.StateFailed)
	})
}

// TestFailAfterForgetsOldOutages: a node whose link is up does not wait, idle or
// served, however often its link broke before.
func TestFailAfterForgetsOldOutages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, func(c *Config) { c.FailAfter = 10 * time.Second })
		for range 20 {
			time.Sleep(time.Minute)
			p.cut() // idle
		}
		for range 20 {
			p.set(func(p *peer) { p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgIO }) })
			b.submit(trans.Read, 0, make([]byte, 512))
			time.Sleep(8 * time.Second)
			p.set(func(p *peer) { p.on = nil })
			p.cut()
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(errno)
			}
		}
		b.state(t, abi.StateEstablished)
	})
}
