package export

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
)

// request is one client's request from its header to the departure of its
// answer: an element of its session's reserve.
//
// Its road:
//
//  1. take      header and payload from the socket, checks        (reading role)
//  2. begin     its place in the order of overlapping changes     (Node.mu)
//  3. perform   the store does it: at once if that cannot wait, else the role
//     goes to another worker first
//  4. end       what its answer is worth                          (Node.mu)
//  5. answer    pushed to the connection; Sent gives the element back
type request struct {
	Op
	s      *session
	h      abi.Header // as received
	data   []byte     // READ, WRITE: memory of the session's arena
	length uint32     // bytes of the range
	since  atomic.Int64
	frame  conn.Frame
}

// flags that a request of each message may have.
func allowedFlags(h *abi.Header) (flags uint64) {
	switch h.Cmd {
	case abi.MsgIO:
		if h.RW&abi.RWWrite == 0 {
			return abi.FlagReadAhead
		}
		return abi.FlagFUA | abi.FlagPreflush
	case abi.MsgDiscard:
		return abi.FlagFUA
	case abi.MsgWriteZeroes:
		return abi.FlagFUA | abi.FlagNoHole
	}
	return 0
}

// judge makes the Op of a received header and says what is wrong with it: 0, or
// EINVAL for unknown flags, a length of 0 or above what was agreed, and a range
// that is unaligned or not inside of the size bytes that were offered.
func (r *request) judge(size uint64, block, maxSize uint32) unix.Errno {
	h := &r.h
	rw := uint64(0)
	r.length = h.Size
	switch h.Cmd {
	case abi.MsgIO:
		rw, r.Kind = abi.RWWrite, KindRead
		if h.RW&abi.RWWrite != 0 {
			r.Kind, r.length = KindWrite, h.Payload()
		}
	case abi.MsgFlush:
		r.Kind = KindFlush
	case abi.MsgDiscard:
		r.Kind = KindDiscard
	case abi.MsgWriteZeroes:
		r.Kind = KindZero
	}
	if h.RW&^rw != 0 || h.Flags&^allowedFlags(h) != 0 || h.Reserved != 0 {
		return unix.EINVAL
	}
	r.Durable, r.Flush = h.Flags&abi.FlagFUA != 0, h.Flags&abi.FlagPreflush != 0 && r.Kind == KindWrite
	if r.Kind == KindFlush {
		return 0
	}
	carries := r.Kind == KindRead || r.Kind == KindWrite
	if r.length == 0 || carries && r.length > maxSize || h.Sector > size/abi.SectorSize {
		return unix.EINVAL
	}
	r.Off, r.Len = h.Sector*abi.SectorSize, uint64(r.length)
	if r.Len > size-r.Off || (r.Off|r.Len)&uint64(block-1) != 0 {
		return unix.EINVAL
	}
	return 0
}

// read does a READ and answers it. False: it would have to wait.
func (n *Node) read(r *request, wait bool) bool {
	err := n.disk.Store.ReadAt(r.data, r.Off, wait)
	switch {
	case err == errWouldWait && !wait:
		return false
	case r.s.dead.Load():
		r.free() // a store that failed may have given up what was written
	default:
		r.answer(errnoOf(err), r.s.seat.Verifier)
	}
	return true
}

// change lets the store do a WRITE, DISCARD or ZERO. A long erasure stops where
// its session was cut or lost the right to it: nobody is told that it was done.
func (n *Node) change(r *request) unix.Errno {
	store := n.disk.Store
	switch r.Kind {
	case KindWrite:
		return errnoOf(store.WriteAt(r.data, r.Off, r.Durable && n.disk.Geometry.FUA))
	case KindDiscard, KindZero:
		how := EraseDiscard
		if r.Kind == KindZero {
			if how = EraseZero; r.h.Flags&abi.FlagNoHole != 0 {
				how = EraseAllocate
			}
		}
		for off, left := r.Off, r.Len; left > 0 && n.proceeds(r); {
			some := min(left, EraseChunk)
			if err := store.Erase(off, some, how); err != nil {
				return errnoOf(err)
			}
			off, left = off+some, left-some
		}
	}
	return 0
}

// proceeds tells whether the next part of r may be done.
func (n *Node) proceeds(r *request) bool {
	if r.s.dead.Load() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.Proceed(&r.Op)
}

// run does op, and then whatever has its turn because of that, which may belong to
// other sessions. There is no end of it as long as their flushes overlap: when s,
// whose worker this is, is dead, somebody else goes on. nil: nobody's.
func (n *Node) run(op *Op, s *session) {
	for op != nil && n.perform(op) {
		if op = n.next(); op != nil && s != nil && s.dead.Load() {
			n.relay(op)
			return
		}
	}
}

// relay runs op for a worker that must not; its session counts in wg.
func (n *Node) relay(op *Op) {
	// Started here. Owns op. Ends when nothing has its turn.
	n.wg.Go(func() { n.run(op, nil) })
}

// perform does op and tells whether somebody may have his turn because of that.
func (n *Node) perform(op *Op) bool {
	if op.Kind == KindSync {
		n.synced(errnoOf(n.disk.Store.Flush()))
		return true
	}
	r := op.Owner.(*request)
	s, reads := r.s, r.Kind == KindRead // r is another's as soon as it is answered
	if reads {
		_ = n.read(r, true) // with waiting, it is done
	} else {
		n.end(r, n.change(r))
	}
	s.deliver()
	return !reads
}

// begin files r in its order of arrival and gives what has to be run now: r
// itself, something else, or nothing.
func (n *Node) begin(r *request) *Op {
	n.mu.Lock()
	turn := n.core.Begin(r.s.seat, &r.Op)
	n.mu.Unlock()
	switch turn {
	case Now:
		return &r.Op
	case Never:
		r.conclude()
	}
	return n.next()
}

// next is an op whose turn has come, nil if there is none.
func (n *Node) next() *Op {
	for {
		n.mu.Lock()
		op, turn := n.core.Next()
		n.mu.Unlock()
		if op == nil || turn == Now {
			return op
		}
		r := op.Owner.(*request)
		s := r.s
		r.conclude()
		s.deliver()
	}
}

// end is r done by the store. Its answer is queued before whatever waited for it
// may run, and leaves before anybody is cut for its error: who has seen the
// answer of a change has seen those of all earlier ones to the same bytes, and
// resends none of them.
func (n *Node) end(r *request, errno unix.Errno) {
	n.mu.Lock()
	turn := n.core.End(&r.Op, errno, r.Kind == KindWrite && n.disk.Geometry.FUA)
	acts := n.actions()
	if turn == Never {
		r.conclude()
	}
	n.mu.Unlock()
	if noRoom(errno) && !n.disk.Geometry.Late {
		n.full(errno)
	} else {
		n.failed(errno)
	}
	n.carryOut(acts)
}

// synced answers everybody who waited for a flush of the store.
func (n *Node) synced(errno unix.Errno) {
	n.mu.Lock()
	over := n.core.Synced(errno)
	acts := n.actions()
	n.mu.Unlock()
	for op := over; op != nil; {
		r := op.Owner.(*request)
		op = op.Follow()
		s := r.s
		n.mu.Lock()
		n.core.Settle(&r.Op)
		r.conclude()
		n.mu.Unlock()
		s.deliver()
	}
	n.failed(errno)
	n.carryOut(acts)
}

// conclude queues the answer that the core decided. It neither waits nor calls
// back, so Node.mu may be held.
func (r *request) conclude() {
	switch reply := r.Reply(); {
	case reply == ReplyError:
		r.answer(r.Err, r.Verifier())
	case reply == ReplyDone && !r.s.dead.Load(): // or an erasure may have stopped in the middle
		r.answer(0, r.Verifier())
	default:
		r.free()
	}
}

// answer sends the IO_RESPONSE; r is gone after it.
func (r *request) answer(errno unix.Errno, v abi.Verifier) {
	s := r.s
	h := abi.Header{Cmd: abi.MsgIOResponse, Reserved: uint32(errno), ID: r.h.ID, Sector: r.h.Sector}
	h.SetVerifier(v)
	var data []byte
	switch {
	case errno != 0:
		s.node.count.errors.Add(1)
	case r.Kind == KindRead:
		data = r.data
	case s.node.stable || r.Durable:
		h.Reserved |= abi.Stable
	}
	if errno == 0 {
		s.node.count.done(r)
	}
	r.send(&h, data)
}

// send seals and pushes a frame of r, which is gone after it.
func (r *request) send(h *abi.Header, data []byte) {
	s, f := r.s, &r.frame
	h.CSize = uint32(s.digest.Size())
	h.Size = h.CSize + uint32(len(data))
	f.Head, f.Data = f.Room[:abi.HeaderSize+s.digest.Size()], data
	h.Put(f.Head)
	s.digest.Seal(f.Head, data)
	if !s.out.Push(f) {
		r.free()
	}
}

// Sent is conn.Sender's: the answer has left, or never will.
func (r *request) Sent(*conn.Frame, error) { r.free() }

// free gives element and memory back to the session.
func (r *request) free() {
	r.since.Store(0)
	r.frame.Data = nil
	if r.data != nil {
		r.s.arena.Put(r.data)
		r.data = nil
	}
	r.s.reserve.Put(r)
}
