package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an NBD server of one connection, in memory. What came together it answers together, the last request first.
type server struct {
	path  string
	mem   []byte
	spoil func(reply []byte)    // may change a reply's head
	stop  func(n int) bool      // tells whether to go away before the nth request
	hello func(b []byte) []byte // what it says first; if that is short, it says no more

	done sync.WaitGroup
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.done.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if s.handshake(c) == nil {
			s.serve(c)
		}
	})
	t.Cleanup(func() { l.Close(); s.done.Wait() })
}

// handshake takes GO of whatever name.
func (s *server) handshake(c net.Conn) error {
	be := binary.BigEndian
	b := append([]byte("NBDMAGICIHAVEOPT"), 0, 3)
	if s.hello != nil {
		b = s.hello(b)
	}
	if _, err := c.Write(b); err != nil || len(b) < 18 {
		return io.ErrShortWrite
	}
	head := make([]byte, 4+16)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, int64(be.Uint32(head[16:]))); err != nil {
		return err
	}
	reply := func(kind uint32, body []byte) []byte {
		r := be.AppendUint64(nil, 0x3e889045565a9)
		r = be.AppendUint32(r, 7)
		r = be.AppendUint32(r, kind)
		return append(be.AppendUint32(r, uint32(len(body))), body...)
	}
	info := be.AppendUint64([]byte{0, 0}, uint64(len(s.mem)))
	b = reply(3, be.AppendUint16(info, 1))
	b = append(b, reply(3, []byte{0, 2, 'x'})...)
	_, err := c.Write(append(b, reply(1, nil)...))
	return err
}

func (s *server) serve(c net.Conn) {
	in := bufio.NewReaderSize(c, 1<<20)
	var replies [][]byte
	for n := 0; s.stop == nil || !s.stop(n); n++ {
		r := s.reply(in)
		if r == nil {
			return
		}
		if s.spoil != nil {
			s.spoil(r)
		}
		if replies = append(replies, r); in.Buffered() > 0 {
			continue
		}
		slices.Reverse(replies)
		if _, err := c.Write(slices.Concat(replies...)); err != nil {
			return
		}
		replies = replies[:0]
	}
}

// reply carries out one request; nil at the end.
func (s *server) reply(in io.Reader) []byte {
	be := binary.BigEndian
	head := make([]byte, requestSize)
	if _, err := io.ReadFull(in, head); err != nil || be.Uint16(head[6:]) == 2 {
		return nil
	}
	r := be.AppendUint32(nil, 0x67446698)
	r = be.AppendUint32(r, 0)
	r = append(r, head[8:16]...)
	at := s.mem[be.Uint64(head[16:]):][:be.Uint32(head[24:])]
	if be.Uint16(head[6:]) == 0 {
		return append(r, at...)
	}
	if _, err := io.ReadFull(in, at); err != nil {
		return nil
	}
	return r
}

// connected is an engine on a connection to s.
func connected(t *testing.T, s *server) *engine {
	t.Helper()
	s.start(t)
	c, err := dial(s.path, "any")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	t.Cleanup(c.leave)
	return newEngine(c, newPattern())
}

func TestEngine(t *testing.T) {
	s := &server{mem: make([]byte, 4<<20)}
	e := connected(t, s)
	if e.c.size != 4<<20 {
		t.Fatalf("the device has %d bytes", e.c.size)
	}
	size := e.c.size
	for _, j := range []job{
		{shape: shape{"write", blockMax, 16, false}, area: size, count: size / blockMax, gen: genVerified},
		{shape: shape{"read", blockMax, 16, false}, area: size, count: 2 * size / blockMax, gen: genVerified, check: true},
		{shape: shape{"read", blockMin, 64, true}, area: size, count: 500, gen: genVerified, check: true},
		{shape: shape{"write", blockMin, 1, true}, area: size, count: 20, gen: genVerified},
		{shape: shape{"read", blockMin, 1, true}, area: size, count: 20, gen: genVerified, check: true},
	} {
		if err := e.run(j); err != nil {
			t.Fatalf("%v: %v", j.shape, err)
		}
		if e.issued != j.count || len(e.free) != j.depth {
			t.Errorf("%v: %d requests, %d of %d slots free", j.shape, e.issued, len(e.free), j.depth)
		}
	}
	e.c.leave()
	s.done.Wait()
	for off := uint64(0); off < size; off += blockMax {
		if !e.p.known(s.mem[off:off+blockMax], off, genVerified) {
			t.Fatalf("the server has something else at %d", off)
		}
	}
}

func TestEngineByTheClock(t *testing.T) {
	s := &server{mem: make([]byte, 1<<20)}
	e := connected(t, s)
	var said []string
	k := &clock{warm: time.Millisecond, time: 20 * time.Millisecond,
		begin: func() error { said = append(said, "begin"); return nil },
		end:   func() error { said = append(said, "end"); return nil }}
	if err := e.run(job{shape: shape{"read", blockMin, 16, true}, area: 1 << 20, clock: k}); err != nil {
		t.Fatal(err)
	}
	if len(said) != 2 || said[0] != "begin" || said[1] != "end" {
		t.Errorf("the clock was told %q", said)
	}
	if k.elapsed < k.time || k.latency.total == 0 || k.latency.total > e.issued || len(e.free) != 16 {
		t.Errorf("%d of %d requests counted in %v", k.latency.total, e.issued, k.elapsed)
	}
	if k.latency.quantile(.5) <= 0 {
		t.Error("answers came before the requests")
	}
	want := errors.New("no such process")
	k.begin = func() error { return want }
	if err := e.run(job{shape: shape{"read", blockMin, 16, true}, area: 1 << 20, clock: k}); !errors.Is(err, want) {
		t.Errorf("the clock's error: %v", err)
	}
}

func TestEngineNoticesFaults(t *testing.T) {
	head := func(at int, b byte) func([]byte) { return func(r []byte) { r[at] = b } }
	tests := []struct {
		name string
		s    server
		want error
	}{
		{"wrong magic", server{spoil: head(0, 1)}, unix.EPROTO},
		{"unknown cookie", server{spoil: head(8, 1)}, unix.EPROTO},
		{"cookie beyond the slots", server{spoil: head(15, 200)}, unix.EPROTO},
		{"an error", server{spoil: head(7, byte(unix.EIO))}, unix.EIO},
		{"wrong data", server{spoil: func(r []byte) { r[len(r)-1] ^= 1 }}, unix.EBADMSG},
		{"gone at once", server{stop: func(n int) bool { return n == 0 }}, nil},
		{"gone later", server{stop: func(n int) bool { return n == 5 }}, nil},
	}
	for i := range tests {
		tt := &tests[i]
		t.Run(tt.name, func(t *testing.T) {
			tt.s.mem = make([]byte, 1<<20)
			copy(tt.s.mem, newPattern().at(0, genInitial, blockMin))
			e := connected(t, &tt.s)
			err := e.run(job{shape: shape{"read", blockMin, 8, false}, area: blockMin, count: 100, check: true})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestEngineRefusesJobs(t *testing.T) {
	e := connected(t, &server{mem: make([]byte, 1<<20)})
	for _, j := range []job{
		{shape: shape{"read", blockMin, 0, false}, area: 1 << 20, count: 1},
		{shape: shape{"read", blockMin, depthMax + 1, false}, area: 1 << 20, count: 1},
		{shape: shape{"read", blockMax + 1, 1, false}, area: 1 << 20, count: 1},
		{shape: shape{"read", blockMin, 1, false}, area: blockMin - 1, count: 1},
	} {
		if err := e.run(j); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%v below %d: %v", j.shape, j.area, err)
		}
	}
}

func TestInterrupt(t *testing.T) {
	e := connected(t, &server{mem: make([]byte, 1<<20)})
	forever := &clock{time: time.Hour, begin: func() error { return nil }, end: func() error { return nil }}
	broken := make(chan error)
	go func() { broken <- e.run(job{shape: shape{"read", blockMin, 8, false}, area: 1 << 20, clock: forever}) }()
	e.c.interrupt()
	if err := <-broken; err == nil {
		t.Error("the job went on")
	}
}

func TestHandshakeFaults(t *testing.T) {
	for name, hello := range map[string]func([]byte) []byte{
		"another protocol": func(b []byte) []byte { b[0] = 'X'; return b },
		"oldstyle":         func(b []byte) []byte { b[8] = 'X'; return b },
		"not fixed":        func(b []byte) []byte { b[17] = 0; return b },
		"short":            func(b []byte) []byte { return b[:10] },
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{mem: make([]byte, 1<<20), hello: hello}
			s.start(t)
			if c, err := dial(s.path, "any"); err == nil {
				c.close()
				t.Error("the client is content")
			}
		})
	}
	if _, err := dial(filepath.Join(t.TempDir(), "none"), "any"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("nobody listens: %v", err)
	}
}
