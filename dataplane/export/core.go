package export

import (
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Core decides for one export: who is served, who holds the read-write place,
// when an old session is fenced off, which request may run when, and what its
// answer is worth. It has no goroutine, clock, socket or lock: whoever drives it
// (the node, a simulator) calls its methods one at a time with an event and the
// time, then does what Actions says.
//
// A request's road through it (order.go):
//
//  1. Begin   in the order of arrival: now, later, or never
//  2. Next    gives out those whose turn came later
//  3. End     when the store has done it; its Reply says what to answer
//
// A client's road (seats.go): Hello, then Poll until it is Granted or Refused,
// Propose, Install, and Leave in the end.
type Core struct {
	cfg      CoreConfig
	verifier abi.Verifier
	tenure   abi.ID
	last     abi.ID // who held the read-write place last
	absent   abi.ID // it has only lost its link, and may be back at any moment
	absences int    // how many there were

	seats []*Seat // in order of their HELLO
	known []epoch // the newest epochs seen, least recent first
	acts  []Action

	first, latest *Op     // changes that were begun, in order of arrival
	ready         opQueue // what Next gives out
	joined        opQueue // waits for the next flush of the store
	round         opQueue // waits for the present one
	sync          Op      // the flush of the store itself
	syncing       bool    // sync is ready or running

	// Changes acknowledged, how many of them the running flush covers, and how
	// many are durable.
	acked, covering, covered uint64

	// unfenced takes the fence out, for the test that shows what it is for.
	unfenced bool
	harms    harms
}

// CoreConfig is what a Core is made from.
type CoreConfig struct {
	Name         string
	Shared       bool          // several read-write clients
	Stable       bool          // every change is durable before its answer
	Late         bool          // as Geometry.Late
	Keepalive    time.Duration // how long a silent holder is waited for, by two; an absent one at least absence
	Rand         io.Reader     // 16 bytes for each verifier and tenure
	Tenure, Last abi.ID        // what was kept of the last life
}

// NewCore is the core of a store that was just opened: a new verifier.
func NewCore(c CoreConfig) *Core {
	core := &Core{cfg: c, tenure: c.Tenure, last: c.Last, absent: c.Last, absences: 1}
	core.sync.Kind = KindSync
	core.renew()
	return core
}

// Verifier is the name of the store's present life.
func (c *Core) Verifier() abi.Verifier { return c.verifier }

// Unflushed is how many changes were acknowledged since the last flush that
// covers them.
func (c *Core) Unflushed() uint64 { return c.acked - c.covered }

// Action is something that the driver has to do.
type Action struct {
	Kind ActionKind
	Seat *Seat
	Why  error // Cut
	// Parting, of a Cut: after the answer that is on its way has left.
	Parting bool
}

// ActionKind is what to do.
type ActionKind uint8

const (
	// Cut: start nothing more of this client and close its connection.
	Cut ActionKind = iota + 1
	// Ask: find out whether this client lives (PING), and call Alive if so.
	Ask
	// Wake: Poll this waiting client again.
	Wake
)

// Actions takes what has to be done since the last call.
func (c *Core) Actions() []Action {
	acts := c.acts
	c.acts = nil
	return acts
}

// Active tells whether Actions has anything.
func (c *Core) Active() bool { return len(c.acts) > 0 }

func (c *Core) act(kind ActionKind, s *Seat, why error) {
	c.acts = append(c.acts, Action{kind, s, why, s.parting})
}

// renew changes the verifier: acknowledged writes may be lost from here on.
func (c *Core) renew() {
	if _, err := io.ReadFull(c.cfg.Rand, c.verifier[:]); err != nil {
		panic("export: no random bytes: " + err.Error())
	}
}

// failed is what follows a write, discard, zero or flush that the store could
// not do: nobody may rely on what it acknowledged, so the verifier changes and
// every client has to come again and see it. Parting clients get the answer
// that tells of the error first.
func (c *Core) failed(errno unix.Errno) {
	c.renew()
	c.Recall(fmt.Errorf("the store of %s failed: %w", c.cfg.Name, errno))
}

// Shutdown cuts and refuses everybody: the export goes away.
func (c *Core) Shutdown() {
	why := fmt.Errorf("export %s ends (removed, or its daemon stops): %w", c.cfg.Name, unix.ESHUTDOWN)
	for _, s := range slices.Clone(c.seats) {
		switch s.phase {
		case seatOpen:
			c.fence(s, why)
		case seatWaiting:
			c.refuse(s, &abi.Refuse{Code: abi.RefuseShutdown, Errno: unix.ESHUTDOWN, Text: "the export ends: it is removed, or its daemon stops; come back"})
		}
	}
}

// Recall cuts everybody who is served: they come back and see what changed.
func (c *Core) Recall(why error) {
	for _, s := range slices.Clone(c.seats) {
		if s.phase == seatOpen {
			c.fence(s, why)
		}
	}
}

// Holder is the session of the read-write client, nil if there is none.
func (c *Core) Holder() *Seat {
	for _, s := range c.seats {
		if s.phase == seatOpen && s.Perm&abi.PermWrite != 0 {
			return s
		}
	}
	return nil
}

// Permit applies what a client may do from now on: nothing cuts it, less takes
// the right to write from it, and from what it has running (Proceed); more needs
// a new HELLO.
func (c *Core) Permit(s *Seat, perm abi.Perm) {
	switch {
	case s.phase == seatWaiting:
		s.allowed = perm
		c.act(Wake, s, nil)
	case s.phase != seatOpen:
	case perm&abi.PermRead == 0:
		c.fence(s, fmt.Errorf("export %s: its rules or keys do not allow this client any more: %w", c.cfg.Name, unix.EACCES))
		c.absent = abi.ID{}
	default:
		s.Perm &= perm
	}
}
