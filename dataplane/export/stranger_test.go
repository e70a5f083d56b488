package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// message1 is a client's first message with k.
func message1(t testing.TB, k *crypt.Key) []byte {
	t.Helper()
	_, b, err := crypt.Initiate(k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestN13NoWayBack: who speaks in clear where keys are, or the other way round,
// hears nothing at all, and the log says which end lacks a key.
func TestN13NoWayBack(t *testing.T) {
	_, disk := memDisk(1 << 20)
	_, other := memDisk(1 << 20)
	k := gcmKey(t, 1)
	keyedWorld, plain := keyed(t, Config{}, disk, k), newWorld(t, Config{}, other)
	hello := helloOf(1, 1, abi.PermRW)
	b := hello.Append(nil)
	for name, said := range map[string][]byte{
		"mark":             firstWords(),
		"mark and HELLO":   append(firstWords(), frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)...),
		"HELLO alone":      frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b),
		"an original's":    make([]byte, abi.HeaderSize),
		"a web client":     []byte("GET / HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\n\r\n"),
		"mark, then a key": append(firstWords(), message1(t, k)...),
	} {
		want(t, "bytes for "+name, keyedWorld.silence(said), 0)
	}
	if why := keyedWorld.refusal(); !strings.Contains(why, "a key") {
		t.Errorf("the export with keys says %q", why)
	}
	want(t, "AuthErrors", keyedWorld.Counters().AuthErrors, 6)
	want(t, "bytes where no keys are", plain.silence(message1(t, k)), 0)
	if why := plain.refusal(); !strings.Contains(why, "this export none") {
		t.Errorf("the export without keys says %q", why)
	}
	want(t, "FLUSH", keyedWorld.served(k, hello).flush(), 0)
}

// TestN15WrongKeys: an unknown key id, a known one without its key, swapped keys,
// another suite of the same bytes, a key for another export, an unknown export and
// a rule against it end alike: without a byte behind the handshake, after about the
// same time.
func TestN15WrongKeys(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k := keyOf(t, "cbc(aes)", "hmac(sha256)", 1)
	w := keyed(t, Config{}, disk, k, gcmKey(t, 2))
	if err := errors.Join(w.DelRule(anyone(0)), w.AddRule(abi.Rule{Kind: abi.RuleKindAny, Perm: abi.PermRW, Key: k.ID()})); err != nil {
		t.Fatal(err)
	}
	forged := message1(t, gcmKey(t, 3))
	id := gcmKey(t, 2).ID()
	copy(forged[6:], id[:])
	unknown := func() error { _, err := w.with(gcmKey(t, 3), helloOf(1, 1, abi.PermRW)); return err }
	cases := map[string]func() error{
		"unknown id": unknown,
		"another suite": func() error {
			_, err := w.with(keyOf(t, "ctr(aes)", "hmac(sha256)", 1), helloOf(1, 1, abi.PermRW))
			return err
		},
		"known id, not its key": func() error {
			if n := w.silence(forged); n != 0 {
				return fmt.Errorf("%d bytes", n)
			}
			return io.EOF
		},
		"a key that no rule allows": func() error { _, err := w.with(gcmKey(t, 2), helloOf(1, 1, abi.PermRW)); return err },
		"unknown export": func() error {
			h := helloOf(1, 1, abi.PermRW)
			h.Export = "vol1"
			_, err := w.with(k, h)
			return err
		},
	}
	for name, try := range cases {
		var took []time.Duration
		for range 9 {
			began := time.Now()
			if err := try(); !ended(err) {
				t.Errorf("%s: %v", name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("%s: %v", name, took[len(took)/2])
		if took[len(took)/2] > 100*time.Millisecond {
			t.Errorf("%s: it took %v", name, took[len(took)/2])
		}
	}
	want(t, "AuthErrors", w.Counters().AuthErrors, 3*9)
	want(t, "refused", w.Counters().Refused, 5*9)
	want(t, "FLUSH with the right one", w.served(k, helloOf(1, 1, abi.PermRW)).flush(), 0)
}

// TestN15RefusalsAreToldNowAndThen: ids that change with every try are no news.
func TestN15RefusalsAreToldNowAndThen(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := keyed(t, Config{}, disk, gcmKey(t, 1))
	b := message1(t, gcmKey(t, 2))
	for i := range 50 {
		b[6] = byte(i)
		want(t, "bytes", w.silence(b), 0)
		if i > 0 {
			continue
		}
		if why := w.refusal(); !strings.Contains(why, "unknown key") || !strings.Contains(why, "key id 00") {
			t.Errorf("told %q", why)
		}
	}
	want(t, "other events", len(w.events), 0)
	want(t, "AuthErrors", w.Counters().AuthErrors, 50)
}

// recordedStream is all that a client with k said in a session with an export of
// the same name and key, in another life of it, and how much of it is message 1.
func recordedStream(t *testing.T, k *crypt.Key, h abi.Hello) (said []byte, first int) {
	_, disk := memDisk(1 << 20)
	w := keyed(t, Config{}, disk, k)
	c := w.dial()
	kept := &tap{Stream: c.st}
	c.st = kept
	if err := c.prove(k); err != nil {
		t.Fatal(err)
	}
	first = kept.out.Len()
	h.Digest = "none"
	c.hello = h
	b := h.Append(nil)
	if _, err := c.st.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)); err != nil {
		t.Fatal(err)
	}
	if err := c.answer(); err != nil {
		t.Fatal(err)
	}
	want(t, "WRITE", c.write(0, pattern(4096, 1), 0), 0)
	want(t, "FLUSH", c.flush(), 0)
	_ = c.st.Close()
	return kept.out.Bytes(), first
}

// TestN15Replay: message 1 and the whole of a recorded session, a hundred times
// each: nothing is looked up, nobody is fenced, the store is not touched and the
// holder of the place does not notice.
func TestN15Replay(t *testing.T) {
	k := gcmKey(t, 1)
	newer := helloOf(1, 1000, abi.PermRW)
	newer.Steal = true
	said, first := recordedStream(t, k, newer)
	m, disk := memDisk(1 << 20)
	calls := recorded(m)
	w := keyed(t, Config{}, disk, k)
	holder := w.served(k, helloOf(1, 1, abi.PermRW))
	want(t, "WRITE of the holder", holder.write(0, pattern(4096, 7), 0), 0)
	before := len(calls())
	backwards := slices.Clone(said)
	slices.Reverse(backwards[first:])
	for range 100 {
		for _, b := range [][]byte{said, backwards} {
			want(t, "bytes for the replay", min(w.silence(b), crypt.ReplySize), crypt.ReplySize)
		}
		c := w.dial()
		if _, err := c.st.Write(said[:first]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.st, make([]byte, crypt.ReplySize)); err != nil {
			t.Fatalf("answer to message 1: %v", err)
		}
		_ = c.st.Close()
	}
	eventually(t, "all is counted", func() bool { return w.Counters().Refused == 300 })
	want(t, "AuthErrors", w.Counters().AuthErrors, 200)
	want(t, "calls of the store", len(calls()), before)
	want(t, "connects", w.Counters().Connects, 1)
	want(t, "FLUSH of the holder", holder.flush(), 0)
	wantBytes(t, "block", m.bytes(0, 4096), pattern(4096, 7))
}

// TestN15Reflection: what the export says does not pass for a client's word, nor do
// the records of one connection on another.
func TestN15Reflection(t *testing.T) {
	m, disk := memDisk(1 << 20)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	calls := recorded(m)
	said, first := recordedStream(t, k, helloOf(1, 1, abi.PermRW))
	c := w.dial()
	if _, err := c.st.Write(message1(t, k)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, crypt.ReplySize)
	if _, err := io.ReadFull(c.st, answer); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"its own answer": answer, "another connection's records": said[first:]} {
		c := w.dial()
		if _, err := c.st.Write(message1(t, k)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.st.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.st.(*conn.Sock).SetWriteDeadline(time.Now())
		if got, err := io.ReadAll(c.st); len(got) > crypt.ReplySize || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	want(t, "calls of the store", len(calls()), 0)
	want(t, "sessions", len(w.Status().Sessions), 0)
	eventually(t, "it is counted", func() bool { return w.Counters().AuthErrors == 2 })
}

// TestN12EveryFlippedByte: a changed byte of the handshake, or of the first record,
// ends it without a WELCOME.
func TestN12EveryFlippedByte(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	whole := message1(t, k)
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1 << (i % 8)
		c := w.dial()
		if _, err := c.st.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.st.(*conn.Sock).SetReadDeadline(time.Now().Add(20 * time.Second))
		if i == 15 && binary.BigEndian.Uint16(b[14:]) > uint16(len(whole)-16) {
			_ = c.st.Close() // it waits for what was announced
			continue
		}
		if got, err := io.ReadAll(c.st); len(got) != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("byte %d of message 1 wrong: %d bytes, %v", i, len(got), err)
		}
	}
	h := helloOf(1, 1, abi.PermRW)
	attrs := h.Append(nil)
	hello := frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)
	for i := range len(hello) + 20 {
		c := w.dial()
		bad := &flip{Stream: c.st, at: len(whole) + i}
		c.st = bad
		if err := c.prove(k); err != nil {
			t.Fatal(err)
		}
		if _, err := c.st.Write(hello); err != nil {
			t.Fatal(err)
		}
		if i < 3 { // its length: the export may wait for more
			_ = bad.Close()
			continue
		}
		if got, err := io.ReadAll(c.st); len(got) != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("byte %d of record 0 wrong: %d bytes, %v", i, len(got), err)
		}
		_ = bad.Close()
	}
	want(t, "sessions", len(w.Status().Sessions), 0)
}

// flip is a stream that changes one of the bytes that are written to it.
type flip struct {
	conn.Stream
	n, at int
}

func (f *flip) Write(b []byte) (int, error) {
	if at := f.at - f.n; at >= 0 && at < len(b) {
		b = bytes.Clone(b)
		b[at] ^= 0x10
	}
	f.n += len(b)
	return f.Stream.Write(b)
}

// TestN10SecureHandshakeCutAtEveryByte: the client goes after each byte of its
// message and of its HELLO, three times.
func TestN10SecureHandshakeCutAtEveryByte(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	first := len(message1(t, k))
	h := helloOf(1, 1, abi.PermRW)
	h.Digest = "none"
	attrs := h.Append(nil)
	hello := frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)
	for range 3 {
		for n := range first + len(hello) + 19 {
			c := w.dial()
			c.st = &short{Stream: c.st, left: n}
			if err := c.prove(k); err == nil {
				_, _ = c.st.Write(hello)
			}
			_ = c.st.Close()
			if n%10 == 9 {
				w.quiet()
			}
		}
	}
	w.quiet()
	want(t, "sessions", len(w.Status().Sessions), 0)
	want(t, "FLUSH", w.served(k, helloOf(1, 1, abi.PermRW)).flush(), 0)
}

// short is a stream that is closed after so many written bytes.
type short struct {
	conn.Stream
	left int
}

func (s *short) Write(b []byte) (int, error) {
	n := min(s.left, len(b))
	s.left -= n
	if _, err := s.Stream.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < len(b) {
		_ = s.Stream.Close()
		return n, io.ErrClosedPipe
	}
	return n, nil
}

// quiet waits until no connection is half-open.
func (w *world) quiet() {
	w.t.Helper()
	eventually(w.t, "half-open ones are gone", func() bool { return w.halfOpen() == 0 })
}

// halfOpen is how many connections are.
func (w *world) halfOpen() int {
	w.ports.mu.Lock()
	defer w.ports.mu.Unlock()
	return len(w.ports.mu.open)
}

// count is a stream that counts what is read from it.
type count struct {
	conn.Stream
	n atomic.Int64
}

func (c *count) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// TestN05BytesBeforeAuthentication: however much a stranger announces and sends, not
// much more than a KiB is read of it.
func TestN05BytesBeforeAuthentication(t *testing.T) {
	k := gcmKey(t, 1)
	huge := message1(t, k)
	binary.BigEndian.PutUint16(huge[14:], 0xffff)
	longest := message1(t, k)
	binary.BigEndian.PutUint16(longest[14:], 256)
	helloOfSize := func(n uint32) []byte {
		b := make([]byte, abi.HeaderSize+4)
		h := abi.Header{Cmd: abi.MsgHello, CSize: 4, Size: n}
		h.Put(b)
		crypt.DigestCRC32C.Seal(b, nil)
		return append(firstWords(), b...)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			keys  []*crypt.Key
			first []byte
			most  int64
		}{
			{"a message of 64 KiB", []*crypt.Key{k}, huge, crypt.HandshakeHead},
			{"the longest message", []*crypt.Key{k}, longest, crypt.HandshakeMax},
			{"a record of 16 MiB", []*crypt.Key{k}, append(message1(t, k), 0xff, 0xff, 0xff, 0), crypt.HandshakeMax + 2048},
			{"a HELLO of 4 GiB", nil, helloOfSize(1<<32 - 1), 1024},
			{"the longest HELLO", nil, helloOfSize(4 + abi.HelloMax), 1024 + abi.HeaderSize},
		} {
			_, disk := memDisk(1 << 20)
			p := newPiped(t, Config{Keys: tt.keys}, disk)
			near, far := net.Pipe()
			c := &count{Stream: far}
			go io.Copy(io.Discard, near)
			p.at.receive(c, from("10.0.0.1"))
			_, err := near.Write(tt.first)
			for junk := make([]byte, 4096); err == nil; {
				_, err = near.Write(junk)
			}
			near.Close()
			synctest.Wait()
			if n := c.n.Load(); n > tt.most {
				t.Errorf("%s: %d bytes were read", tt.name, n)
			}
			p.end()
		}
	})
}

// TestN09SlowClients: a byte every so often is no progress, with keys and without.
func TestN09SlowClients(t *testing.T) {
	k := gcmKey(t, 1)
	for name, first := range map[string][]byte{"nothing": nil, "a key's": message1(t, k), "mark": firstWords()} {
		synctest.Test(t, func(t *testing.T) {
			_, disk := memDisk(1 << 20)
			var keys []*crypt.Key
			if name != "mark" {
				keys = append(keys, k)
			}
			p := newPiped(t, Config{Keys: keys}, disk)
			defer p.end()
			near, far := net.Pipe()
			done := make(chan struct{})
			defer func() { near.Close(); <-done }()
			began := time.Now()
			p.at.receive(far, from("10.0.0.1"))
			go func() {
				defer close(done)
				for i := range first {
					if _, err := near.Write(first[i : i+1]); err != nil {
						return
					}
					time.Sleep(4 * time.Second)
				}
			}()
			n, err := near.Read(make([]byte, 100))
			if n != 0 || err == nil || time.Since(began) != handshakeTime {
				t.Errorf("%s: %d bytes, %v after %v", name, n, err, time.Since(began))
			}
		})
	}
}

// TestN11ShutdownWithHalfOpen: a hundred strangers that say nothing, or half of it,
// hold nothing up.
func TestN11ShutdownWithHalfOpen(t *testing.T) {
	k := gcmKey(t, 1)
	for _, keys := range [][]*crypt.Key{nil, {k}} {
		virtual(t, Config{Keys: keys}, func(t *testing.T, p *piped) {
			words := firstWords()
			if len(keys) > 0 {
				words = message1(t, k)
			}
			var all []net.Conn
			for i := range 100 {
				near, far := net.Pipe()
				p.at.receive(far, from(fmt.Sprintf("10.0.0.%d", i/10)))
				if _, err := near.Write(words[:i%40]); err != nil {
					t.Fatal(err)
				}
				all = append(all, near)
			}
			p.at.ports.mu.Lock()
			half := len(p.at.ports.mu.open)
			p.at.ports.mu.Unlock()
			want(t, "half-open", half, 100)
			began := time.Now()
			if err := p.Close(true); err != nil {
				t.Error(err)
			}
			p.at.ports.Close()
			want(t, "time", time.Since(began), 0)
			for _, near := range all {
				if n, err := near.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			}
		})
	}
}
