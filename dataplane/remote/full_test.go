package remote

import (
	"testing"
	"testing/synctest"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestFullLogAfterABreak: a log that was full when the link broke, with the
// flush that was to empty it, is flushed when the link is back. Nobody else
// would do it: the writers wait.
func TestFullLogAfterABreak(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		p.set(func(p *peer) { p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgFlush }) })
		for range 256 {
			b.do(trans.Write, 0, pattern('a', 512))
		}
		b.submit(trans.Write, 0, pattern('b', 512))
		synctest.Wait()
		if s := b.node.Status(); s.Wait != abi.WaitLog {
			t.Fatalf("it waits for %v, not for the log", s.Wait)
		}
		p.set(func(p *peer) { p.on = nil })
		p.cut()
		began := time.Now()
		if errno, _ := b.wait(); errno != 0 || time.Since(began) > 5*time.Second {
			t.Fatalf("%v after %v", errno, time.Since(began))
		}
	})
}

// TestMemoryIsWaitedForBeforeTheLogHasIt: who waits for memory when the log is
// empty gets what a write in flight has, once that is in the log.
func TestMemoryIsWaitedForBeforeTheLogHasIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		const mib = 1 << 20
		release := make(chan struct{})
		p.set(func(p *peer) {
			p.on = func(_ *peer, _ *line, h *abi.Header, _ []byte) bool {
				switch {
				case h.Cmd == abi.MsgFlush:
				case h.RW == 0:
					return false // READs keep their memory
				default:
					<-release
				}
				return true
			}
		})
		for range 3 {
			b.submit(trans.Read, 0, make([]byte, mib))
		}
		b.submit(trans.Write, 0, make([]byte, mib))
		go b.submit(trans.Write, 0, make([]byte, mib))
		synctest.Wait()
		if !b.node.Reserve().Starving() {
			t.Fatal("nobody waits for memory")
		}
		close(release)
		began := time.Now()
		for range 2 {
			if errno, _ := b.wait(); errno != 0 || time.Since(began) > 5*time.Second {
				t.Fatalf("%v after %v", errno, time.Since(began))
			}
		}
	})
}
