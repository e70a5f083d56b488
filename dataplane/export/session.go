package export

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// session is one client, from its HELLO to the return of its last element.
type session struct {
	node   *Node
	stream conn.Stream
	who    caller
	hello  abi.Hello
	digest crypt.Digest
	seat   *Seat // of the core; its fields under Node.mu
	born   time.Time
	wake   chan struct{} // a token: look at the seat, at dead or at the keepalive again

	maxSize, depth uint32        // agreed
	size           uint64        // bytes offered to it by its WELCOME
	promised       time.Duration // the keepalive in it

	in      *conn.In // owned by the worker with the reading role, as spare is
	spare   *request
	taken   int // requests since the last flush by the role's holder
	out     *conn.Out
	buffer  []byte
	arena   *mempool.Arena
	reserve *mempool.Pool[request]
	crew    crew
	ping    pingFrame

	left    atomic.Bool   // it took no DRAINING while it waited
	live    atomic.Bool   // out is there: it can be cut
	parsing atomic.Bool   // the role's holder will flush before it waits for anything
	reading atomic.Bool   // the role's holder waits for the peer
	asked   atomic.Bool   // a sign of life is wanted (Core.Alive)
	before  atomic.Uint64 // in.Frames when it was
	dead    atomic.Bool   // nothing is started or answered any more

	stop chan struct{} // closed by end
	once sync.Once
	why  error // set by end
}

// errBye is a client that said it will not come back.
var errBye = errors.New("the client said good-bye")

// errWouldWait is what a Store answers when it must not wait.
var errWouldWait error = unix.EAGAIN

// end breaks the connection of a live session; the first reason counts.
func (s *session) end(why error) {
	s.once.Do(func() {
		s.why = why
		s.dead.Store(true)
		close(s.stop)
	})
	s.out.Break(why)
}

// cut is the core's Cut: at once, or, for one whose last answer tells of an
// error, when it has gone or had time to (keep).
func (s *session) cut(why error, parting bool) {
	s.dead.Store(true)
	if s.live.Load() && !parting {
		s.end(why)
	}
	s.rouse()
}

// rouse wakes whoever waits on behalf of the session: its handshake, or keep.
func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve does requests until the session ends.
// Started by crew.pass. Owns the reading role at first, then at times; and the
// requests that it runs. Ends when the session does, or when it is not needed.
func (s *session) serve(w *worker) {
	defer s.crew.leave()
	for {
		op, err := s.lead()
		if err != nil {
			s.end(err)
			return
		}
		if !s.crew.pass() {
			s.flush() // nobody reads on, so nobody else will
		}
		s.node.run(op, s)
		if !s.crew.back(w) {
			return
		}
	}
}

// lead reads requests and does those that cannot wait, until one may; that one
// is for the caller to run, after it has passed the reading role on.
func (s *session) lead() (*Op, error) {
	s.parsing.Store(true)
	for {
		r, err := s.take()
		if err != nil {
			return nil, err
		}
		if s.taken++; s.taken >= flushEvery {
			s.taken = 0
			s.out.Flush()
		}
		if op := s.inline(r); op != nil {
			return op, nil
		}
	}
}

// inline does what cannot wait. It gives what may.
func (s *session) inline(r *request) *Op {
	n := s.node
	instant := n.disk.Geometry.Instant
	if r.Kind == KindRead {
		if n.disk.Geometry.Cached && n.read(r, instant) {
			return nil
		}
		r.since.Store(n.now())
		return &r.Op
	}
	op := n.begin(r)
	if op == &r.Op && instant && r.Kind == KindWrite {
		n.end(r, n.change(r))
		op = n.next()
	}
	if op != nil && op.Kind != KindSync {
		op.Owner.(*request).since.Store(n.now())
	}
	return op
}

// flushEvery is after how many requests the answers so far leave, although more
// requests are there to be read.
const flushEvery = 32

// flush lets all answers leave: the role's holder is about to wait. Whoever
// pushes one after it sees that nobody will do it for him (deliver).
func (s *session) flush() {
	s.parsing.Store(false)
	s.out.Flush()
}

// deliver lets answers leave, now or, while requests are being parsed, together
// with those of the requests that follow.
func (s *session) deliver() {
	if !s.parsing.Load() {
		s.out.Flush()
	}
}

// peek waits for n bytes. What was answered so far leaves before it waits.
func (s *session) peek(n int) ([]byte, error) {
	if s.in.Buffered() >= n {
		return s.in.Peek(n)
	}
	s.taken = 0
	s.flush()
	s.reading.Store(true)
	b, err := s.in.Peek(n)
	s.heard(err)
	return b, err
}

// read fills b, as peek does.
func (s *session) read(b []byte) error {
	if s.in.Buffered() >= len(b) {
		return s.in.ReadFull(b)
	}
	s.flush()
	s.reading.Store(true)
	err := s.in.ReadFull(b)
	s.heard(err)
	return err
}

// heard is the end of a wait for the peer; with an error it is no sign of life.
func (s *session) heard(err error) {
	s.reading.Store(false)
	s.parsing.Store(true)
	if err == nil && s.asked.Load() && s.asked.Swap(false) {
		s.node.alive(s)
	}
}

// element is a free element of the reserve, waited for if need be.
func (s *session) element() (*request, error) {
	r := s.spare
	if s.spare = nil; r != nil {
		return r, nil
	}
	if r = s.reserve.TryGet(); r == nil {
		s.node.count.memoryWaits.Add(1)
		s.flush()
		var ok bool
		if r, ok = s.reserve.Get(s.stop); !ok {
			return nil, io.ErrClosedPipe
		}
		s.parsing.Store(true)
	}
	return r, nil
}

// memory gives r its payload memory, waited for if need be.
func (s *session) memory(r *request, n uint32) error {
	if r.data = s.arena.TryGet(int(n)); r.data == nil {
		s.node.count.memoryWaits.Add(1)
		s.flush()
		var ok bool
		if r.data, ok = s.arena.Get(int(n), s.stop); !ok {
			return io.ErrClosedPipe
		}
		s.parsing.Store(true)
	}
	return nil
}

// take reads until there is a request to do. Refused ones and PINGs are
// answered on the way. An error is the end of the connection.
func (s *session) take() (*request, error) {
	for {
		r, err := s.element()
		if err != nil {
			return nil, err
		}
		done, err := s.receive(r)
		if err != nil {
			r.free()
			return nil, err
		}
		if !done {
			return r, nil
		}
	}
}

// receive reads one frame into r. done: r was used for the answer, or is the
// spare one again.
func (s *session) receive(r *request) (done bool, err error) {
	csize := s.digest.Size()
	size := abi.HeaderSize + csize
	b, err := s.peek(size)
	if err != nil {
		return false, err
	}
	head := r.frame.Room[:size]
	copy(head, b)
	s.in.Skip(size)
	r.h.Parse(head)
	if err := r.h.Check(uint32(csize), abi.MaxRequest); err != nil {
		return false, err
	}
	switch r.h.Cmd {
	case abi.MsgIO, abi.MsgFlush, abi.MsgDiscard, abi.MsgWriteZeroes:
		return s.request(r, head)
	case abi.MsgPing, abi.MsgPong, abi.MsgBye:
	default:
		return false, fmt.Errorf("the client sent %v to an export: %w", r.h.Cmd, unix.EPROTO)
	}
	if err := s.digest.Check(head, nil); err != nil {
		return false, err
	}
	switch r.h.Cmd {
	case abi.MsgBye:
		return false, errBye
	case abi.MsgPong:
		s.spare = r
	case abi.MsgPing:
		r.send(&abi.Header{Cmd: abi.MsgPong, ID: r.h.ID}, nil)
	}
	return true, nil
}

// request reads what follows a request's header, checks all of it and answers
// what is refused.
func (s *session) request(r *request, head []byte) (done bool, err error) {
	n := s.node
	errno := r.judge(s.size, n.disk.Geometry.BlockMin, s.maxSize)
	payload := r.h.Payload()
	switch {
	case r.Kind != KindWrite:
		err = s.digest.Check(head, nil)
	case payload > s.maxSize:
		// More than there is memory for: let it pass by.
		return true, s.drain(r, head, payload)
	case payload > 0:
		if err = s.memory(r, payload); err == nil {
			err = s.read(r.data)
		}
		if err == nil {
			err = s.digest.Check(head, r.data)
		}
	default:
		err = s.digest.Check(head, nil)
	}
	switch {
	case err != nil:
		return false, err
	case s.dead.Load():
		r.free()
	case errno != 0:
		r.answer(errno, s.seat.Verifier)
	default:
		if r.Kind == KindRead {
			err = s.memory(r, r.length)
		}
		return false, err
	}
	return true, nil
}

// drain passes by the payload of a WRITE that is too large, then refuses it. If
// the digest does not fit, the size is the damage and the connection is broken.
func (s *session) drain(r *request, head []byte, payload uint32) error {
	sum := s.digest.Begin(head)
	s.flush()
	s.reading.Store(true)
	for left := int(payload); left > 0; {
		if _, err := s.in.Peek(1); err != nil {
			return err
		}
		b, _ := s.in.Peek(min(left, s.in.Buffered()))
		sum = s.digest.Add(sum, b)
		s.in.Skip(len(b))
		left -= len(b)
	}
	s.heard(nil)
	if err := s.digest.End(head, sum); err != nil {
		return err
	}
	r.answer(unix.EINVAL, s.seat.Verifier)
	return nil
}
