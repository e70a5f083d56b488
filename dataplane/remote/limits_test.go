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
