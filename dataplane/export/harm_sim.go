//go:build sim

package export

// Harms are ways in which the simulator breaks a core.
type Harms struct {
	NoFence bool // an old session's requests go on as if nobody had come after it
	ReadOn  bool // they are begun, but waited for
	NoOrder bool // overlapping changes are done in any order
	Join    bool // a flush is content with one that runs already
}

type harms struct{ Harms }

// Harm breaks c.
func (c *Core) Harm(h Harms) {
	c.harms.Harms = h
	c.unfenced = h.NoFence
}

// readOn tells whether requests of old connections are begun.
func (h harms) readOn() bool { return h.ReadOn }

// muddle tells whether changes overtake each other.
func (h harms) muddle() bool { return h.NoOrder }

// hurry lets a flush join the round that is under way.
func (h harms) hurry(c *Core, op *Op) bool {
	if h.Join && c.round.head != nil && op.Kind == KindFlush {
		c.round.push(op)
		return true
	}
	return false
}
