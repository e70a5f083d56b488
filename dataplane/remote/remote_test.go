package remote

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/trans"
)

// pattern is n bytes that tell who wrote them.
func pattern(who byte, n int) []byte { return bytes.Repeat([]byte{who}, n) }

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// state checks where the node is.
func (b *bench) state(t *testing.T, want abi.State) {
	t.Helper()
	synctest.Wait()
	if s := b.node.Status(); s.State != want {
		t.Fatalf("state %v (%s), want %v", s.State, s.Reason, want)
	}
}

func TestConfiguredToEstablished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, newPeer(), nil)
		b.state(t, abi.StateEstablished)
		info, ok := b.node.Info()
		if want := (Info{1 << 20, 512, 4096, 1 << 20, abi.FeatureFlush, false}); !ok || info != want {
			t.Fatalf("info %+v, want %+v", info, want)
		}
		if errno, _ := b.do(trans.Write, 4096, pattern('w', 4096)); errno != 0 {
			t.Fatal(errno)
		}
		if errno, data := b.do(trans.Read, 4096, make([]byte, 4096)); errno != 0 || !bytes.Equal(data, pattern('w', 4096)) {
			t.Fatal(errno, data[:8])
		}
		for _, op := range []trans.Op{trans.Flush, trans.Discard, trans.Zero} {
			if errno, _ := b.do(op, 0, nil); errno != 0 {
				t.Fatal(op, errno)
			}
		}
		if c := b.node.Counters(); c.Reads != 1 || c.Writes != 1 || c.Flushes != 1 || c.Discards != 1 || c.Zeroes != 1 || c.WrittenBytes != 4096 {
			t.Fatalf("%+v", c)
		}
	})
}

// hold is a peer.on that swallows requests while it returns true.
func hold(swallow func(h *abi.Header) bool) func(*peer, *line, *abi.Header, []byte) bool {
	return func(_ *peer, _ *line, h *abi.Header, _ []byte) bool { return !swallow(h) }
}

// TestBrokenToEstablishedResendsWritesFirst is the order of recovery: writes
// that were unanswered, and only when they are answered the reads and what
// came while the link was down.
func TestBrokenToEstablishedResendsWritesFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(*abi.Header) bool { return true })
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		b.submit(trans.Read, 0, make([]byte, 512))
		b.submit(trans.Write, 512, pattern('a', 512))
		b.submit(trans.Flush, 0, nil)
		b.submit(trans.Write, 1024, pattern('b', 512))
		synctest.Wait()
		release := make(chan struct{})
		p.set(func(p *peer) {
			p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
				if h.Cmd == abi.MsgIO && h.Sector == 1 {
					go func() { <-release; _ = p.answer(l, h, data) }()
					return false
				}
				return true
			}
			p.log = nil
		})
		p.cut()
		time.Sleep(time.Second)
		b.submit(trans.Read, 2048, make([]byte, 512))
		b.state(t, abi.StateRecovery)
		if got := p.trace(); !slices.Equal(got, []string{"2 IO rw1 @1", "2 IO rw1 @2"}) {
			t.Fatalf("before the writes were answered: %q", got)
		}
		close(release)
		for range 5 {
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(errno)
			}
		}
		b.state(t, abi.StateEstablished)
		if got := p.trace()[2:]; !slices.Equal(got, []string{"2 IO rw0 @0", "2 FLUSH rw0 @0", "2 IO rw0 @4"}) {
			t.Fatalf("after them: %q", got)
		}
		if c := b.node.Counters(); c.Resent != 4 || c.Breaks != 1 || c.Connects != 2 {
			t.Fatalf("%+v", c)
		}
	})
}

func TestOverlappingWriteWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		release := make(chan struct{})
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			if data[0] == 'a' {
				go func() { <-release; _ = p.answer(l, h, data) }()
				return false
			}
			return true
		}
		b := start(t, p, nil)
		b.submit(trans.Write, 0, pattern('a', 1024))
		b.submit(trans.Write, 512, pattern('b', 1024))
		b.submit(trans.Write, 2048, pattern('c', 512))
		synctest.Wait()
		if got := p.trace(); !slices.Equal(got, []string{"1 IO rw1 @0", "1 IO rw1 @4"}) {
			t.Fatalf("%q", got)
		}
		close(release)
		for range 3 {
			b.wait()
		}
		if p.disk[512] != 'b' || p.disk[0] != 'a' {
			t.Fatalf("disk has %c and %c", p.disk[0], p.disk[512])
		}
	})
}

func TestEstablishedToBrokenWhenPeerIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		time.Sleep(time.Minute)
		b.state(t, abi.StateEstablished) // keepalives are life
		p.set(func(p *peer) { p.mute, p.dialErr = true, unix.EHOSTUNREACH })
		at := time.Now()
		for b.node.Status().State == abi.StateEstablished {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(at); d < 2*time.Second || d > 3*time.Second+time.Second/conn.Looks+20*time.Millisecond {
			t.Fatalf("noticed after %v", d)
		}
		if !b.was("no sign of life") {
			t.Fatalf("%+v", b.node.Status().Transitions)
		}
	})
}

// was reports whether a transition had a reason with these words.
func (b *bench) was(words string) bool {
	for _, tr := range b.node.Status().Transitions {
		if strings.Contains(tr.Reason, words) {
			return true
		}
	}
	return false
}

func TestBrokenToPauseDoublesUpToASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.refuse = &abi.Refuse{Code: abi.RefuseBusy, Errno: unix.EBUSY, Text: "host7 has it"}
		b := start(t, p, nil)
		time.Sleep(10 * time.Second)
		p.mu.Lock()
		n := len(p.hellos)
		last := p.hellos[n-1]
		p.refuse = nil
		p.mu.Unlock()
		if n < 10 || n > 22 {
			t.Fatalf("%d attempts in 10 s", n)
		}
		if last.Epoch != uint64(n) {
			t.Fatalf("epoch %d in attempt %d", last.Epoch, n)
		}
		if s := b.node.Status(); !strings.Contains(s.Reason, "host7 has it") {
			t.Fatalf("reason %q", s.Reason)
		}
		time.Sleep(1300 * time.Millisecond)
		b.state(t, abi.StateEstablished)
	})
}

// TestPauseCountsFromTheAttempt: a peer that does not answer a dial costs the
// dial's second, not that and a pause: it is found within about a second of its
// return.
func TestPauseCountsFromTheAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		var dials atomic.Int32
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) {
			p.dialHook = func() error {
				dials.Add(1)
				time.Sleep(time.Second)
				return unix.ETIMEDOUT
			}
		})
		p.cut()
		time.Sleep(20 * time.Second)
		if n := dials.Load(); n < 17 {
			t.Fatalf("%d attempts in 20 s", n)
		}
	})
}

func TestRecoveryToFailedWhenThePromiseIsBroken(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *abi.Welcome)
		before func(b *bench)
		fails  string
	}{
		{"verifier, unflushed", func(w *abi.Welcome) { w.Verifier[0]++ },
			func(b *bench) { b.do(trans.Write, 0, pattern('x', 512)) }, ""},
		{"verifier, discarded", func(w *abi.Welcome) { w.Verifier[0]++ },
			func(b *bench) { b.do(trans.Discard, 0, make([]byte, 512)) }, ""},
		{"verifier, flushed", func(w *abi.Welcome) { w.Verifier[0]++ },
			func(b *bench) { b.do(trans.Write, 0, pattern('x', 512)); b.do(trans.Flush, 0, nil) }, ""},
		{"verifier, only reads", func(w *abi.Welcome) { w.Verifier[0]++ },
			func(b *bench) { b.do(trans.Read, 0, make([]byte, 512)) }, ""},
		{"store", func(w *abi.Welcome) { w.StoreID[3]++ }, nil, "another store"},
		{"smaller", func(w *abi.Welcome) { w.Size -= 512 }, nil, "shrank"},
		{"larger", func(w *abi.Welcome) { w.Size += 512 }, nil, ""},
		{"tenure", func(w *abi.Welcome) { w.Tenure[1]++ }, nil, "another client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer()
				b := start(t, p, nil)
				if c.before != nil {
					c.before(b)
				}
				b.state(t, abi.StateEstablished)
				p.set(func(p *peer) { c.change(&p.welcome) })
				p.cut()
				time.Sleep(time.Second)
				if c.fails == "" {
					b.state(t, abi.StateEstablished)
					return
				}
				b.state(t, abi.StateFailed)
				if s := b.node.Status(); !strings.Contains(s.Reason, c.fails) {
					t.Fatalf("reason %q", s.Reason)
				}
				if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != unix.EIO {
					t.Fatalf("a failed device answered %v", errno)
				}
			})
		})
	}
}

// TestFlushCoversWhatWasAcknowledgedBeforeIt: a write acknowledged while the
// flush was on its way is not covered by it.
func TestFlushCoversWhatWasAcknowledgedBeforeIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		release := make(chan struct{})
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			if h.Cmd == abi.MsgFlush {
				go func() { <-release; _ = p.answer(l, h, data) }()
				return false
			}
			return true
		}
		b := start(t, p, nil)
		b.submit(trans.Flush, 0, nil)
		b.do(trans.Write, 0, pattern('x', 512))
		close(release)
		b.wait()
		if s := b.node.Status(); s.Unflushed != 1 {
			t.Fatalf("%d unflushed", s.Unflushed)
		}
	})
}

func TestFlushThatNeverSucceedsFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
			if h.Cmd != abi.MsgFlush {
				return true
			}
			p.set(func(p *peer) { p.welcome.Verifier[5]++ })
			_ = p.fail(l, h, unix.ENOSPC)
			l.Close()
			return false
		}
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Flush, 0, nil); errno != unix.EIO {
			t.Fatal(errno)
		}
		b.state(t, abi.StateFailed)
		if n := len(p.trace()); n != flushTries {
			t.Fatalf("the flush was sent %d times", n)
		}
	})
}

// TestFlushOutlivesExports: an export that dies before it answers has not failed,
// however often.
func TestFlushOutlivesExports(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, lives := newPeer(), 10
		p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
			if h.Cmd != abi.MsgFlush || lives == 0 {
				return true
			}
			lives--
			p.set(func(p *peer) { p.welcome.Verifier[5]++ })
			l.Close()
			return false
		}
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Flush, 0, nil); errno != 0 || lives != 0 {
			t.Fatal(errno, lives)
		}
	})
}

func TestFailAfterEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, func(c *Config) { c.FailAfter = 5 * time.Second })
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) { p.dialErr = unix.ECONNREFUSED })
		p.cut()
		at := time.Now()
		if errno, _ := b.do(trans.Write, 0, pattern('x', 512)); errno != unix.EIO {
			t.Fatal(errno)
		}
		if d := time.Since(at); d < 5*time.Second || d > 7*time.Second {
			t.Fatalf("after %v", d)
		}
		b.state(t, abi.StateFailed)
	})
}

func TestRequestTimeoutBreaksTheLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(h *abi.Header) bool { return true })
		b := start(t, p, func(c *Config) { c.RequestTimeout = 10 * time.Second })
		b.submit(trans.Read, 0, make([]byte, 512))
		time.Sleep(9 * time.Second)
		if b.was("not answered in time") {
			t.Fatal("too early")
		}
		p.set(func(p *peer) { p.on = nil })
		if errno, _ := b.wait(); errno != 0 {
			t.Fatal(errno)
		}
		if !b.was("not answered in time") {
			t.Fatalf("%+v", b.node.Status().Transitions)
		}
	})
}

// TestReplayWithoutRoom: what the export has lost and has no room for is offered
// again until it has, and nothing else is sent meanwhile.
func TestReplayWithoutRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, full := newPeer(), 5
		b := start(t, p, nil)
		b.do(trans.Write, 0, pattern('x', 512))
		p.set(func(p *peer) {
			p.welcome.Verifier[0]++
			clear(p.disk[:512])
			p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
				if full == 0 {
					return true
				}
				if h.Cmd != abi.MsgIO || h.RW&abi.RWWrite == 0 {
					t.Errorf("%v while the export has lost a write", h.Cmd)
				}
				full--
				_ = p.fail(l, h, unix.ENOSPC)
				return false
			}
		})
		p.cut()
		if _, data := b.do(trans.Read, 0, make([]byte, 512)); data[0] != 'x' || full != 0 {
			t.Fatalf("read %q, %d times without room to come", data[:1], full)
		}
		b.state(t, abi.StateEstablished)
	})
}

func TestErrorIsAnsweredAndNeverResent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = func(p *peer, l *line, h *abi.Header, _ []byte) bool {
			p.set(func(p *peer) { p.welcome.Verifier[0]++; p.on = nil })
			reply := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, Reserved: uint32(unix.ENOSPC)}
			reply.SetVerifier(p.welcome.Verifier)
			_ = l.send(reply, nil, digestNow())
			l.Close()
			return false
		}
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Write, 0, pattern('x', 512)); errno != unix.ENOSPC {
			t.Fatal(errno)
		}
		time.Sleep(time.Second)
		b.state(t, abi.StateEstablished)
		if n := len(p.trace()); n != 1 {
			t.Fatalf("the write was sent %d times", n)
		}
	})
}

func TestRestartedDaemonIsTheSameClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.do(trans.Write, 0, pattern('x', 512))
		b.node.Close()
		again := restart(t, p, b.page, func(c *Config) { c.ClientID = abi.ID{77} })
		again.state(t, abi.StateEstablished)
		if h := p.hellos[1]; h.ClientID != (abi.ID{9}) || h.Epoch != 2 || h.Tenure != p.welcome.Tenure {
			t.Fatalf("%+v", h)
		}
		again.node.Close()
		p.set(func(p *peer) {
			p.welcome.Verifier[0]++
			clear(p.disk)
		})
		third := restart(t, p, b.page, nil)
		third.state(t, abi.StateEstablished) // the first daemon's write was never flushed, and is there again
		if p.disk[0] != 'x' || third.node.Counters().Replayed != 1 {
			t.Fatalf("the disk begins with %q, %d replayed", p.disk[:1], third.node.Counters().Replayed)
		}
		third.node.Close()
		files.Delete(&b.page[0]) // the log is lost
		fourth := restart(t, p, b.page, nil)
		fourth.do(trans.Write, 4096, pattern('y', 512)) // a log of its own does not make up for it
		fourth.node.Close()
		p.set(func(p *peer) { p.welcome.Verifier[0]++ })
		fifth := restart(t, p, b.page, nil)
		fifth.state(t, abi.StateFailed)
		if s := fifth.node.Status(); !strings.Contains(s.Reason, "lost too") {
			t.Fatal(s.Reason)
		}
	})
}

// TestGhostIsMadeDurableBeforeItIsRead: a write that an earlier daemon had sent,
// and whose front will not send it again, is on the export's disk or not; what a
// read finds of it must stay, so it is flushed first.
func TestGhostIsMadeDurableBeforeItIsRead(t *testing.T) {
	for _, resent := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
				p.set(func(p *peer) { copy(p.disk[512:], data) })
				return h.RW&abi.RWWrite == 0
			}
			b := start(t, p, nil)
			b.submit(trans.Write, 512, pattern('w', 512))
			synctest.Wait()
			b.node.Close()
			b.wait()
			p.set(func(p *peer) { p.on, p.log = nil, nil })
			again := restart(t, p, b.page, func(c *Config) { c.Resent = resent })
			again.do(trans.Read, 4096, make([]byte, 512)) // nobody knows anything of that
			began := time.Now()
			if _, data := again.do(trans.Read, 0, make([]byte, 1024)); data[512] != 'w' {
				t.Fatalf("read %q", data[512:513])
			}
			if waited := time.Since(began); resent && waited < ghostTime-time.Second || !resent && waited > time.Second {
				t.Fatalf("the read waited %v (sent again: %v)", waited, resent)
			}
			if got := p.trace(); !slices.Contains(got, "2 FLUSH rw0 @0") || got[len(got)-1] != "2 IO rw0 @0" {
				t.Fatalf("%q", got)
			}
			again.node.Close()
		})
	}
}

// TestLogLostInAReplay: the export lives the life that the page knows, and never
// got back what it had lost in the one before.
func TestLogLostInAReplay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.do(trans.Write, 0, pattern('x', 512))
		b.node.Close()
		p.set(func(p *peer) { p.welcome.Verifier[0]++ })
		p.on = hold(func(*abi.Header) bool { return true })
		again := restart(t, p, b.page, nil)
		again.state(t, abi.StateRecovery)
		again.node.Close()
		files.Delete(&b.page[0])
		third := restart(t, p, b.page, nil)
		third.state(t, abi.StateFailed)
	})
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(*abi.Header) bool { return true })
		b := start(t, p, nil)
		b.submit(trans.Write, 0, pattern('x', 512))
		b.submit(trans.Write, 0, pattern('y', 512))
		synctest.Wait()
		b.node.Close()
		for range 2 {
			if errno, _ := b.wait(); errno != unix.ESHUTDOWN {
				t.Fatal(errno)
			}
		}
		if errno, _ := b.do(trans.Flush, 0, nil); errno != unix.ESHUTDOWN {
			t.Fatal(errno)
		}
		synctest.Wait() // the peer has taken the BYE and notes it
		if got := p.trace(); got[len(got)-1] != "1 BYE rw0 @0" {
			t.Fatalf("%q", got)
		}
	})
}

// TestStopKeepsThePlace: a daemon that ends goes without a BYE, which would give the
// read-write place away before its successor is there.
func TestStopKeepsThePlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.on = hold(func(h *abi.Header) bool { return h.Cmd == abi.MsgIO })
		b := start(t, p, nil)
		b.submit(trans.Write, 0, pattern('x', 512))
		synctest.Wait()
		b.node.Stop()
		if errno, _ := b.wait(); errno != unix.ESHUTDOWN {
			t.Fatal(errno)
		}
		p.serving.Wait() // the peer has seen the end of the connection
		if got := p.trace(); !slices.Equal(got, []string{"1 IO rw1 @0"}) {
			t.Fatalf("%q", got)
		}
		b.node.Close() // once more, and too late to say anything
		again := restart(t, p, b.page, nil)
		again.state(t, abi.StateEstablished)
		again.node.Close()
		p.serving.Wait()
		if got := p.trace(); got[len(got)-1] != "2 BYE rw0 @0" {
			t.Fatalf("%q", got)
		}
	})
}

// TestWindow: no more requests are on the wire than the export said.
func TestWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.welcome.Depth = 2
		release := make(chan struct{})
		p.on = func(p *peer, l *line, h *abi.Header, data []byte) bool {
			go func() { <-release; _ = p.answer(l, h, data) }()
			return false
		}
		b := start(t, p, nil)
		for i := range 5 {
			b.submit(trans.Read, uint64(i)*512, make([]byte, 512))
		}
		synctest.Wait()
		if n := len(p.trace()); n != 2 {
			t.Fatalf("%d on the wire", n)
		}
		close(release)
		for range 5 {
			b.wait()
		}
	})
}
