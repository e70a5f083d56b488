package export

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// TestUnfinishedErasureIsNotAcknowledged: an erasure stops where its session
// ended, between the moment that end marks it dead and the one that breaks its
// connection. Nobody may be told that all of it was done.
func TestUnfinishedErasureIsNotAcknowledged(t *testing.T) {
	for _, flags := range []uint64{0, abi.FlagFUA} {
		m, disk := memDisk(64 << 20)
		w := newWorld(t, Config{}, disk)
		var chunks atomic.Int32
		m.setGate(func(call string, _, _ uint64) error {
			if call == "zero" && chunks.Add(1) == 1 {
				w.holder().Owner.(*session).dead.Store(true) // the first step of end
			}
			return nil
		})
		c := w.client(helloOf(1, 1, abi.PermRW))
		s := w.holder().Owner.(*session)
		if err := c.send(abi.Header{Cmd: abi.MsgWriteZeroes, Size: 64 << 20, Flags: flags}, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the erasure is over", func() bool {
			n, _ := s.load()
			return chunks.Load() == 1 && n == 0
		})
		s.end(errors.New("the rest of end"))
		if h, _, err := c.reply(); err == nil {
			t.Errorf("flags %d: %v for %d of 4 chunks", flags, h.Errno(), chunks.Load())
		}
		w.end()
	}
}

// TestLongErasureStopsWithTheRight: what is left of one is not done for a client
// that lost the right to write, which is told so, and served on.
func TestLongErasureStopsWithTheRight(t *testing.T) {
	yes := true
	for what, take := range map[string]func(w *world) error{
		"export read-only": func(w *world) error { return w.Set(nil, nil, &yes) },
		"rule says ro":     func(w *world) error { return w.AddRule(anyone(abi.PermRead)) },
	} {
		for _, cmd := range []abi.Msg{abi.MsgDiscard, abi.MsgWriteZeroes} {
			m, disk := memDisk(4 * EraseChunk)
			w := newWorld(t, Config{}, disk)
			second, release := make(chan struct{}), make(chan struct{})
			var parts atomic.Int32
			m.setGate(func(call string, _, _ uint64) error {
				if (call == "discard" || call == "zero") && parts.Add(1) == 2 {
					close(second)
					<-release
				}
				return nil
			})
			c := w.client(helloOf(1, 1, abi.PermRW))
			if err := c.send(abi.Header{Cmd: cmd, ID: 7, Size: 4 * EraseChunk, Flags: abi.FlagFUA}, nil); err != nil {
				t.Fatal(err)
			}
			<-second
			if err := take(w); err != nil {
				t.Fatal(err)
			}
			close(release)
			h, _, err := c.reply()
			if err != nil || h.ID != 7 || h.Errno() != unix.EPERM || h.Verifier() != c.welcome.Verifier {
				t.Errorf("%s, %v: %v, %v", what, cmd, h.Errno(), err)
			}
			if n := parts.Load(); n != 2 {
				t.Errorf("%s, %v: %d parts were done", what, cmd, n)
			}
			_, errno := c.read(0, 512)
			want(t, "READ after it", errno, 0)
			want(t, "WRITE after it", c.write(0, pattern(512, 1), 0), unix.EPERM)
		}
	}
}

// TestDeadSessionKeepsNoWorker: who ran a flush of the store goes on with the next
// one, of others, but not when its own session has ended: that would wait for as long
// as their flushes overlap.
func TestDeadSessionKeepsNoWorker(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Flags: abi.NodeFlagShared}, disk)
	begun, goOn := make(chan struct{}), make(chan struct{})
	m.setGate(func(call string, _, _ uint64) error {
		if call == "flush" {
			begun <- struct{}{}
			<-goOn
		}
		return nil
	})
	a, b := w.client(helloOf(1, 1, abi.PermRW)), w.client(helloOf(2, 1, abi.PermRW))
	for _, c := range []*client{a, b} {
		if err := c.send(abi.Header{Cmd: abi.MsgFlush}, nil); err != nil {
			t.Fatal(err)
		}
		if c == a {
			<-begun
		}
	}
	eventually(t, "the other's waits for the next", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.core.joined.head != nil
	})
	_ = a.st.Close()
	eventually(t, "its end is noticed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.sessions[0].dead.Load()
	})
	goOn <- struct{}{}
	<-begun
	eventually(t, "the session is over", func() bool { return len(w.Status().Sessions) == 1 })
	goOn <- struct{}{}
	h, _, err := b.reply()
	if err != nil || h.Errno() != 0 {
		t.Errorf("FLUSH of the other: %v, %v", h.Errno(), err)
	}
}

// TestWaitingClientsAreNotHalfOpen: clients that wait for the fence of an export
// whose disk is stuck take no place from those of others on the same address.
func TestWaitingClientsAreNotHalfOpen(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Keepalive: 20 * time.Millisecond}, disk)
	begun, release := held(m)
	_, other := memDisk(1 << 20)
	n, err := New(Config{Name: "vol1", Listen: w.Addrs(), Digest: crypt.DigestCRC32C, Keys: keysNow()}, w.env(other))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(true)
	if err := errors.Join(n.AddRule(anyone(abi.PermRW)), n.Start()); err != nil {
		t.Fatal(err)
	}
	c := w.client(helloOf(1, 1, abi.PermRW))
	if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	defer close(release)
	for i := range byte(halfOpenEach) {
		h := helloOf(i+2, 1, abi.PermRW)
		h.Steal = true
		c := w.dial()
		if err := c.say(h); err != nil {
			t.Fatal(err)
		}
		if h, _, err := recvFrame(c.st, crypt.DigestCRC32C); err != nil || h.Cmd != abi.MsgDraining {
			t.Fatalf("while the fence waits: %v, %v", h.Cmd, err)
		}
	}
	h := helloOf(1, 1, abi.PermRW)
	h.Export = "vol1"
	c = w.dial()
	if err := c.greet(h); err != nil {
		t.Errorf("the client of the other export: %v", err)
	}
}

// TestDamagedSizeBreaksTheConnection: a WRITE that seems too large because its
// header was damaged on the way is no invalid request.
func TestDamagedSizeBreaksTheConnection(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{MaxPages: 1}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	b := frame(c.digest, abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 4 + 512, ID: 7}, pattern(512, 1))
	b[5] ^= 1 // of the size: 64 KiB more
	b = append(b, pattern(64<<10, 2)...)
	if _, err := c.st.Write(b); err != nil {
		t.Fatal(err)
	}
	if h, _, err := c.reply(); err == nil {
		t.Errorf("answered %v (%v), want a closed connection", h.Errno(), h.ID)
	}
	eventually(t, "it was counted", func() bool { return w.Counters().DigestErrors == 1 })
}

// TestPartingClientDoesNotHoldUpTheEnd: nor does one that was told of an error and
// stays, however long its keepalive.
func TestPartingClientDoesNotHoldUpTheEnd(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Keepalive: time.Hour}, disk)
	m.setGate(func(call string, _, _ uint64) error {
		if call == "write" {
			return unix.EIO
		}
		return nil
	})
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "WRITE", c.write(0, pattern(512, 1), 0), unix.EIO)
	began := time.Now()
	if err := w.Close(true); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		t.Errorf("the store is still open %v later", time.Since(began))
	}
}
