package remote

import (
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestReadOnlyGrantOutlivesAnotherWriter: who was granted reading only never had
// the read-write place, so it cannot have lost it to anybody.
func TestReadOnlyGrantOutlivesAnotherWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.welcome.Mode = abi.PermRead
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) { p.welcome.Tenure = abi.ID{8} })
		p.cut()
		time.Sleep(time.Second)
		b.state(t, abi.StateEstablished)
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
	})
}

// TestSlowStoreIsNoFailure: an export whose disk is slow reads nothing more
// while all its workers and memory are busy; it says PING. A link that broke
// then would throw the answers away, each time again.
func TestSlowStoreIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			if h.Cmd == abi.MsgPong {
				return false
			}
			for range 40 {
				if l.send(abi.Header{Cmd: abi.MsgPing}, nil, digestNow()) != nil {
					return false
				}
				time.Sleep(250 * time.Millisecond)
			}
			return true
		}
		b := start(t, p, nil)
		for i := range 4 {
			b.submit(trans.Write, uint64(i)*4096, pattern('w', 4096))
		}
		for range 4 {
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(errno)
			}
		}
		if c := b.node.Counters(); c.Breaks != 0 || c.Resent != 0 {
			t.Fatalf("%+v, %+v", c, b.node.Status().Transitions)
		}
	})
}
