package export

import (
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

const (
	maxSeats  = 256 // sessions and waiting clients of one export, but for those that return
	maxEpochs = 512 // client ids whose last epoch is remembered
	askRounds = 2   // keepalives that a holder has to show that it lives

	// absence is how long the place of a holder without a link is kept from
	// others, at least: a client dials again within a second and a quarter, for
	// up to a second.
	absence = 3 * time.Second

	// patienceMost is the longest that anybody waits for a holder to show that it
	// lives, or to come back, however long the keepalive is.
	patienceMost = time.Minute
)

// Seat is one client of an export: from its HELLO to the end of its last
// request. Exported fields are for the driver to read, under its lock.
type Seat struct {
	ID       abi.ID
	Epoch    uint64
	Perm     abi.Perm     // granted; may shrink
	Verifier abi.Verifier // of its whole life: a change ends it
	Owner    any          // the driver's

	phase   seatPhase
	wanted  abi.Perm
	allowed abi.Perm
	steal   bool
	refusal *abi.Refuse
	asked   *Seat     // the holder that was asked whether it lives
	awaited int       // the absence that was waited for
	answer  time.Time // when it must have answered, or be back
	running int       // changes that the store is doing
	parting bool      // an answer that tells of an error is still to leave
}

type seatPhase uint8

const (
	seatWaiting seatPhase = iota
	seatOpen              // its requests run
	seatFenced            // nothing of it is started any more; running ones are waited for
	seatGone
)

// Running is the number of changes of this client that the store is doing.
func (s *Seat) Running() int { return s.running }

// Fenced tells whether the client has lost its place and its last requests are
// waited for.
func (s *Seat) Fenced() bool { return s.phase == seatFenced }

// Open tells whether the client's requests may run.
func (s *Seat) Open() bool { return s.phase == seatOpen }

type epoch struct {
	id     abi.ID
	newest uint64
}

// Hello is a client that asks for a place; allowed is what the rules grant it.
// The answer is a seat to Poll, or why not.
func (c *Core) Hello(h *abi.Hello, allowed abi.Perm, owner any) (*Seat, *abi.Refuse) {
	switch {
	case allowed&abi.PermRead == 0:
		return nil, noAccess()
	case h.Epoch <= c.newest(h.ClientID):
		return nil, stale()
	case len(c.seats) >= maxSeats && !c.returns(h.ClientID):
		return nil, &abi.Refuse{Code: abi.RefuseLimit, Errno: unix.EUSERS,
			Text: fmt.Sprintf("the export serves %d clients already: detach one, or come back", maxSeats)}
	}
	c.remember(h.ClientID, h.Epoch)
	s := &Seat{ID: h.ClientID, Epoch: h.Epoch, wanted: h.Mode | abi.PermRead, allowed: allowed, steal: h.Steal, Owner: owner}
	for _, o := range slices.Clone(c.seats) {
		if o.ID == s.ID && o.phase == seatWaiting {
			c.refuse(o, stale())
		}
	}
	c.seats = append(c.seats, s)
	return s, nil
}

// returns tells whether a client comes back to what is its own, which others
// cannot fill up: a seat that it still has, or the read-write place. No client has
// more than two seats, one of them waiting for the end of the other.
func (c *Core) returns(id abi.ID) bool {
	return id == c.last || slices.ContainsFunc(c.seats, func(s *Seat) bool { return s.ID == id })
}

func noAccess() *abi.Refuse {
	return &abi.Refuse{Code: abi.RefuseNoAccess, Errno: unix.EACCES,
		Text: "not allowed here, or no such export: check the name, the security rules and that the export is started"}
}

func stale() *abi.Refuse {
	return &abi.Refuse{Code: abi.RefuseStale, Errno: unix.ESTALE, Text: "a newer connection of this client was seen"}
}

// newest is the newest epoch seen of a client id, 0 if none is remembered.
func (c *Core) newest(id abi.ID) uint64 {
	for i := range c.known {
		if c.known[i].id == id {
			return c.known[i].newest
		}
	}
	return 0
}

// remember notes the newest epoch of a client id as the most recent. Beyond
// maxEpochs the least recent one without a seat is forgotten: a late HELLO of
// it is a stranger's, who cannot push a living holder away.
func (c *Core) remember(id abi.ID, newest uint64) {
	c.known = slices.DeleteFunc(c.known, func(e epoch) bool { return e.id == id })
	if len(c.known) >= maxEpochs {
		i := slices.IndexFunc(c.known, func(e epoch) bool {
			return !slices.ContainsFunc(c.seats, func(s *Seat) bool { return s.ID == e.id })
		})
		c.known = slices.Delete(c.known, i, i+1) // there are more epochs than seats
	}
	c.known = append(c.known, epoch{id, newest})
}

// Verdict is what a waiting client gets.
type Verdict uint8

const (
	Granted  Verdict = iota + 1 // it has the place; Propose, Install, WELCOME
	Refused                     // answer the refusal; its seat is gone
	Asking                      // the holder is asked; Poll again at the time given or when woken
	Draining                    // the fence waits; Poll again when woken
)

// Poll looks whether a waiting client can have its place now. at is when to
// call again, if Asking.
func (c *Core) Poll(s *Seat, now time.Time) (v Verdict, r *abi.Refuse, at time.Time) {
	switch {
	case s.phase == seatOpen:
		return Granted, nil, at
	case s.phase == seatWaiting && s.allowed&abi.PermRead == 0:
		c.refuse(s, noAccess())
	}
	if s.phase != seatWaiting {
		return Refused, s.refusal, at
	}
	perm := s.wanted & s.allowed
	wait := perm&abi.PermWrite != 0 && c.awaits(s, now)
	v = Granted
	for _, o := range slices.Clone(c.seats) {
		if o == s || o.phase == seatWaiting || !c.blocks(o, s, perm) {
			continue
		}
		if o.phase == seatOpen && o.ID != s.ID && !s.steal && o.Perm&abi.PermWrite != 0 && !c.silent(o, s, now) {
			v = Asking
			continue
		}
		if o.phase == seatOpen && (o.ID == s.ID || o.Perm&abi.PermWrite != 0) {
			c.fence(o, fmt.Errorf("a newer connection took the place: %w", unix.ESTALE))
			if o.ID != s.ID && c.absent == o.ID {
				s.awaited, s.answer = c.absences, now // it need not wait for it again
			}
		}
		if o.phase != seatGone && o.running > 0 && v == Granted {
			v = Draining
		}
	}
	if v == Granted && wait {
		v = Asking
	}
	if v == Granted {
		s.phase, s.Perm, s.Verifier, s.asked = seatOpen, perm, c.verifier, nil
	}
	return v, nil, s.answer
}

// blocks tells whether o stands in the way of s: an older connection of the
// same client always does; of another one, if both write.
func (c *Core) blocks(o, s *Seat, perm abi.Perm) bool {
	if o.ID == s.ID {
		return true
	}
	return perm&abi.PermWrite != 0 && !c.cfg.Shared && (o.Perm&abi.PermWrite != 0 || o.running > 0)
}

// silent tells whether the holder o did not answer in time; at first it asks.
func (c *Core) silent(o, s *Seat, now time.Time) bool {
	if s.asked != o {
		s.asked, s.answer = o, now.Add(c.patience())
		c.act(Ask, o, nil)
	}
	return !now.Before(s.answer)
}

// patience is how long a holder has to show that it lives.
func (c *Core) patience() time.Duration { return min(askRounds*c.cfg.Keepalive, patienceMost) }

// awaits tells whether s has to wait for a holder that has only lost its link, or
// whose export was restarted. Without that every such moment would be a race
// for the place, and who loses it has failed for good.
func (c *Core) awaits(s *Seat, now time.Time) bool {
	if c.absent == (abi.ID{}) || c.absent == s.ID || s.steal {
		return false
	}
	if s.awaited != c.absences {
		s.awaited, s.answer = c.absences, now.Add(max(c.patience(), absence))
	}
	return now.Before(s.answer)
}

// Asked is the holder that was asked on behalf of s, nil if none.
func (s *Seat) Asked() *Seat { return s.asked }

// Alive is a sign of life of a client that was asked for: those who wanted its
// place are refused, and told the beginning of its id: all of it would do to come
// in its place.
func (c *Core) Alive(s *Seat) {
	for _, o := range slices.Clone(c.seats) {
		if o.phase == seatWaiting && o.asked == s && s.phase == seatOpen {
			c.refuse(o, &abi.Refuse{Code: abi.RefuseBusy, Errno: unix.EBUSY, Text: fmt.Sprintf(
				"client %s... writes there: detach it first, attach read-only, or make the export shared", s.ID.String()[:8])})
		}
	}
}

// Propose is the tenure for the WELCOME of s, which was granted its place.
// changed: the read-write place passes to s by it; tenure and last must be durable
// before Install. Tenures are not used up by clients that share the place: there
// last is zero.
func (c *Core) Propose(s *Seat) (tenure, last abi.ID, changed bool) {
	id := s.ID
	if c.cfg.Shared {
		id = abi.ID{}
	}
	if s.phase != seatOpen || s.Perm&abi.PermWrite == 0 || c.last == id {
		return c.tenure, c.last, false
	}
	if _, err := io.ReadFull(c.cfg.Rand, tenure[:]); err != nil {
		panic("export: no random bytes: " + err.Error())
	}
	return tenure, id, true
}

// Install lets what Propose said of s hold, as the last thing before its WELCOME;
// meanwhile nobody else was proposed. False: s has lost its place again, and
// Tenure is what it was. So it is, too, if Install is never called: only who is
// welcomed takes the tenure from another one, whose device fails by that.
func (c *Core) Install(s *Seat, tenure, last abi.ID) bool {
	if s.phase != seatOpen {
		return false
	}
	if s.Perm&abi.PermWrite != 0 {
		c.tenure, c.last, c.absent = tenure, last, abi.ID{}
	}
	return true
}

// Tenure is what has to be durable: the present tenure, and whose it is.
func (c *Core) Tenure() (tenure, last abi.ID) { return c.tenure, c.last }

// Leave ends a client's place: its connection is gone. What it has running is
// waited for by whoever comes next; and its right to write is kept for it a
// while.
func (c *Core) Leave(s *Seat) {
	switch s.phase {
	case seatWaiting:
		c.remove(s)
	case seatOpen:
		c.part(s)
	}
}

// Bye is Leave of a client that said that it will not come back.
func (c *Core) Bye(s *Seat) {
	if c.Leave(s); c.absent == s.ID {
		c.absent = abi.ID{}
	}
}

// fence ends a session from here: nothing of it starts any more.
func (c *Core) fence(s *Seat, why error) {
	c.act(Cut, s, why)
	c.part(s)
}

func (c *Core) part(s *Seat) {
	if s.Perm&abi.PermWrite != 0 && c.last == s.ID {
		c.absent, c.absences = s.ID, c.absences+1
	}
	s.phase = seatFenced
	if s.running == 0 || c.unfenced {
		c.remove(s)
	}
}

func (c *Core) refuse(s *Seat, r *abi.Refuse) {
	s.refusal = r
	c.remove(s)
	c.act(Wake, s, nil)
}

// remove forgets a seat and wakes those who may have waited for it.
func (c *Core) remove(s *Seat) {
	s.phase = seatGone
	c.seats = slices.DeleteFunc(c.seats, func(o *Seat) bool { return o == s })
	for _, o := range c.seats {
		if o.phase == seatWaiting {
			c.act(Wake, o, nil)
		}
	}
}
