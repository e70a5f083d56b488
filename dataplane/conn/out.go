package conn

import (
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	maxIovecs  = 256     // of one call: 128 frames with payload, the depth in use
	maxBytes   = 1 << 20 // of one call; SCTP takes less
	flushCalls = 4       // of one Flush, so that nobody writes for the others for ever
)

// Out is the sending half of a connection. Frames leave in the order of Push,
// as many at once as there are.
//
// A frame's road:
//
//  1. Push    appends it to the queue                                  (mu)
//  2. Flush   claims the role of the one who writes, if it is free     (mu)
//  3. gather  moves the queue to the holder's own list, fills iov      (mu);
//     with a Secure it makes records of it, and iov leads to them
//  4. writev  what the socket takes now; partial writes are kept count of
//  5. Sent    for each frame that has left; again from 3 until the queue
//     is empty, then the role is free
//
// No lock is held in 4 and 5. Others who Push and Flush meanwhile leave their
// frames to the holder. If the socket takes no more, the role passes to the
// writer goroutine, which waits for room; it also keeps the role for ever when
// the connection is broken, and tells the owners of all frames left.
type Out struct {
	stream Stream
	sock   *Sock   // stream, or what is below secure, if it is one
	secure *Secure // stream, if it is one
	most   int     // bytes of one call

	mu struct {
		sync.Mutex
		head, tail *Frame
		writing    bool  // the role is taken
		err        error // broken: nothing can be pushed any more
	}

	// Owned by the holder of the role.
	cur, last *Frame // taken from the queue, not yet sent
	off       int    // bytes of cur that have left
	iov       [maxIovecs]unix.Iovec
	vectors   int // how many of them are filled

	progress atomic.Uint64
	pass     chan struct{} // the role on its way to the writer goroutine
	done     chan struct{} // closed when that has ended
}

// NewOut is the sending half of s and starts its writer goroutine. Close ends it.
func NewOut(s Stream) *Out {
	o := &Out{stream: s, most: maxBytes, pass: make(chan struct{}, 1), done: make(chan struct{})}
	o.sock, _ = s.(*Sock)
	if o.secure, _ = s.(*Secure); o.secure != nil {
		o.sock = o.secure.sock
	}
	if o.sock != nil {
		o.most = o.sock.most
	}
	go o.writer()
	return o
}

// Push queues f behind all others; it neither waits nor writes nor allocates.
// False, and nothing more happens, once the connection is broken or closed. It
// panics on a frame that is queued already.
func (o *Out) Push(f *Frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err != nil {
		return false
	}
	if f.queued {
		panic("conn: Push of a frame that is queued")
	}
	f.queued, f.next = true, nil
	if o.mu.head == nil {
		o.mu.head = f
	} else {
		o.mu.tail.next = f
	}
	o.mu.tail = f
	return true
}

// Flush writes what is queued as far as the socket takes it now, unless somebody
// is writing already; the rest leaves without further calls. It never waits. It
// may call Sent of any frame of the connection: hold no lock that Sent needs.
func (o *Out) Flush() {
	if !o.claim() {
		return
	}
	for calls := 0; o.sock != nil; calls++ {
		want, more := o.gather()
		if !more {
			return
		}
		if want < 0 || calls == flushCalls {
			break
		}
		n, err := o.write(want, false)
		if err != nil && err != errAgain {
			o.Break(err)
		}
		o.advance(n)
		if n < want {
			break
		}
	}
	o.pass <- struct{}{}
}

// Progress counts the bytes that the stream has taken; with a Secure, those of
// its records.
func (o *Out) Progress() uint64 { return o.progress.Load() }

// Pending tells whether there are frames that have not left: if so, and Progress
// does not change, the peer does not read.
func (o *Out) Pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.err == nil && (o.mu.writing || o.mu.head != nil)
}

// Break closes the stream, so that both halves end, and lets the writer
// goroutine call Sent with err for every frame left. It does not wait for that
// and may be called by anybody, in Sent too. The first err counts.
func (o *Out) Break(err error) {
	o.mu.Lock()
	first := o.mu.err == nil
	if first {
		o.mu.err = err
	}
	claimed := first && !o.mu.writing
	if claimed {
		o.mu.writing = true
	}
	o.mu.Unlock()
	if first {
		_ = o.stream.Close() // whoever writes or reads returns
	}
	if claimed {
		o.pass <- struct{}{}
	}
}

// Err is why the connection is broken, nil while it is not.
func (o *Out) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.err
}

// Close is Break with net.ErrClosed; it returns when no frame is being written
// and every Sent has been called. Idempotent. Hold no lock that Sent needs, and
// do not call it in Sent.
func (o *Out) Close() {
	o.Break(net.ErrClosed)
	<-o.done
}

// claim takes the role of the one who writes if it is free and there is work.
func (o *Out) claim() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.writing || o.mu.head == nil {
		return false
	}
	o.mu.writing = true
	return true
}

// writer writes what others could not without waiting.
// Started by NewOut. Owns the role while it has it. Ends when the connection is
// broken and the owners of all frames know.
func (o *Out) writer() {
	defer close(o.done)
	for range o.pass {
		for {
			want, more := o.gather()
			if !more {
				break
			}
			if want < 0 {
				o.bury()
				return
			}
			n, err := o.write(want, true)
			if err != nil {
				o.Break(err)
			}
			o.advance(n)
		}
	}
}

// gather takes what is queued and prepares the next call, of want bytes. Without
// more there is nothing to do and the role is free again; want is negative, and
// the role kept, if the connection is broken.
func (o *Out) gather() (want int, more bool) {
	o.mu.Lock()
	if o.mu.err != nil {
		o.mu.Unlock()
		return -1, true
	}
	o.takeLocked()
	if o.cur == nil {
		o.mu.writing = false
		o.mu.Unlock()
		return 0, false
	}
	o.mu.Unlock()
	if o.secure != nil {
		return o.gatherSealed()
	}
	n, skip := 0, o.off
	for f := o.cur; f != nil && n+2 <= maxIovecs && want < o.most; f = f.next {
		for _, p := range [2][]byte{f.Head, f.Data} {
			some := min(skip, len(p))
			skip -= some
			if p = p[some:min(len(p), some+o.most-want)]; len(p) > 0 {
				point(&o.iov[n], p)
				n++
				want += len(p)
			}
		}
	}
	o.vectors = n
	return want, true
}

// takeLocked moves the queue to the end of the holder's own list.
func (o *Out) takeLocked() {
	if o.mu.head == nil {
		return
	}
	if o.cur == nil {
		o.cur = o.mu.head
	} else {
		o.last.next = o.mu.head
	}
	o.last = o.mu.tail
	o.mu.head, o.mu.tail = nil, nil
}

// write is one call for what gather prepared. On a stream that is not a socket
// it is the whole of the first frame, and always waits.
func (o *Out) write(want int, wait bool) (n int, err error) {
	switch {
	case want == 0: // frames of no bytes
	case o.sock != nil:
		n, err = o.sock.writev(o.iov[:o.vectors], wait)
	case o.secure != nil:
		x := &o.secure.out
		n, err = o.secure.stream.Write(x.buf[x.sent : x.sent+want])
	default:
		for _, p := range [2][]byte{o.cur.Head, o.cur.Data} {
			if len(p) > 0 && err == nil {
				var some int
				some, err = o.stream.Write(p)
				n += some
			}
		}
	}
	o.progress.Add(uint64(n))
	return n, err
}

// advance counts n bytes as sent and tells the owners of whole frames.
func (o *Out) advance(n int) {
	if o.secure != nil {
		o.advanceSealed(n)
		return
	}
	for f := o.cur; f != nil; f = o.cur {
		left := len(f.Head) + len(f.Data) - o.off
		if n < left {
			o.off += n
			return
		}
		n -= left
		o.finish(nil)
	}
}

// finish gives the first frame back. Sent may push it again: it is in no list
// by then.
func (o *Out) finish(err error) {
	f := o.cur
	o.cur, o.off = f.next, 0
	f.next, f.queued = nil, false
	if f.Owner != nil {
		f.Owner.Sent(f, err)
	}
}

// bury tells the owners of all frames left. Nothing is pushed any more.
func (o *Out) bury() {
	o.mu.Lock()
	err := o.mu.err
	o.takeLocked()
	o.mu.Unlock()
	for o.cur != nil {
		o.finish(err)
	}
	clear(o.iov[:])
}
