package export

import (
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// historyLen is how many changes of state are remembered.
const historyLen = 8

type transition struct {
	state  abi.State
	at     time.Time
	reason string
}

// counts is what was counted since the node was added.
type counts struct {
	reads, writes, flushes, discards, zeroes       atomic.Uint64
	readBytes, writtenBytes                        atomic.Uint64
	errors, connects, breaks, refused, memoryWaits atomic.Uint64
	digestErrors, protocolErrors, authErrors       atomic.Uint64
}

// done counts a request that succeeded.
func (c *counts) done(r *request) {
	switch r.Kind {
	case KindRead:
		c.reads.Add(1)
		c.readBytes.Add(r.Len)
	case KindWrite:
		c.writes.Add(1)
		c.writtenBytes.Add(r.Len)
	case KindFlush:
		c.flushes.Add(1)
	case KindDiscard:
		c.discards.Add(1)
	case KindZero:
		c.zeroes.Add(1)
	}
}

// broken counts the end of a session.
func (c *counts) broken(why error) {
	switch {
	case errors.Is(why, errBye):
		return
	case unproven(why):
		c.authErrors.Add(1)
	case errors.Is(why, unix.EBADMSG):
		c.digestErrors.Add(1)
	case errors.Is(why, unix.EPROTO):
		c.protocolErrors.Add(1)
	}
	c.breaks.Add(1)
}

// Counters is what was counted since the node was added.
func (n *Node) Counters() *abi.Counters {
	c := &n.count
	return &abi.Counters{
		Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(),
		Discards: c.discards.Load(), Zeroes: c.zeroes.Load(),
		ReadBytes: c.readBytes.Load(), WrittenBytes: c.writtenBytes.Load(),
		Errors: c.errors.Load(), Connects: c.connects.Load(), Breaks: c.breaks.Load(), Refused: c.refused.Load(),
		DigestErrors: c.digestErrors.Load(), ProtocolErrors: c.protocolErrors.Load(), MemoryWaits: c.memoryWaits.Load(),
		AuthErrors: c.authErrors.Load(),
	}
}

// Status is how the export is doing.
func (n *Node) Status() *abi.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	st := &abi.Status{
		State: n.state, StateAge: millis(now.Sub(n.since)), Reason: n.reason,
		Verifier: n.core.Verifier(), StoreID: n.disk.Identity.ID, Perm: abi.PermRW,
		Unflushed: n.core.Unflushed(),
		BlockMin:  n.disk.Geometry.BlockMin, MaxSize: n.cfg.MaxPages * 4096,
		Rules: slices.Clone(n.rules), Warnings: slices.Clone(n.disk.Warnings),
	}
	if n.readOnly {
		st.Perm = abi.PermRead
	}
	if n.state == abi.StateServing && !n.rules.allowAnybody() {
		st.Warnings = append(st.Warnings, "no rule allows anybody anything: nobody can use this export, see dstctl security add")
	}
	if idle := n.rules.idle(n.Addrs()); idle != "" {
		st.Warnings = append(st.Warnings, idle)
	}
	st.Keys, st.Warnings = n.showKeys(st.Warnings)
	for _, t := range n.history {
		st.Transitions = append(st.Transitions, abi.Transition{State: t.state, Age: millis(now.Sub(t.at)), Reason: t.reason})
	}
	for _, s := range n.sessions {
		x := abi.Session{Peer: s.who.addr, ClientID: s.hello.ClientID, Epoch: s.hello.Epoch,
			Perm: s.seat.Perm, Age: millis(now.Sub(s.born)), Draining: s.seat.Fenced(), Key: s.who.key}
		if s.live.Load() {
			var oldest uint64
			x.InFlight, oldest = s.load()
			x.Workers = uint32(s.crew.size())
			st.InFlight += x.InFlight
			st.Oldest = max(st.Oldest, oldest)
			if !s.arena.Locked() {
				st.Warnings = append(st.Warnings, "payload memory of "+s.who.String()+" is not locked: give the daemon CAP_IPC_LOCK or raise RLIMIT_MEMLOCK")
			}
		}
		st.Sessions = append(st.Sessions, x)
	}
	return st
}

// load is how many requests of s wait for the store, and the age of the oldest
// in milliseconds.
func (s *session) load() (inFlight uint32, oldest uint64) {
	now := s.node.now()
	for i := range s.reserve.Len() {
		if since := s.reserve.At(i).since.Load(); since != 0 {
			inFlight++
			oldest = max(oldest, millis(time.Duration(now-since)))
		}
	}
	return inFlight, oldest
}

func millis(d time.Duration) uint64 { return uint64(max(d, 0).Milliseconds()) }

// enterState notes a change of state; mu is held, or nobody knows n yet.
func (n *Node) enterState(s abi.State, reason string) {
	n.state, n.since, n.reason = s, time.Now(), reason
	if len(n.history) == historyLen {
		n.history = slices.Delete(n.history, 0, 1)
	}
	n.history = append(n.history, transition{s, n.since, reason})
}

// notify tells the daemon of an event.
func (n *Node) notify(kind abi.EventKind, reason string, peer abi.Addr) {
	if n.env.Notify != nil {
		n.env.Notify(abi.Event{Kind: kind, Time: uint64(time.Now().UnixMilli()), Name: n.cfg.Name,
			State: abi.StateServing, Reason: reason, Peer: peer})
	}
}

// ended is a session's end, for counters, log and subscribers.
func (n *Node) ended(s *session) {
	n.count.broken(s.why)
	why := s.why
	if errors.Is(why, io.EOF) {
		why = errors.New("the client closed the connection")
	}
	n.log.Info().Stringer("client", s.who).Stringer("id", s.hello.ClientID).AnErr("why", why).Msg("session ended")
	n.notify(abi.EventKindSession, "session ended: "+why.Error(), s.who.addr)
}

// failed tells of an error of the store that ended all sessions; 0 is none.
func (n *Node) failed(errno unix.Errno) {
	if errno == 0 {
		return
	}
	n.log.Error().Err(errno).Str("device", n.cfg.Device).Msg("the store failed: all clients have to come again")
	n.notify(abi.EventKindError, "the store "+n.cfg.Device+" failed: "+errno.Error(), abi.Addr{})
}

// fullTime is how often it is told at most that the store has no room.
const fullTime = int64(time.Minute)

// full tells that changes find no room.
func (n *Node) full(errno unix.Errno) {
	now, last := n.now(), n.toldFull.Load()
	if last != 0 && now-last < fullTime || !n.toldFull.CompareAndSwap(last, now) {
		return
	}
	n.log.Error().Err(errno).Str("device", n.cfg.Device).Msg("the store has no room: changes that need some fail")
	n.notify(abi.EventKindError, "the store "+n.cfg.Device+" has no room: changes that need some fail", abi.Addr{})
}
