package conn_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func write(t *testing.T, s conn.Stream, p []byte) {
	t.Helper()
	if _, err := s.Write(p); err != nil {
		t.Error(err)
	}
}

func TestInPeekAndSkip(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		go write(t, a, []byte("0123456789abcdef"))
		in := conn.NewIn(b, make([]byte, 10))
		for _, want := range []string{"0123456", "789abcd"} { // the second must be moved
			p, err := in.Peek(7)
			if err != nil || string(p) != want {
				t.Fatalf("%q, %v", p, err)
			}
			in.Skip(7)
		}
		if _, err := in.Peek(11); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("more than the buffer: %v", err)
		}
		if err := in.Discard(-1); err != nil || in.Buffered() > 2 {
			t.Errorf("discard less than nothing: %v", err)
		}
		if p, err := in.Peek(0); err != nil || len(p) != 0 {
			t.Errorf("nothing: %q, %v", p, err)
		}
		if p, err := in.Peek(2); err != nil || string(p) != "ef" || in.Buffered() != 2 {
			t.Errorf("%q, %v, %d buffered", p, err, in.Buffered())
		}
		if in.Frames() == 0 {
			t.Error("no frames counted")
		}
		defer func() {
			if recover() == nil {
				t.Error("Skip of more than is buffered")
			}
		}()
		in.Skip(3)
	})
}

func TestInEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		sent int
		do   func(in *conn.In) error
		want error
	}{
		{"between frames", 4, func(in *conn.In) error { in.Skip(4); _, err := in.Peek(1); return err }, io.EOF},
		{"within a header", 4, func(in *conn.In) error { _, err := in.Peek(5); return err }, io.ErrUnexpectedEOF},
		{"within a payload", 6, func(in *conn.In) error { in.Skip(4); return in.ReadFull(make([]byte, 3)) }, io.ErrUnexpectedEOF},
		{"before a payload", 4, func(in *conn.In) error { in.Skip(4); return in.ReadFull(make([]byte, 3)) }, io.ErrUnexpectedEOF},
		{"after the payload", 6, func(in *conn.In) error { in.Skip(4); return in.ReadFull(make([]byte, 2)) }, nil},
		{"no payload", 4, func(in *conn.In) error { in.Skip(4); return in.ReadFull(nil) }, nil},
		{"within what is discarded", 6, func(in *conn.In) error { return in.Discard(7) }, io.ErrUnexpectedEOF},
		{"after what is discarded", 6, func(in *conn.In) error { return in.Discard(6) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, a, b conn.Stream) {
				go func() {
					write(t, a, []byte("headpayload")[:c.sent])
					_ = a.Close()
				}()
				in := conn.NewIn(b, make([]byte, 64))
				if _, err := in.Peek(4); err != nil {
					t.Fatal(err)
				}
				if err := c.do(in); err != c.want {
					t.Errorf("%v, want %v", err, c.want)
				}
			})
		})
	}
}

// TestInPeekAfterDeadline: what was buffered when the deadline passed stays.
func TestInPeekAfterDeadline(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		in := conn.NewIn(b, make([]byte, 64))
		var first sync.WaitGroup
		first.Go(func() { write(t, a, []byte("he")) })
		if _, err := in.Peek(2); err != nil {
			t.Fatal(err)
		}
		first.Wait() // one goroutine writes at a time
		if err := b.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Peek(4); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%v", err)
		}
		if err := b.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go write(t, a, []byte("ad"))
		if p, err := in.Peek(4); err != nil || string(p) != "head" {
			t.Errorf("%q, %v", p, err)
		}
	})
}

// TestInReadFullFetchesAhead: one call fills the payload and takes the next
// header along.
func TestInReadFullFetchesAhead(t *testing.T) {
	a, b := conntest.SockPair(t)
	in := conn.NewIn(b, make([]byte, 8<<10))
	big := bytes.Repeat([]byte("payload."), 8<<10)
	write(t, a, append(append([]byte("head"), big...), "next"...))
	if _, err := in.Peek(4); err != nil {
		t.Fatal(err)
	}
	in.Skip(4)
	got := make([]byte, len(big))
	if err := in.ReadFull(got); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("other bytes, %v", err)
	}
	if in.Buffered() != 4 || in.Frames() != 2 {
		t.Errorf("%d buffered after %d calls", in.Buffered(), in.Frames())
	}
	if p, err := in.Peek(4); err != nil || string(p) != "next" {
		t.Errorf("%q, %v", p, err)
	}
}

// TestInModel: any mixture of calls over any fragmentation sees the stream.
func TestInModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "stream")
		var r io.Reader = bytes.NewReader(stream)
		switch rapid.IntRange(0, 2).Draw(t, "fragments") {
		case 0:
			r = iotest.OneByteReader(r)
		case 1:
			r = iotest.HalfReader(r)
		}
		in := conn.NewIn(r, make([]byte, rapid.IntRange(1, 600).Draw(t, "buffer")))
		rest := stream
		t.Repeat(map[string]func(*rapid.T){
			"peek": func(t *rapid.T) {
				n := rapid.IntRange(0, 700).Draw(t, "n")
				p, err := in.Peek(n)
				switch {
				case err == nil && bytes.Equal(p, rest[:n]):
					n = rapid.IntRange(0, n).Draw(t, "skip")
					in.Skip(n)
					rest = rest[n:]
				case errors.Is(err, unix.EMSGSIZE), err == io.EOF && len(rest) == 0, err == io.ErrUnexpectedEOF && len(rest) > 0 && len(rest) < n:
				default:
					t.Fatalf("Peek(%d) with %d to come: %x, %v", n, len(rest), p, err)
				}
			},
			"read": func(t *rapid.T) {
				p := make([]byte, rapid.IntRange(0, 900).Draw(t, "n"))
				if len(p) > len(rest) {
					return
				}
				if err := in.ReadFull(p); err != nil || !bytes.Equal(p, rest[:len(p)]) {
					t.Fatalf("ReadFull(%d): %v", len(p), err)
				}
				rest = rest[len(p):]
			},
			"discard": func(t *rapid.T) {
				n := rapid.IntRange(0, 900).Draw(t, "n")
				if n > len(rest) {
					return
				}
				if err := in.Discard(int64(n)); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			},
		})
	})
}

func TestInReaderWithoutProgress(t *testing.T) {
	in := conn.NewIn(nothing{}, make([]byte, 4))
	if _, err := in.Peek(1); err != io.ErrNoProgress {
		t.Errorf("%v", err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }
