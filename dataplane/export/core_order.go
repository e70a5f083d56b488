package export

import (
	"golang.org/x/sys/unix"

	"dst/abi"
)

// Kind is what an Op asks of the store.
type Kind uint8

const (
	KindRead Kind = iota + 1 // never begun
	KindWrite
	KindDiscard
	KindZero
	KindFlush
	KindSync // the core's own: flush the store for all who joined
)

// Op is one change, or flush, of a client. It is part of the element that
// carries the request: nothing is allocated for it. READs need no Op: late ones
// do no harm.
type Op struct {
	Kind     Kind
	Off, Len uint64 // bytes
	Flush    bool   // a flush of the store goes before
	Durable  bool   // durable before the answer
	Err      unix.Errno
	Owner    any // the driver's

	seat       *Seat
	phase      opPhase
	blockers   int // earlier overlapping changes that have not ended
	prev, next *Op // order of arrival
	link       *Op // of the queue it is in
	reply      Reply
	verifier   abi.Verifier
	stopped    bool // its client lost the right to write while it ran
}

type opPhase uint8

const (
	opNew     opPhase = iota // perhaps behind earlier ones that it overlaps
	opFlush                  // joined the flush that goes before
	opRun                    // the store does it
	opDurable                // done; joined the flush that goes behind
)

// Reply is what an Op is answered.
type Reply uint8

const (
	ReplyNone  Reply = iota // nothing: its connection is closing, or the store's flush failed
	ReplyDone               // success
	ReplyError              // Op.Err; and Op.Verifier is new if the store failed
)

// Reply is what to answer, when End or Synced has given the op back.
func (op *Op) Reply() Reply { return op.reply }

// Verifier is the verifier of the answer.
func (op *Op) Verifier() abi.Verifier { return op.verifier }

// Turn is what becomes of an op.
type Turn uint8

const (
	Now   Turn = iota + 1 // do it, then End (KindSync: Synced)
	Later                 // nothing to do: Next gives it out
	Never                 // answer what Reply says
)

// Begin takes a request in its order of arrival. Its range was checked; whether
// the client may is checked here (EPERM).
func (c *Core) Begin(s *Seat, op *Op) Turn {
	op.seat, op.phase, op.blockers, op.reply, op.Err, op.stopped = s, opNew, 0, ReplyNone, 0, false
	op.verifier = s.Verifier
	if !c.serves(s) {
		return Never
	}
	if op.Kind == KindFlush {
		c.join(op, opDurable)
		return Later
	}
	op.Durable = op.Durable || c.cfg.Stable || c.cfg.Shared
	c.enlist(op)
	if op.blockers > 0 {
		return Later
	}
	return c.start(op)
}

// serves tells whether the requests of s are begun and answered.
func (c *Core) serves(s *Seat) bool { return s.Open() || c.unfenced || c.harms.readOn() }

// start lets the store do op, unless its client was fenced off or lost the
// right to write since it sent it.
func (c *Core) start(op *Op) Turn {
	if !c.serves(op.seat) {
		c.unlist(op)
		return Never
	}
	if op.seat.Perm&abi.PermWrite == 0 {
		op.Err, op.reply = unix.EPERM, ReplyError
		c.unlist(op)
		return Never
	}
	if op.Flush {
		op.Flush = false
		c.join(op, opFlush)
		return Later
	}
	op.phase = opRun
	op.seat.running++
	return Now
}

// Proceed tells whether a change that runs may go on; whoever does one in parts
// asks before each. No: its client was fenced off, or lost the right to write,
// which End answers with EPERM although the store has not failed.
func (c *Core) Proceed(op *Op) bool {
	op.stopped = op.seat.Perm&abi.PermWrite == 0
	return !op.stopped && c.serves(op.seat)
}

// Next gives out an op whose turn has come, with what becomes of it; nil if
// there is none. Whoever calls Begin, End or Synced calls it until then.
func (c *Core) Next() (*Op, Turn) {
	for {
		op := c.ready.pop()
		switch {
		case op == nil:
			return nil, 0
		case op.Kind == KindSync:
			c.round, c.joined = c.joined, opQueue{}
			c.covering = c.acked
			return op, Now
		}
		if turn := c.start(op); turn != Later {
			return op, turn
		}
	}
}

// End is op done by the store, which alone made it durable if fua. Later: it
// waits for a flush. Never: in the same step put the answer that Reply says on
// its way, then forget it.
func (c *Core) End(op *Op, errno unix.Errno, fua bool) Turn {
	s := op.seat
	s.running--
	if s.phase == seatFenced && s.running == 0 {
		c.remove(s)
	}
	if op.Err = errno; op.stopped {
		op.Err = unix.EPERM
	}
	if op.Err == 0 && op.Durable && !fua && c.serves(s) {
		c.join(op, opDurable)
		return Later
	}
	c.unlist(op)
	c.judge(op)
	if op.reply == ReplyDone && !op.Durable {
		c.acked++
	}
	return Never
}

// judge decides the answer of an op that is over. One of a session that ended
// meanwhile gets none: its verifier may be another by now.
func (c *Core) judge(op *Op) {
	switch {
	case op.Err != 0 && !op.stopped && (c.cfg.Late || !noRoom(op.Err)):
		op.seat.parting = true
		c.failed(op.Err)
		op.reply, op.verifier = ReplyError, c.verifier
	case !c.serves(op.seat):
	case op.Err != 0:
		op.reply = ReplyError
	default:
		op.reply = ReplyDone
	}
}

// noRoom tells whether a change that failed so has cost nothing but itself: it
// found no room, before anything was written, and what was acknowledged has its
// place. Of a flush it says no such thing, nor of a store that is Late.
func noRoom(errno unix.Errno) bool { return errno == unix.ENOSPC || errno == unix.EDQUOT }

// Synced is the store's flush done: all who had joined it are over, or go on
// to be written. The first of the list is given; Follow gives the others; each
// has to be settled. A flush that failed is never tried again: who waited for it
// is told so, and everybody is cut. A client asks again on its next connection,
// but not for ever; that is why it has to hear of each failure, and of nothing
// else: an export that dies has not failed.
func (c *Core) Synced(errno unix.Errno) (over *Op) {
	round, out := c.round, opQueue{}
	c.round = opQueue{}
	if errno == 0 {
		c.covered = c.covering
	} else {
		for op := round.head; op != nil; op = op.link {
			op.seat.parting = true
		}
		c.failed(errno)
	}
	for op := round.pop(); op != nil; op = round.pop() {
		if op.phase == opFlush && errno == 0 {
			c.ready.push(op)
			continue
		}
		switch {
		case errno == 0 && c.serves(op.seat):
			op.reply = ReplyDone
		case errno != 0:
			op.Err, op.reply, op.verifier = errno, ReplyError, c.verifier
		}
		out.push(op)
	}
	if c.syncing = c.joined.head != nil; c.syncing {
		c.ready.push(&c.sync)
	}
	return out.head
}

// Settle lets those run that wait for op alone, which Synced gave. In the same
// step its answer is put on its way: nobody may be told of a later change to
// the same bytes before.
func (c *Core) Settle(op *Op) {
	if op.Kind != KindFlush {
		c.unlist(op)
	}
}

// Follow is the next in the list that Synced gave; call it before op is used
// again.
func (op *Op) Follow() *Op { return op.link }

// join lets op wait for a flush of the store that starts from now on: one
// serves all who wait. There is never more than one at a time, so that nobody
// can be told of success while another flush has taken the error away.
func (c *Core) join(op *Op, phase opPhase) {
	op.phase = phase
	if c.harms.hurry(c, op) {
		return
	}
	c.joined.push(op)
	if !c.syncing {
		c.syncing = true
		c.ready.push(&c.sync)
	}
}

// enlist puts op behind the changes that arrived before it.
func (c *Core) enlist(op *Op) {
	for o := c.first; o != nil; o = o.next {
		if c.ordered(o, op) {
			op.blockers++
		}
	}
	op.prev, op.next = c.latest, nil
	if c.latest == nil {
		c.first = op
	} else {
		c.latest.next = op
	}
	c.latest = op
}

// unlist takes op out and readies those that waited for it alone.
func (c *Core) unlist(op *Op) {
	for o := op.next; o != nil; o = o.next {
		if !c.ordered(op, o) {
			continue
		}
		if o.blockers--; o.blockers == 0 {
			c.ready.push(o)
		}
	}
	if op.prev == nil {
		c.first = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		c.latest = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.prev, op.next = nil, nil
}

// ordered tells whether b has to wait for a, which arrived before it. That holds
// across sessions too; without the fence only inside of one, as in a server
// that knows neither.
func (c *Core) ordered(a, b *Op) bool {
	return a.overlaps(b) && (a.seat == b.seat || !c.unfenced) && !c.harms.muddle()
}

func (op *Op) overlaps(o *Op) bool { return op.Off < o.Off+o.Len && o.Off < op.Off+op.Len }

// opQueue is a queue of ops, first in first out.
type opQueue struct{ head, tail *Op }

func (q *opQueue) push(op *Op) {
	op.link = nil
	if q.head == nil {
		q.head = op
	} else {
		q.tail.link = op
	}
	q.tail = op
}

func (q *opQueue) pop() *Op {
	op := q.head
	if op != nil {
		q.head = op.link
		op.link = nil
	}
	return op
}
