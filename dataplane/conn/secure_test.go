package conn_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"

	"golang.org/x/sys/unix"
)

// tampered is a stream whose writer meets an attacker at byte at: he flips a bit of
// it, or cuts the connection there.
type tampered struct {
	conn.Stream
	at, sent int
	cut      bool
	tape     []byte // all that was written
}

func (s *tampered) Write(p []byte) (int, error) {
	s.tape = append(s.tape, p...)
	p = slices.Clone(p)
	if i := s.at - s.sent; i >= 0 && i < len(p) {
		if s.cut {
			_, _ = s.Stream.Write(p[:i])
			_ = s.Close()
			return i, io.ErrClosedPipe
		}
		p[i] ^= 1 << (s.at % 8)
	}
	n, err := s.Stream.Write(p)
	s.sent += n
	return n, err
}

// said is what the ends say to each other in turns, the client first.
var said = [][]byte{
	bytes.Repeat([]byte("hello "), 12), []byte("welcome"), bytes.Repeat([]byte("write "), 40), []byte("written"), []byte("x"), bytes.Repeat([]byte("y"), 33),
}

// talk says the lines of one end and hears those of the other. What is heard is
// right, or the test fails.
func talk(t *testing.T, s *conn.Secure, client bool) error {
	for i, line := range said {
		if client == (i%2 == 0) {
			if _, err := s.Write(line); err != nil {
				return err
			}
			continue
		}
		heard := make([]byte, len(line))
		n, err := io.ReadFull(s, heard)
		if !bytes.Equal(heard[:n], line[:n]) {
			t.Errorf("heard %q, said was %q", heard[:n], line)
		}
		if err != nil {
			return err
		}
		if err := s.Ready(); err != nil {
			return err
		}
	}
	return nil
}

// session is a whole connection over a and b, each with the same key, and its end
// at both ends. Nobody waits longer than five seconds.
func session(t *testing.T, k *crypt.Key, a, b conn.Stream) (client, export error) {
	end := func(st conn.Stream, shake func() (*conn.Secure, error), first bool) error {
		defer func() { _ = st.Close() }()
		late := time.Now().Add(5 * time.Second)
		if err := errors.Join(st.SetReadDeadline(late), st.SetWriteDeadline(late)); err != nil {
			return err
		}
		s, err := shake()
		if err != nil {
			return err
		}
		defer s.Free()
		return talk(t, s, first)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		client = end(a, func() (*conn.Secure, error) { return conn.Initiate(a, k, nil) }, true)
	})
	wg.Go(func() {
		export = end(b, func() (*conn.Secure, error) {
			s, _, err := conn.Respond(b, func(abi.KeyID) *crypt.Key { return k }, nil)
			return s, err
		}, false)
	})
	wg.Wait()
	return client, export
}

// TestN12EveryByte: a bit flipped in, and a cut before, each byte of a whole
// session, in both directions: an error, and never a wrong byte. (Where it is cut
// does not depend on the suite.)
func TestN12EveryByte(t *testing.T) {
	for i, s := range []crypt.Suite{suite(t, "", ""), suite(t, "cbc(aes)", "hmac(sha256)")} {
		k := conntest.Key(t, s, 1)
		lengths := [2]int{}
		run := func(at, way int, cut bool) (client, export error) {
			synctest.Test(t, func(t *testing.T) {
				a, b := conntest.Pipe()
				ends := [2]*tampered{{Stream: a, at: -1}, {Stream: b, at: -1}}
				ends[way].at, ends[way].cut = at, cut
				client, export = session(t, k, ends[0], ends[1])
				lengths[way] = len(ends[way].tape)
			})
			return client, export
		}
		for way := range 2 {
			if client, export := run(-1, way, false); client != nil || export != nil {
				t.Fatalf("undisturbed: %v, %v", client, export)
			}
			for at := range lengths[way] {
				for _, cut := range []bool{false, true}[:2-i] {
					if client, export := run(at, way, cut); client == nil && export == nil {
						t.Errorf("byte %d of way %d, cut %v: nobody noticed", at, way, cut)
					}
				}
			}
		}
	}
}

// TestN15WholeStreamReplayed: what a client sent once is no session, whoever sends
// it again; not a byte of it is heard.
func TestN15WholeStreamReplayed(t *testing.T) {
	k := conntest.Key(t, suite(t, "", ""), 1)
	a, b := conntest.Pipe()
	client := &tampered{Stream: a, at: -1}
	if c, e := session(t, k, client, b); c != nil || e != nil {
		t.Fatal(c, e)
	}
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			a, b := conntest.Pipe()
			go func() { _, _ = io.Copy(io.Discard, a) }()
			go func() { _, _ = a.Write(client.tape) }()
			defer func() { _, _ = a.Close(), b.Close() }()
			s, _, err := conn.Respond(b, func(abi.KeyID) *crypt.Key { return k }, nil)
			if err != nil {
				t.Fatal(err) // message 1 may be repeated, and is of no use
			}
			if n, err := s.Read(make([]byte, 100)); n != 0 || !errors.Is(err, crypt.ErrForged) {
				t.Fatalf("heard %d bytes, %v", n, err)
			}
		})
	}
}

// TestSecureEnds: an end behind a record is io.EOF, within one it is
// io.ErrUnexpectedEOF, and either comes again.
func TestSecureEnds(t *testing.T) {
	for _, s := range []crypt.Suite{suite(t, "", ""), suite(t, "", "hmac(sha256)")} {
		a, b := conntest.Pipe()
		record := &tampered{Stream: b, at: -1}
		sa, sb := conntest.Secure(t, a, record, s, nil)
		record.tape = nil
		go func() {
			write(t, sb, []byte("first"))
			write(t, sb, []byte("second"))
			_ = sb.Close()
		}()
		if got, err := io.ReadAll(sa); err != nil || string(got) != "firstsecond" {
			t.Fatalf("%q, %v", got, err)
		}
		n := len(record.tape)
		for at := range n + 1 {
			a, b := conntest.Pipe()
			cut := &tampered{Stream: b, at: -1}
			sa, sb := conntest.Secure(t, a, cut, s, nil)
			if at < n {
				cut.at, cut.cut, cut.sent = at, true, 0
			}
			go func() {
				if _, err := sb.Write([]byte("first")); err == nil {
					_, _ = sb.Write([]byte("second"))
				}
				_ = sb.Close()
			}()
			got, err := io.ReadAll(sa)
			whole := at == 0 || at == n || string(got) == "first" && at == n-len("second")-(n-len("firstsecond"))/2
			if whole && err != nil || !whole && err != io.ErrUnexpectedEOF {
				t.Errorf("cut at %d of %d: %q, %v", at, n, got, err)
			}
			if _, again := sa.Read(make([]byte, 9)); again != io.EOF && err == nil || err != nil && again != err {
				t.Errorf("%v, then %v", err, again)
			}
		}
	}
}

// TestSecureStranger: until Ready a record is small, whatever it says, and so is
// what is waited for.
func TestSecureStranger(t *testing.T) {
	k := conntest.Key(t, suite(t, "", ""), 1)
	a, b := conntest.SockPair(t)
	ends := make(chan *conn.Secure, 1)
	go func() {
		s, _, err := conn.Respond(b, func(abi.KeyID) *crypt.Key { return k }, nil)
		if err != nil {
			t.Error(err)
		}
		ends <- s
	}()
	client, err := conn.Initiate(a, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	export := <-ends
	defer client.Free()
	defer export.Free()
	long := bytes.Repeat([]byte("long "), 3000) // leaves in small records
	write(t, client, long)
	got := make([]byte, len(long))
	if _, err := io.ReadFull(export, got[:5000]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(export.Ready(), export.Ready()); err != nil { // in the midst of a record
		t.Fatal(err)
	}
	if _, err := io.ReadFull(export, got[5000:]); err != nil || !bytes.Equal(got, long) {
		t.Fatalf("other bytes, %v", err)
	}
	write(t, export, long) // one large record for one who is not ready
	if _, err := client.Read(got); !errors.Is(err, crypt.ErrForged) {
		t.Errorf("a large record of a stranger: %v", err)
	}
	if err := client.Ready(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(got); !errors.Is(err, crypt.ErrForged) {
		t.Errorf("forgiven: %v", err)
	}
}

// TestSecureFreed: freed twice, and of no use any more.
func TestSecureFreed(t *testing.T) {
	a, b := conntest.SockPair(t)
	sa, sb := conntest.Secure(t, a, b, suite(t, "", ""), nil)
	write(t, sa, []byte("lost"))
	sb.Free()
	sb.Free()
	if n, err := sb.Read(make([]byte, 9)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := sb.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestSecureDeadline: a record of which half has come stays.
func TestSecureDeadline(t *testing.T) {
	a, b := conntest.SockPair(t)
	half := &tampered{Stream: a, at: -1}
	sa, sb := conntest.Secure(t, half, b, suite(t, "", ""), nil)
	from, record := half.tape, []byte(nil)
	_ = b.SetReadDeadline(time.Unix(1, 0))
	half.Stream = devNull{a}
	write(t, sa, []byte("in two halves"))
	record = half.tape[len(from):]
	for _, part := range [][]byte{record[:3], record[3:9]} {
		write(t, a, part)
		_ = b.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := sb.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	_ = b.SetReadDeadline(time.Time{})
	write(t, a, record[9:])
	got := make([]byte, 13)
	if _, err := io.ReadFull(sb, got); err != nil || string(got) != "in two halves" {
		t.Errorf("%q, %v", got, err)
	}
}

type devNull struct{ conn.Stream }

func (devNull) Write(p []byte) (int, error) { return len(p), nil }

// TestSecureRefused: another key, another suite, nobody who knows the id: the
// export says so to its caller, and the client hears nothing.
func TestSecureRefused(t *testing.T) {
	ours := conntest.Key(t, suite(t, "", ""), 1)
	for name, theirs := range map[string]*crypt.Key{
		"another key": conntest.Key(t, ours.Suite(), 2), "another suite": conntest.Key(t, suite(t, "rfc7539(chacha20,poly1305)", ""), 1), "no key": nil,
	} {
		a, b := conntest.SockPair(t)
		refused := make(chan error, 1)
		go func() {
			_, _, err := conn.Respond(b, func(abi.KeyID) *crypt.Key { return theirs }, nil)
			_ = b.Close()
			refused <- err
		}()
		if _, err := conn.Initiate(a, ours, nil); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: the client hears %v", name, err)
		}
		if err := <-refused; err != crypt.ErrRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
