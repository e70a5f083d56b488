package remote

import (
	"strings"
	"testing"
	"testing/synctest"
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

// TestRequestTimeoutCountsFromTheSending: what waited at this host, behind an older
// change of the same bytes, is not late when it leaves.
func TestRequestTimeoutCountsFromTheSending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = func(*peer, *line, *abi.Header, []byte) bool { time.Sleep(time.Second); return true }
		b := start(t, p, func(c *Config) { c.RequestTimeout = 5 * time.Second })
		b.state(t, abi.StateEstablished)
		for i := range 12 { // one after the other
			b.submit(trans.Write, 0, pattern(byte(i), 512))
		}
		time.Sleep(10*time.Second + time.Second/2)
		if s := b.node.Status(); s.Oldest < 10000 {
			t.Errorf("the oldest waits for %d ms", s.Oldest)
		}
		for range 12 {
			b.wait()
		}
		if c := b.node.Counters(); c.Breaks != 0 {
			t.Fatalf("%d breaks: %+v", c.Breaks, b.node.Status().Transitions)
		}
	})
}

// TestRequestTimeoutOfTheYounger: the one that was sent first is late first, also if
// an older request has waited at this host.
func TestRequestTimeoutOfTheYounger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			if h.RW == abi.RWWrite && data[0] == 'a' {
				first := *h
				p.serving.Go(func() { time.Sleep(4 * time.Second); _ = p.answer(l, &first, data) })
			}
			return h.Cmd != abi.MsgIO
		}
		b := start(t, p, func(c *Config) { c.RequestTimeout = 5 * time.Second })
		b.state(t, abi.StateEstablished)
		b.submit(trans.Write, 0, pattern('a', 512))
		b.submit(trans.Write, 0, pattern('b', 512)) // sent after 4 s
		time.Sleep(2 * time.Second)
		b.submit(trans.Read, 4096, make([]byte, 512))
		b.wait()
		time.Sleep(2900 * time.Millisecond)
		if c := b.node.Counters(); c.Breaks != 0 {
			t.Fatal("too early")
		}
		p.set(func(p *peer) { p.on = nil })
		time.Sleep(400 * time.Millisecond)
		if c := b.node.Counters(); c.Breaks != 1 {
			t.Fatalf("%d breaks", c.Breaks)
		}
		for range 2 {
			b.wait()
		}
	})
}

// TestFailAfterForgetsWhoIsGone: whoever waited for memory when the link came back,
// and left, is no reason to fail the device at the next blink.
func TestFailAfterForgetsWhoIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		release := make(chan struct{})
		p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
			if h.Cmd != abi.MsgFlush {
				return true
			}
			flush := *h
			p.serving.Go(func() { <-release; _ = p.answer(l, &flush, nil) })
			return false
		}
		b := start(t, p, func(c *Config) { c.FailAfter = 30 * time.Second })
		b.state(t, abi.StateEstablished)
		for range 4 {
			b.do(trans.Write, 0, pattern('w', 1<<20))
		}
		stop, left := make(chan struct{}), make(chan bool)
		go func() {
			_, ok := b.node.Reserve().Get(trans.Write, 1<<20, stop)
			left <- ok
		}()
		synctest.Wait()
		p.cut()
		time.Sleep(5 * time.Second)
		b.state(t, abi.StateEstablished)
		close(stop)
		if <-left {
			t.Fatal("there was memory")
		}
		close(release)
		time.Sleep(time.Hour)
		p.cut()
		time.Sleep(5 * time.Second)
		b.state(t, abi.StateEstablished)
	})
}
