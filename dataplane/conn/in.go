package conn

import (
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// bigPayload is from where on, in bytes, it pays to receive payloads where
	// they belong rather than to copy them out of the buffer.
	bigPayload = 32 << 10
	// bigAhead is how much is fetched ahead, in bytes, while payloads are big:
	// enough for many headers, little of the next payload.
	bigAhead = 4 << 10
	// cheapMove is up to how many bytes are moved to the front of the buffer
	// without need: cheaper than to receive into the short rest behind them.
	cheapMove = 256
)

// In is the receiving half of a connection: a buffer from which frames are
// parsed where they lie, so that one system call fetches all that has come. It
// is owned by the one goroutine that reads; only Frames may be called by others.
type In struct {
	r          io.Reader
	sock       *Sock   // r, if it is one
	secure     *Secure // r, if it is one
	buf        []byte
	start, end int // what is buffered
	ahead      int // how much to fetch at most
	frames     atomic.Uint64
}

// NewIn is the receiving half of r with the given buffer, which outlives it:
// page memory, 256 KiB in use. It must hold the largest Peek.
func NewIn(r io.Reader, buf []byte) *In {
	in := &In{r: r, buf: buf, ahead: len(buf)}
	in.sock, _ = r.(*Sock)
	in.secure, _ = r.(*Secure)
	return in
}

// Frames counts the receiving calls that brought something, and with a Secure
// parts of large records too: while it changes, the peer lives.
func (in *In) Frames() uint64 {
	if in.secure != nil {
		return in.frames.Load() + in.secure.parts()
	}
	return in.frames.Load()
}

// Buffered is the number of bytes that the next Peek has without waiting.
func (in *In) Buffered() int { return in.end - in.start }

// Peek waits until n bytes are buffered and shows them; they are valid until
// the next call of anything but Skip and Buffered. Errors: io.EOF if the stream
// ended and nothing is buffered, io.ErrUnexpectedEOF if it ended within these n
// bytes, EMSGSIZE if n is more than the buffer holds. What is buffered stays
// after an error: after os.ErrDeadlineExceeded it may be called again.
func (in *In) Peek(n int) ([]byte, error) {
	for in.end-in.start < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	return in.buf[in.start : in.start+n : in.start+n], nil
}

// Skip drops n bytes, at most Buffered.
func (in *In) Skip(n int) {
	if n < 0 || n > in.end-in.start {
		panic("conn: Skip of what is not buffered")
	}
	in.start += n
}

// fill receives once, behind what is buffered, so that n bytes can be.
func (in *In) fill(n int) error {
	if n > len(in.buf) {
		return fmt.Errorf("a frame of %d bytes for a buffer of %d: %w", n, len(in.buf), unix.EMSGSIZE)
	}
	if kept := in.end - in.start; kept <= cheapMove || in.start+n > len(in.buf) {
		copy(in.buf, in.buf[in.start:in.end])
		in.start, in.end = 0, kept
	}
	limit := min(len(in.buf), max(in.start+n, in.end+in.ahead))
	got, err := in.receive(in.buf[in.end:limit], nil)
	in.end += got
	if err == io.EOF && in.end > in.start {
		return io.ErrUnexpectedEOF
	}
	return err
}

// receive is one receiving call that brings something or an error.
func (in *In) receive(p, more []byte) (n int, err error) {
	if in.sock != nil {
		n, err = in.sock.readv(p, more)
	} else {
		for range 100 { // a Reader may bring nothing, but not for ever
			if n, err = in.r.Read(p); n > 0 || err != nil {
				break
			}
		}
		if n == 0 && err == nil {
			return 0, io.ErrNoProgress
		}
	}
	if n > 0 {
		in.frames.Add(1)
		return n, nil // an error that came with it comes again
	}
	return 0, err
}

// ReadFull fills dst: from the buffer first, the rest straight from the socket,
// and what the same call brings beyond goes to the buffer. Errors:
// io.ErrUnexpectedEOF if the stream ends first, also at 0 bytes. After any error
// the stream is out of step and only good for closing.
func (in *In) ReadFull(dst []byte) error {
	in.ahead = len(in.buf)
	if len(dst) >= bigPayload {
		in.ahead = min(bigAhead, len(in.buf))
	}
	n := copy(dst, in.buf[in.start:in.end])
	in.start += n
	for dst = dst[n:]; len(dst) > 0; dst = dst[n:] {
		// The buffer is empty here.
		got, err := in.receive(dst, in.buf[:in.ahead])
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		n = min(got, len(dst))
		in.start, in.end = 0, got-n
	}
	return nil
}

// Discard receives n bytes and forgets them. Errors as ReadFull.
func (in *In) Discard(n int64) error {
	for {
		some := max(0, min(n, int64(in.Buffered())))
		in.start += int(some)
		if n -= some; n <= 0 {
			return nil
		}
		in.start, in.end = 0, 0
		got, err := in.receive(in.buf, nil)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		in.end = got
	}
}
