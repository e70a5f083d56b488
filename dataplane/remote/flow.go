package remote

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// Submit takes the sealed transaction t: it is sent now, or when it may be.
// false: the node has failed or closed, t.Err says so, and t is the caller's.
func (c *Core) Submit(t *trans.Trans, now time.Time) bool {
	if c.fatal != 0 {
		t.Err = c.fatal
		c.counters.Errors++
		return false
	}
	t.Born = now
	c.table.Insert(t)
	if c.mayGo(t) {
		c.issue(t, now)
	} else {
		c.waiting++
	}
	return true
}

// mayGo is the one place that decides whether t may be sent on the present
// link now: the gate, the export's depth, no older change below it, room in the
// log, and nothing to be read that the kernel has to write again first.
func (c *Core) mayGo(t *trans.Trans) bool {
	switch {
	case c.gate == gateClosed, c.sent >= c.window:
		return false
	case c.gate == gateReplay && !t.Own() && !c.harms.rush(c, t):
		return false
	case c.gate == gateResend && !(t.Resend && t.Op.Changes()) && !c.harms.rush(c, t):
		return false
	case t.Own(): // older than everything that waits
		return true
	case t.Op.Changes():
		return !c.table.Behind(t) && c.promise(t)
	}
	return c.ghosts == 0 || t.Op != trans.Read || !c.log.Haunted(t.Offset, t.End())
}

// issue sends t. A flush covers what was acknowledged before it is sent.
func (c *Core) issue(t *trans.Trans, now time.Time) {
	t.OnWire, t.Issued = true, now
	c.sent++
	switch {
	case t.Op == trans.Flush:
		t.Mark = c.log.Tail()
	case t.Op.Changes() && !t.Own():
		c.log.SetRange(t.Slot(), t.Offset, uint64(t.Length))
	}
	if t.Resend {
		c.counters.Resent++
	}
	t.Hold()
	c.send(t)
}

// pump opens the gate when its phase is over and sends what waited, oldest
// first.
func (c *Core) pump(now time.Time) {
	if c.gate == gateReplay && c.playAgain(now) {
		c.page[offDirty] &^= dirtyReplay
		c.gate, c.replayFails = gateResend, 0
	}
	if c.gate == gateResend && c.resending == 0 {
		c.gate = gateOpen
		c.set(abi.StateEstablished, now, "")
		if t := c.oldest(); !c.reserve.Starving() && (t == nil || t.Born.After(c.down)) {
			c.down = time.Time{} // nobody has waited since before
		}
		if c.wanted || c.full() || c.haunted() {
			c.flushOwn(now)
		}
	}
	for t := c.table.First(); t != nil && c.waiting > 0 && c.sent < c.window; t = t.Next() {
		if !t.OnWire && c.mayGo(t) {
			c.waiting--
			c.issue(t, now)
		}
	}
}

// Expect finds the transaction that the answer h is for, without taking it,
// and checks that h can be its answer. An error means that the peer broke the
// protocol or changed its life: the link must be broken, nothing is completed.
func (c *Core) Expect(h *abi.Header) (*trans.Trans, error) {
	t := c.table.Find(h.ID)
	if t == nil || !t.OnWire {
		return nil, fmt.Errorf("the peer answered a request that is not in flight: %w", unix.EPROTO)
	}
	want := uint32(0)
	if t.Op == trans.Read && h.Errno() == 0 {
		want = t.Length
	}
	if h.Payload() != want || h.Sector != t.Offset/abi.SectorSize {
		return nil, fmt.Errorf("the peer's answer to a %v of %d bytes has %d: %w", t.Op, t.Length, h.Payload(), unix.EPROTO)
	}
	if h.Errno() == 0 && h.Verifier() != c.welcome.Verifier {
		return nil, fmt.Errorf("the export's verifier changed in mid-session: %w", unix.ESTALE)
	}
	return t, nil
}

// Done takes t, which Expect found for h and whose payload is in place and
// checked: the caller drops it, which completes it unless it has to be sent
// again. An error means that the link must be
// broken afterwards.
func (c *Core) Done(t *trans.Trans, h *abi.Header, now time.Time) error {
	if t.Op == trans.Flush && h.Errno() != 0 && h.Verifier() != c.welcome.Verifier {
		return c.flushFailed(t, h.Errno())
	}
	c.table.Take(t)
	c.sent--
	t.Err = h.Errno()
	if t.Own() {
		c.ownDone(t, now)
	} else {
		c.down = time.Time{}
		c.account(t, h, now)
	}
	if t.Resend && t.Op.Changes() {
		c.resending--
	}
	if c.waiting > 0 || c.gate != gateOpen {
		c.pump(now)
	}
	switch {
	case h.Verifier() != c.welcome.Verifier:
		return fmt.Errorf("the export reported %v and starts anew: %w", t.Err, unix.ESTALE)
	case t.Own() && t.Err != 0: // without it there is no going on
		return fmt.Errorf("the export can not take back what it acknowledged and lost, it is tried again: %w", t.Err)
	}
	return nil
}

// flushFailed keeps t, which the export could not do, for the next link: what it
// should have made durable is written again there first. The store's error is
// told only once, so whose flush it was does not matter.
func (c *Core) flushFailed(t *trans.Trans, errno unix.Errno) error {
	c.flushFails++
	t.Hold() // for the Drop that follows
	return fmt.Errorf("the export could not flush (%v) and starts anew: %w", errno, unix.ESTALE)
}

// account counts the answer and keeps the books of what is not durable yet.
func (c *Core) account(t *trans.Trans, h *abi.Header, now time.Time) {
	n := &c.counters
	switch t.Op {
	case trans.Read:
		n.Reads++
	case trans.Write:
		n.Writes++
	case trans.Flush:
		n.Flushes++
	case trans.Discard:
		n.Discards++
	case trans.Zero:
		n.Zeroes++
	}
	switch {
	case t.Err != 0:
		n.Errors++
	case t.Op == trans.Read:
		n.ReadBytes += uint64(t.Length)
	case t.Op == trans.Write:
		n.WrittenBytes += uint64(t.Length)
	case t.Op == trans.Flush:
		c.flushed(t.Mark, now)
	}
	if t.Op.Changes() {
		c.changed(t, t.Flags&abi.FlagFUA != 0 || h.Reserved&abi.Stable != 0, now)
	}
}

// Oldest is for how long the oldest request of the present link is on its way. What
// it waited for before that, here or for an earlier link, is not the answer of the
// present peer.
func (c *Core) Oldest(now time.Time) (age time.Duration) {
	for t := c.table.First(); t != nil; t = t.Next() {
		if t.OnWire {
			age = max(age, now.Sub(t.Issued))
		}
	}
	return age
}
