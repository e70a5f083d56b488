package remote

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// What was acknowledged and is not known to be durable is in the log, from
// before its acknowledgement until a flush that was sent after it is answered
// in the life of the export in which the log knows it to be there.

// promise sees to it that t, a change, can be logged when it is answered; if
// there is no room the log has to be flushed first.
func (c *Core) promise(t *trans.Trans) bool {
	if !t.Promised {
		t.Promised = c.log.Reserve()
	}
	return t.Promised
}

// changed is an answered change. What was acknowledged is in the log before the
// front hears of it; what is durable hides older records of the same bytes.
func (c *Core) changed(t *trans.Trans, durable bool, now time.Time) {
	switch durable = c.harms.durable(durable); {
	case t.Err != 0, durable && c.log.Len() == 0, c.harms.forget(t, durable):
		c.log.Unreserve()
	case durable:
		c.log.Append(trans.KindCut, t.Offset, t.Length, nil, c.saved.Era)
	default:
		if c.log.Len() == 0 {
			c.page[offDirty] |= dirtyLog
			c.undurable = now
		}
		c.log.Append(kindOf(t), t.Offset, t.Length, t.Data, c.saved.Era)
		if t.Op == trans.Write {
			t.Data = nil // it is the log's
		}
	}
	t.Promised = false
	c.log.SetRange(t.Slot(), 0, 0)
	if c.ghosts > 0 { // with an error too: the kernel knows now that it may have happened or not
		c.ghosts = c.log.Lay(t.Offset, t.End())
	}
	if c.wanted || c.full() {
		c.flushOwn(now)
	}
}

// full tells whether it is time to flush the log, so that nobody has to wait for
// room in it.
func (c *Core) full() bool {
	return int(c.log.Bytes()) >= c.half || 2*c.log.Len() >= c.log.Records()
}

func kindOf(t *trans.Trans) trans.Kind {
	switch {
	case t.Op == trans.Write:
		return trans.KindWrite
	case t.Op == trans.Discard:
		return trans.KindDiscard
	case t.Flags&abi.FlagNoHole != 0:
		return trans.KindZeroNoHole
	}
	return trans.KindZero
}

// flushed is an answered flush: what was acknowledged before it was sent is
// durable. The gate has seen to it that nothing of that was lost then.
func (c *Core) flushed(mark uint64, now time.Time) {
	c.flushFails = 0
	c.orphaned = false // it was acknowledged in this life of the export, or the node would have failed
	if c.haunted() {
		c.ghosts = c.log.Lay(0, math.MaxUint64)
	}
	c.log.Trim(mark, c.saved.Era)
	c.undurable = now
	c.page[offDirty] &^= dirtyNoLog
	if c.log.Len() == 0 {
		c.page[offDirty] = 0
	}
}

// haunted tells whether there are ghosts that only a flush can lay. What is left of
// them has been on the export's disk, or not, since before this link; once it is
// durable a read may find it, and it will not be gone again.
func (c *Core) haunted() bool { return c.ghosts > 0 && c.forsaken }

// flushOwn flushes what nobody else flushes, if that is possible and not under
// way.
func (c *Core) flushOwn(now time.Time) {
	if c.flushing || c.gate != gateOpen || c.log.Len() == 0 && !c.haunted() {
		return
	}
	if t := c.reserve.Own(trans.Flush); t != nil {
		c.flushing, c.wanted = true, false
		c.file(t, now)
	}
}

// file submits a transaction of the core's own.
func (c *Core) file(t *trans.Trans, now time.Time) {
	t.Front, t.Born = owner{c.reserve}, now
	t.Seal(c.digest)
	c.table.Insert(t)
	if c.mayGo(t) {
		c.issue(t, now)
	} else {
		c.waiting++
	}
}

// owner takes the core's own transactions back.
type owner struct{ reserve *trans.Reserve }

func (o owner) Complete(t *trans.Trans) { o.reserve.Put(t) }
func (o owner) Flush()                  {}

// ghostTime is how long the kernel may take to send again what it had sent to
// an earlier daemon; its own limit is io_timeout, 5 s.
const ghostTime = 30 * time.Second

// Tick flushes what has waited for age, and for ghosts that nobody lays, and ends
// the wait of those who are gone.
func (c *Core) Tick(now time.Time, age time.Duration) {
	if c.gate == gateOpen && !c.reserve.Starving() && c.oldest() == nil {
		c.down = time.Time{} // who has waited is gone
	}
	if age > 0 && c.log.Len() > 0 && now.Sub(c.undurable) >= age {
		c.flushOwn(now)
	}
	if c.forsaken = c.forsaken || c.gate == gateOpen && now.Sub(c.up) > ghostTime; c.haunted() {
		c.flushOwn(now)
	}
}

// Relieve flushes because somebody waits for the memory that the log holds, or
// will hold when what is in flight is answered.
func (c *Core) Relieve(now time.Time) {
	c.wanted = true
	c.flushOwn(now)
}

// playAgain sends what the export has lost; true if nothing of it is left.
func (c *Core) playAgain(now time.Time) bool {
	for c.sent < c.window {
		t := c.reserve.Own(trans.Write)
		if t == nil {
			break
		}
		p, ok := c.replay.Next(c.info.MaxSize)
		if !ok {
			c.reserve.Put(t)
			break
		}
		t.Op, t.Flags, t.Offset, t.Length, t.Data, t.Piece = p.Op, p.Flags, p.Offset, p.Length, p.Data, p
		c.counters.Replayed++
		c.file(t, now)
	}
	return c.replay.Over()
}

// ownDone is an answer to what the core itself had sent.
func (c *Core) ownDone(t *trans.Trans, now time.Time) {
	switch {
	case t.Op == trans.Flush:
		c.flushing = false
		if t.Err == 0 {
			c.flushed(t.Mark, now)
			if c.wanted = c.wanted || c.reserve.Starving() || c.full(); c.wanted {
				c.flushOwn(now)
			}
		}
	case t.Err == 0:
		c.replay.Done(t.Piece)
	case t.Err != unix.ENOSPC && t.Err != unix.EDQUOT: // room may be made
		c.replayFails++
	}
}
