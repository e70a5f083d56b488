package remote

import (
	"testing"
	"testing/synctest"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestLogFullDuringAFlush: a log that has become full while a flush was under way
// that covers nothing of it is flushed next, not when its age is looked at.
func TestLogFullDuringAFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(*abi.Header) bool { return true })
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		b.submit(trans.Write, 1<<19, pattern('g', 512)) // a ghost for the next daemon, which flushes it
		synctest.Wait()
		b.node.Close()
		release := make(chan struct{})
		p.set(func(p *peer) {
			p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
				if h.Cmd != abi.MsgFlush {
					return true
				}
				flush := *h
				p.serving.Go(func() { <-release; _ = p.answer(l, &flush, nil) })
				return false
			}
		})
		again := restart(t, p, b.page, nil)
		again.state(t, abi.StateEstablished)
		for i := range again.node.core.log.Records() {
			again.do(trans.Discard, uint64(i)*512, make([]byte, 512))
		}
		again.submit(trans.Discard, 0, make([]byte, 512))
		synctest.Wait()
		close(release)
		began := time.Now()
		again.wait()
		if d := time.Since(began); d > time.Second {
			t.Fatalf("with an idle disk a write waited %v", d)
		}
	})
}

// TestGhostsOfManyCrashes: the kernel gives each daemon the same requests; what is
// remembered of them does not grow.
func TestGhostsOfManyCrashes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(h *abi.Header) bool { return h.RW == abi.RWWrite })
		resent := func(c *Config) { c.Resent = true }
		page := make([]byte, SavedSize)
		const n = 12
		at := func(i int) uint64 { return uint64(i)*65536 + 4096 }
		for range 4 {
			b := restart(t, p, page, resent)
			b.state(t, abi.StateEstablished)
			for i := range n {
				b.submit(trans.Write, at(i), pattern('g', 512))
			}
			synctest.Wait()
			b.node.Close()
		}
		p.set(func(p *peer) { p.on = nil })
		b := restart(t, p, page, resent)
		for i := range n {
			b.do(trans.Write, at(i), pattern('g', 512))
		}
		began := time.Now()
		b.do(trans.Read, 32768, make([]byte, 512))
		if d := time.Since(began); d > time.Second {
			t.Fatalf("all of it was written again, and a read of other bytes waited %v", d)
		}
	})
}
