package remote

import (
	"fmt"
	"time"

	"dst/abi"
)

// next is every step that a link may take. Whatever is not here is a bug.
//
//	configured ──► connecting ──► handshake ──► recovery ──► established
//	                   ▲  │           │            │              │
//	                   │  ▼           ▼            ▼              │
//	                  pause ◄───── broken ◄────────┴──────────────┘
//
// and from anywhere to failed (for good) and closed.
var next = map[abi.State][]abi.State{
	abi.StateConfigured:  {abi.StateConnecting},
	abi.StateConnecting:  {abi.StateHandshake, abi.StateBroken},
	abi.StateHandshake:   {abi.StateRecovery, abi.StateBroken},
	abi.StateRecovery:    {abi.StateEstablished, abi.StateBroken},
	abi.StateEstablished: {abi.StateBroken},
	abi.StateBroken:      {abi.StatePause},
	abi.StatePause:       {abi.StateConnecting},
	abi.StateFailed:      {},
	abi.StateClosed:      {},
}

// historyLen is how many transitions a node remembers.
const historyLen = 16

// transition is one entry of a node's history.
type transition struct {
	state  abi.State
	at     time.Time
	reason string
}

// set is the one door to the state; it notes when and why, and panics on a
// step that next does not have.
func (c *Core) set(s abi.State, now time.Time, reason string) {
	ok := s == abi.StateClosed || s == abi.StateFailed && c.state != abi.StateClosed
	for _, n := range next[c.state] {
		ok = ok || n == s
	}
	if !ok {
		panic(fmt.Sprintf("remote: step from %v to %v", c.state, s))
	}
	c.state, c.since, c.reason = s, now, reason
	if c.noteworthy(s, reason) {
		if len(c.history) == historyLen {
			copy(c.history, c.history[1:])
			c.history = c.history[:historyLen-1]
		}
		c.history = append(c.history, transition{s, now, reason})
		c.told = false
	}
}

// noteworthy keeps the history for what an administrator asks about: the
// steps of an attempt are not, and neither is the same failure once more.
func (c *Core) noteworthy(s abi.State, reason string) bool {
	switch s {
	case abi.StateConnecting, abi.StateHandshake, abi.StateRecovery, abi.StatePause:
		return false
	case abi.StateBroken:
		n := len(c.history)
		return n == 0 || c.history[n-1].state != s || c.history[n-1].reason != reason
	}
	return true
}
