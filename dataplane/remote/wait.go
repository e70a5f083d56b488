package remote

import (
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// Waits is the age of the oldest request that has no answer, and what it waits
// for; quiet tells that the peer has given no sign of life for a while.
func (c *Core) Waits(now time.Time, quiet bool) (age time.Duration, what abi.Wait) {
	t := c.oldest()
	if t == nil {
		return 0, abi.WaitNothing
	}
	return now.Sub(t.Born), c.waitOf(t, quiet)
}

// oldest is the oldest request of a front, nil if there is none.
func (c *Core) oldest() *trans.Trans {
	t := c.table.First()
	for t != nil && t.Own() {
		t = t.Next()
	}
	return t
}

func (c *Core) waitOf(t *trans.Trans, quiet bool) abi.Wait {
	switch {
	case t.OnWire && quiet:
		return abi.WaitWire
	case t.OnWire:
		return abi.WaitDisk
	case c.draining:
		return abi.WaitFence
	case c.gate == gateClosed:
		return abi.WaitLink
	case c.gate == gateReplay, c.gate == gateResend && !(t.Resend && t.Op.Changes()):
		return abi.WaitReplay // of what was lost, or may be
	case c.sent >= c.window:
		return abi.WaitWindow
	case c.ghosts > 0 && t.Op == trans.Read && c.log.Haunted(t.Offset, t.End()):
		return abi.WaitKernel
	case t.Op.Changes() && !t.Promised && !c.table.Behind(t):
		return abi.WaitLog
	}
	return abi.WaitOrder
}
