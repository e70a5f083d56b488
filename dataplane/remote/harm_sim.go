//go:build sim

package remote

import "dst/dataplane/trans"

// Harms are ways in which the simulator breaks a core.
type Harms struct {
	NoLog       bool // nothing that was acknowledged is kept
	NoCut       bool // what is durable hides no older records
	NoDiscard   bool // discards are not kept
	NoGate      bool // new requests leave during recovery
	OnePhase    bool // everything that is sent again leaves together
	OneVerifier bool // a replay that was begun is taken for complete
	Sequence    bool // the log has every request, durable ones too
}

type harms struct{ Harms }

// Harm breaks c.
func (c *Core) Harm(h Harms) { c.harms.Harms = h }

// rush tells whether t may leave before its phase.
func (h harms) rush(c *Core, t *trans.Trans) bool {
	return h.NoGate || h.OnePhase && c.gate == gateResend && t.Resend
}

// forget tells whether an answered change gets no record.
func (h harms) forget(t *trans.Trans, durable bool) bool {
	return h.NoLog || h.NoCut && durable || h.NoDiscard && t.Op == trans.Discard
}

// broken is called when a link has broken.
func (h harms) broken(c *Core) {
	if h.OneVerifier {
		c.log.HarmRenew(c.saved.Era)
	}
}

// durable tells whether a change needs no record of its own.
func (h harms) durable(d bool) bool { return d && !h.Sequence }

// HarmEpoch makes a page forget which epochs its node has used.
func HarmEpoch(page []byte) {
	s, _, err := load(page)
	if err == nil && s.Epoch > 0 {
		s.Epoch = 0
		s.store(page)
	}
}
