package remote

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/trans"
)

// TestAnswerTwice: the first answer counts, the second breaks the link, the
// other request is served by the next.
func TestAnswerTwice(t *testing.T) {
	for _, op := range []trans.Op{trans.Read, trans.Write, trans.Flush} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
				if h.Sector == 0 && l.n == 1 {
					_ = p.answer(l, h, data)
					_ = p.answer(l, h, data)
				}
				return l.n > 1
			}
			b := start(t, p, nil)
			b.submit(trans.Read, 4096, make([]byte, 512))
			b.submit(op, 0, make([]byte, 512*int(op%3)))
			for range 2 {
				if errno, _ := b.wait(); errno != 0 {
					t.Fatal(op, errno)
				}
			}
			if c := b.node.Counters(); c.ProtocolErrors != 1 || c.Resent != 1 || c.Breaks != 1 {
				t.Fatalf("%v: %+v", op, c)
			}
			if !b.was("not in flight") {
				t.Fatalf("%v: %+v", op, b.node.Status().Transitions)
			}
		})
	}
}

// TestErrorAnswers: a request's error reaches its user and the link stays.
func TestErrorAnswers(t *testing.T) {
	for _, op := range []trans.Op{trans.Read, trans.Write, trans.Discard, trans.Zero} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
				r := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, Reserved: uint32(unix.EPERM)}
				r.SetVerifier(p.welcome.Verifier)
				_ = l.send(r, nil, digestNow())
				return false
			}
			b := start(t, p, nil)
			for range 3 {
				var data []byte
				if op == trans.Read || op == trans.Write {
					data = make([]byte, 512)
				}
				if errno, _ := b.do(op, 512, data); errno != unix.EPERM {
					t.Fatal(op, errno)
				}
			}
			if c := b.node.Counters(); c.Breaks != 0 || c.Errors != 3 || c.WrittenBytes != 0 || c.ReadBytes != 0 || b.node.Status().Unflushed != 0 {
				t.Fatalf("%v: %+v", op, c)
			}
		})
	}
}

// TestAnswerBeforeItsRequest: an answer to what has not left yet (ids can be
// guessed) gives the request back only when nobody writes it any more.
func TestAnswerBeforeItsRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		answered := make(chan struct{})
		p.play = func(l *line) bool {
			if l.n > 1 || p.greet(l) != nil {
				return false
			}
			b := make([]byte, 20) // of the first request's header
			_, _ = l.Read(b)
			for slot := uint64(0); slot < 2; slot++ {
				r, data := reply(abi.Header{ID: 1<<16 | slot, Cmd: abi.MsgFlush, Sector: slot * 8})
				_ = l.send(r, data, digestNow())
			}
			close(answered)
			time.Sleep(time.Second)
			return true
		}
		b := assemble(t, p, make([]byte, SavedSize), nil)
		b.submit(trans.Write, 0, pattern('a', 4096))
		b.submit(trans.Write, 4096, pattern('b', 4096))
		b.node.Start()
		<-answered
		synctest.Wait()
		if n := len(b.done); n != 0 {
			t.Fatalf("%d requests came back while their frames were being written", n)
		}
		for range 2 {
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(errno)
			}
		}
	})
}

// TestFloodOfPings: PINGs without end cost no memory, whether the peer takes
// the PONGs or not, and do not keep requests from being answered.
func TestFloodOfPings(t *testing.T) {
	const floods = 20000
	for _, reads := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			flooded := make(chan uint64, 1)
			p.play = func(l *line) bool {
				if l.n > 1 || p.greet(l) != nil {
					return false
				}
				h, data, _ := l.recv(digestNow())
				if reads {
					p.serving.Go(func() {
						for {
							if _, _, err := l.recv(digestNow()); err != nil {
								return
							}
						}
					})
				}
				ping := bytes.Repeat(frame(abi.Header{Cmd: abi.MsgPing, ID: 77, CSize: csizeNow(), Size: csizeNow()}, nil, digestNow()), 64)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range floods / 64 {
					if _, err := l.Write(ping); err != nil {
						t.Errorf("the node left: %v", err)
						break
					}
				}
				runtime.ReadMemStats(&after)
				flooded <- after.TotalAlloc - before.TotalAlloc
				if reads {
					_ = p.answer(l, &h, data)
				}
				time.Sleep(30 * time.Second)
				return true
			}
			b := start(t, p, nil)
			b.submit(trans.Read, 0, make([]byte, 512))
			// The peer's own recv allocates a header for each PONG that it takes.
			if n := <-flooded; !reads && n > 256<<10 {
				t.Fatalf("%d PINGs cost %d bytes", floods, n)
			}
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(errno)
			}
			if c := b.node.Counters(); reads != (c.Breaks == 0) {
				t.Fatalf("%+v", c)
			}
			if !reads && !b.was("no sign of life") {
				t.Fatalf("%+v", b.node.Status().Transitions)
			}
			b.node.Close()
		})
	}
}

// TestPeerThatReadsNothing while it says PING: it may be a slow disk's, so only
// request-timeout breaks the link.
func TestPeerThatReadsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool {
			if l.n > 1 || p.greet(l) != nil {
				return false
			}
			for l.send(abi.Header{Cmd: abi.MsgPing}, nil, digestNow()) == nil {
				time.Sleep(100 * time.Millisecond)
			}
			return true
		}
		b := start(t, p, func(c *Config) { c.RequestTimeout = 10 * time.Second })
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		if c := b.node.Counters(); c.Breaks != 1 || !b.was("a request was not answered in time") {
			t.Fatalf("%+v", b.node.Status().Transitions)
		}
	})
}

// TestRequestTimeoutCountsFromTheLink: what waited for the link is not late on
// it at once, or no slow peer could ever be resumed.
func TestRequestTimeoutCountsFromTheLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.dialErr = unix.EHOSTUNREACH
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			p.serving.Go(func() { time.Sleep(5 * time.Second); _ = p.answer(l, h, data) })
			return false
		}
		b := start(t, p, func(c *Config) { c.RequestTimeout = 10 * time.Second })
		b.submit(trans.Read, 0, make([]byte, 512))
		time.Sleep(time.Minute)
		p.set(func(p *peer) { p.dialErr = nil })
		if errno, _ := b.wait(); errno != 0 || b.was("not answered in time") {
			t.Fatal(errno, b.node.Status().Transitions)
		}
	})
}

// TestHalfClose: the peer ends one direction of a real socket and keeps the
// connection. The node leaves and is served by the next one.
func TestHalfClose(t *testing.T) {
	for how, says := range map[int]string{unix.SHUT_WR: "closed the connection", unix.SHUT_RD: "takes nothing any more"} {
		p := newPeer()
		left := make(chan struct{})
		p.play = func(l *line) bool {
			if l.n > 1 || p.greet(l) != nil {
				return false
			}
			_, _, _ = l.recv(digestNow())
			_ = unix.Shutdown(l.fd, how)
			<-left
			return true
		}
		b := assemble(t, p, make([]byte, SavedSize), func(c *Config) { c.Keepalive = 20 * time.Millisecond })
		b.node.env.Dial = p.dialSocket
		b.node.Start()
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		close(left)
		if !b.was(says) {
			t.Fatalf("%+v", b.node.Status().Transitions)
		}
		b.node.Close()
	}
}

// dialSocket is dial with sockets of the kernel.
func (p *peer) dialSocket(context.Context, abi.Addr) (conn.Stream, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	a, err := conn.NewSock(fds[0], abi.UnixAddr("/socketpair"))
	if err != nil {
		return nil, err
	}
	b, err := conn.NewSock(fds[1], abi.UnixAddr("/socketpair"))
	if err != nil {
		return nil, err
	}
	p.answerOn(&line{Stream: b, fd: fds[1]})
	return a, nil
}

// TestCloseWhileThePeerIsDeaf: Close tries to say BYE for a moment only.
func TestCloseWhileThePeerIsDeaf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool {
			if p.greet(l) == nil {
				time.Sleep(time.Second)
			}
			return true
		}
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		b.submit(trans.Write, 0, pattern('x', 512))
		began := time.Now()
		b.node.Close()
		if d := time.Since(began); d > byeTimeout {
			t.Fatalf("Close took %v", d)
		}
		if errno, _ := b.wait(); errno != unix.ESHUTDOWN {
			t.Fatal(errno)
		}
	})
}

// TestManyBreaksLeaveNothing: a peer that greets and closes, again and again,
// costs neither goroutines nor history, and is not asked ever faster.
func TestManyBreaksLeaveNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool { _ = p.greet(l); return true }
		b := start(t, p, nil)
		b.submit(trans.Read, 0, make([]byte, 512))
		time.Sleep(10 * time.Second)
		before := runtime.NumGoroutine()
		time.Sleep(5 * time.Minute)
		if after := runtime.NumGoroutine(); after > before+5 {
			t.Fatalf("%d goroutines, %d before", after, before)
		}
		c, n := b.node.Counters(), len(b.node.Status().Transitions)
		if c.Breaks < 200 || c.Breaks > 600 || n > historyLen {
			t.Fatalf("%d transitions, %+v", n, c)
		}
		p.set(func(p *peer) { p.play = nil; p.lines = nil })
		if errno, _ := b.wait(); errno != 0 {
			t.Fatal(errno)
		}
	})
}
