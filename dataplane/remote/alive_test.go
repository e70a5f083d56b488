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

// TestKeepalivePromised: as long as a link lives it says PING as often as its HELLO
// promised, whatever its node is told meanwhile: the export believes the promise. To
// do so more often needs none.
func TestKeepalivePromised(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		var longest time.Duration // between two frames
		p.play = func(l *line) bool {
			if p.greet(l) != nil {
				return true
			}
			for last := time.Now(); ; last = time.Now() {
				h, _, err := l.recv(digestNow())
				if err != nil {
					return true
				}
				p.set(func(*peer) { longest = max(longest, time.Since(last)) })
				if h.Cmd == abi.MsgPing && l.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil, digestNow()) != nil {
					return true
				}
			}
		}
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		gap := func(least, most time.Duration) {
			t.Helper()
			p.set(func(*peer) { longest = 0 })
			time.Sleep(10 * time.Minute)
			p.set(func(*peer) {
				if longest < least || longest > most {
					t.Errorf("%v without a word, want %v to %v", longest, least, most)
				}
			})
		}
		set := func(d time.Duration) { b.node.Set(&d, nil, nil, nil) }
		gap(time.Second/2, time.Second)
		set(time.Minute)
		gap(time.Second/2, time.Second)
		set(100 * time.Millisecond)
		time.Sleep(time.Second) // it notices within the old interval
		gap(50*time.Millisecond, 100*time.Millisecond)
		set(time.Minute)
		p.cut()
		time.Sleep(time.Second)
		gap(time.Second/2, time.Minute)
		if c := b.node.Counters(); c.Breaks != 1 || p.hellos[1].Keepalive != 60000 {
			t.Errorf("%d breaks, %d ms were promised", c.Breaks, p.hellos[1].Keepalive)
		}
	})
}

// TestPatienceFollowsTheKnob: how long a silent peer is waited for is this end's own
// affair, and changes at once.
func TestPatienceFollowsTheKnob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		d := 10 * time.Second
		b.node.Set(&d, nil, nil, nil)
		p.set(func(p *peer) { p.mute = true })
		time.Sleep(28 * time.Second)
		b.state(t, abi.StateEstablished)
		time.Sleep(3 * time.Second)
		if !b.was("no sign of life") {
			t.Fatal("it still waits")
		}
	})
}

// TestPatienceOutlivesAChange: what was counted in small intervals is not held
// against a peer when they become large. It is busy, and says PING once a second.
func TestPatienceOutlivesAChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool {
			if p.greet(l) != nil {
				return true
			}
			p.serving.Go(func() {
				for {
					if _, _, err := l.recv(digestNow()); err != nil {
						return
					}
				}
			})
			for l.send(abi.Header{Cmd: abi.MsgPing}, nil, digestNow()) == nil {
				time.Sleep(time.Second)
			}
			return true
		}
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		for i := range 40 {
			d := []time.Duration{100 * time.Millisecond, time.Second}[i%2]
			b.node.Set(&d, nil, nil, nil)
			time.Sleep(2950 * time.Millisecond)
		}
		if c := b.node.Counters(); c.Breaks != 0 {
			t.Fatalf("%d breaks", c.Breaks)
		}
	})
}
