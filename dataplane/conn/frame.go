// Package conn is one framed byte stream, alive or dead: sockets of any family
// from the raw addresses of the ABI, and the two halves of a connection, In and
// Out. It knows where frames begin and end, not what they mean.
package conn

import (
	"io"
	"time"
)

// Stream is the byte stream below a connection: a *Sock, a *Secure over one, or
// one end of net.Pipe in tests. One goroutine reads and one writes at a time; any
// may close.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Frame is one message to be sent, part of the element that owns it and written
// from where it lies: Head, then Data; either may be empty. From Push to Sent
// the connection owns it and both slices; then it may be used and pushed again.
type Frame struct {
	Head  []byte   // header and digest, usually Room[:n]
	Room  [56]byte // place for Head
	Data  []byte   // payload, on or off the Go heap
	Owner Sender

	next   *Frame
	end    int // with a Secure: where its last record ends in the batch
	queued bool
}

// Sender is who wants to know that a frame has left.
type Sender interface {
	// Sent is called exactly once for each Push that returned true, in the
	// order of the Pushes and without a lock: err is nil when the stream has
	// taken all of the frame. The caller is the connection's writer or whoever
	// called Flush, so it must neither wait nor call Close; Push, Flush and
	// Break are allowed.
	Sent(f *Frame, err error)
}
