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
		c.issue(t)
	} else {
		c.waiting++
	}
	return true
}

// mayGo is the one place that decides whether t may be sent on the present
// link now: the gate, the export's depth, and no older change below it.
func (c *Core) mayGo(t *trans.Trans) bool {
	switch {
	case c.gate == gateClosed, c.sent >= c.window:
		return false
	case c.gate == gateResend && !(t.Resend && t.Op.Changes()):
		return false
	}
	return !c.table.Behind(t)
}

// issue sends t. A flush covers what was acknowledged before it is sent.
func (c *Core) issue(t *trans.Trans) {
	t.OnWire = true
	c.sent++
	if t.Op == trans.Flush {
		t.Mark = c.acked
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
	if c.gate == gateResend && c.resending == 0 {
		c.gate = gateOpen
		c.set(abi.StateEstablished, now, "")
	}
	for t := c.table.First(); t != nil && c.waiting > 0 && c.sent < c.window; t = t.Next() {
		if !t.OnWire && c.mayGo(t) {
			c.waiting--
			c.issue(t)
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
// checked: t is the caller's to complete. An error means that the link must be
// broken afterwards.
func (c *Core) Done(t *trans.Trans, h *abi.Header, now time.Time) error {
	c.table.Take(t)
	c.sent--
	t.Err = h.Errno()
	c.account(t, h)
	if t.Resend && t.Op.Changes() {
		c.resending--
	}
	if c.waiting > 0 || c.gate == gateResend {
		c.pump(now)
	}
	if h.Verifier() != c.welcome.Verifier {
		return fmt.Errorf("the export reported %v and starts anew: %w", t.Err, unix.ESTALE)
	}
	return nil
}

// account counts the answer and keeps the books of what is not durable yet.
// The dirty mark is set before the front hears of the first such write.
func (c *Core) account(t *trans.Trans, h *abi.Header) {
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
	case t.Op == trans.Flush:
		c.flushFails = 0
		c.flushed = max(c.flushed, t.Mark)
		if c.flushed == c.acked {
			c.page[offDirty] = 0
		}
	default:
		if t.Op == trans.Write {
			n.WrittenBytes += uint64(t.Length)
		}
		if t.Flags&abi.FlagFUA == 0 && h.Reserved&abi.Stable == 0 {
			c.acked++
			c.page[offDirty] = 1
		}
	}
}

// Oldest is the longest age of a request that is in flight on the present
// link, counted from the link's start at the earliest: the time that it was
// down is not the answer of the present peer.
func (c *Core) Oldest(now time.Time) (age time.Duration) {
	for t := c.table.First(); t != nil; t = t.Next() {
		if t.OnWire {
			return min(now.Sub(t.Born), now.Sub(c.up))
		}
	}
	return 0
}
