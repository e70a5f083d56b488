package conn

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"dst/dataplane/crypt"

	"golang.org/x/sys/unix"
)

// tape is a stream that brings what it has, in pieces of a size, and takes everything.
type tape struct {
	in    []byte
	piece int
	out   bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), t.piece)], t.in)
	t.in = t.in[n:]
	return n, nil
}

func (t *tape) Write(p []byte) (int, error)      { return t.out.Write(p) }
func (t *tape) Close() error                     { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }
func (t *tape) secure(f fatal, s crypt.Suite) *Secure {
	f.Helper()
	secrets := crypt.Secrets{Suite: s, Send: [32]byte{1, 2, 3}, Receive: [32]byte{1, 2, 3}}
	x, err := newSecure(t, &secrets, nil)
	if err != nil {
		f.Fatal(err)
	}
	return x
}

type fatal interface {
	Helper()
	Fatal(...any)
}

// FuzzSecure: a stream that was changed in any way, and comes in pieces of any size
// to a reader of any appetite, is a beginning of what was said, or an error.
func FuzzSecure(f *testing.F) {
	suite, err := crypt.ParseSuite("", "", false)
	if err != nil {
		f.Fatal(err)
	}
	var said []byte
	for i := range 1500 {
		said = append(said, byte(i*i>>3))
	}
	var t tape
	w := t.secure(f, suite)
	for _, n := range []int{1, 100, 1200, 199} { // the longest leaves in two records
		if _, err := w.Write(said[:n]); err != nil {
			f.Fatal(err)
		}
		said = append(said[n:], said[:n]...)
	}
	stream := t.out.Bytes()
	f.Add(stream, 7, 100, false)
	f.Add(stream, 5000, 5000, true)
	f.Add(stream[:len(stream)-1], 1, 33, true)
	f.Add(append(slices.Clone(stream[:105]), stream...), 64, 2000, false)
	f.Fuzz(func(f *testing.T, raw []byte, piece, appetite int, ready bool) {
		piece, appetite = 1+max(0, piece)%9999, 1+max(0, appetite)%9999
		r := (&tape{in: raw, piece: piece}).secure(f, suite)
		defer r.Free()
		if ready {
			if err := r.Ready(); err != nil {
				f.Fatal(err)
			}
		}
		var got []byte
		var err error
		for p := make([]byte, appetite); err == nil; {
			var n int
			n, err = r.Read(p)
			got = append(got, p[:n]...)
		}
		if len(got) > len(said) || !bytes.Equal(got, said[:len(got)]) {
			f.Fatalf("%d bytes that were not said", len(got))
		}
		if (err == io.EOF && len(got) == len(said)) != bytes.Equal(raw, stream) {
			f.Fatalf("%d bytes of %d, %v", len(got), len(said), err)
		}
		if n, again := r.Read(make([]byte, 9)); n != 0 || again != err {
			f.Fatalf("%v, then %d bytes, %v", err, n, again)
		}
	})
}

// told hears what became of a frame.
type told chan error

func (t told) Sent(_ *Frame, err error) { t <- err }

// TestOutKeyUsedUp: what cannot be sealed breaks the connection, and its owner
// hears of it.
func TestOutKeyUsedUp(t *testing.T) {
	suite, err := crypt.ParseSuite("", "", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 10, 100 << 10} {
		s := (&tape{}).secure(t, suite)
		if err := errors.Join(s.Ready(), s.SetWriteDeadline(time.Time{})); err != nil {
			t.Fatal(err)
		}
		s.sealer.Wipe()
		o, l := NewOut(s), make(told, 1)
		f := &Frame{Data: make([]byte, size), Owner: l}
		f.Head = f.Room[:48]
		o.Push(f)
		o.Flush()
		if err := <-l; !errors.Is(err, unix.EKEYEXPIRED) || !errors.Is(o.Err(), unix.EKEYEXPIRED) {
			t.Errorf("%d bytes: %v", size, err)
		}
		o.Close()
		s.Free()
	}
}
