package remote

import (
	"time"

	"dst/abi"
)

// Status is the node as it is.
func (n *Node) Status() *abi.Status {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.core
	s := &abi.Status{
		State: c.state, StateAge: uint64(now.Sub(c.since).Milliseconds()), Reason: c.why(),
		Epoch: c.saved.Epoch, ClientID: c.saved.ClientID, Peer: n.peer,
		InFlight: uint32(c.table.Len()), Unflushed: uint64(c.log.Len()), LogBytes: c.log.Bytes(),
		Keys: n.keys(),
	}
	if c.saved.Known {
		s.Verifier, s.StoreID = c.saved.Verifier, c.saved.StoreID
	}
	if c.info != nil {
		s.BlockMin, s.MaxSize, s.Perm = c.info.BlockMin, c.info.MaxSize, c.welcome.Mode
	}
	var oldest time.Duration
	oldest, s.Wait = c.Waits(now, n.quiet.Load())
	s.Oldest = uint64(oldest.Milliseconds())
	for _, h := range c.history {
		s.Transitions = append(s.Transitions, abi.Transition{State: h.state, Reason: h.reason,
			Age: uint64(now.Sub(h.at).Milliseconds())})
	}
	return s
}

// why is the reason to show: while the link is down, that of the last break.
func (c *Core) why() string {
	if c.reason == "" && c.gate == gateClosed && len(c.history) > 0 {
		return c.history[len(c.history)-1].reason
	}
	return c.reason
}

// Counters are what the node counted since it was made.
func (n *Node) Counters() *abi.Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	counters := n.core.counters
	return &counters
}

// Set changes what may change while the node lives; nil leaves as is. Zero
// means off and never; a keepalive is above it.
func (n *Node) Set(keepalive, requestTimeout, failAfter, logAge *time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range []struct{ to, from *time.Duration }{
		{&n.knobs.keepalive, keepalive}, {&n.knobs.requestTimeout, requestTimeout}, {&n.knobs.failAfter, failAfter},
		{&n.knobs.logAge, logAge},
	} {
		if k.from != nil {
			*k.to = *k.from
		}
	}
	// the peer hears of it at the next connection
	n.core.hello.Keepalive = uint32(n.knobs.keepalive.Milliseconds())
}
