package export

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// AddRule adds a rule, or changes the permission of an equal one, at once for
// clients that are served already: less is taken from them, more needs a new
// connection. Errors: EINVAL.
func (n *Node) AddRule(r abi.Rule) error {
	if err := r.Check(); err != nil {
		return err
	}
	n.permit(func() { n.rules = n.rules.with(r) })
	return nil
}

// DelRule removes the rule that names the same peers. Errors: ENOENT.
func (n *Node) DelRule(r abi.Rule) error {
	err := fmt.Errorf("export %s has no such rule: %w", n.cfg.Name, unix.ENOENT)
	n.permit(func() {
		rest, ok := n.rules.without(r)
		if ok {
			n.rules, err = rest, nil
		}
	})
	return err
}

// Rules is the security rules in the order of adding.
func (n *Node) Rules() []abi.Rule {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.rules)
}

// SetKeys replaces the keys that clients may prove; with none the export speaks to
// everybody in clear. Clients whose key is not among them are cut at once, those
// without one too. Keys that are gone are the caller's to wipe. Errors: EINVAL if
// another export at one of the addresses is served the other way.
func (n *Node) SetKeys(keys []*crypt.Key) error {
	agreement := &n.env.Ports.agreement
	agreement.Lock()
	defer agreement.Unlock()
	if served, _ := n.secure(); served {
		if err := n.agrees(len(keys) > 0); err != nil {
			return err
		}
	}
	n.permit(func() { n.keys = slices.Clone(keys) })
	return nil
}

// agrees tells whether n can be served with keys, or without, beside the others
// at its addresses: what a client has to say first cannot depend on whom it will
// name. Ports.agreement is held. Errors: EINVAL.
func (n *Node) agrees(keyed bool) error {
	for _, at := range n.ports {
		for _, o := range at.exports() {
			served, other := o.secure()
			switch {
			case o == n || !served || other == keyed:
			case keyed:
				return fmt.Errorf("export %s is served without a key at the same address %v: give it one too before both are started (remove one of them and add it again), or let them listen on addresses of their own: %w",
					o.cfg.Name, at.listener.Addr(), unix.EINVAL)
			default:
				return fmt.Errorf("export %s at the same address %v is served with keys only: give this one a key too, or let them listen on addresses of their own: %w",
					o.cfg.Name, at.listener.Addr(), unix.EINVAL)
			}
		}
	}
	return nil
}

// has tells whether a key of that id is among those of the export; mu is held.
func (n *Node) has(id abi.KeyID) bool {
	return slices.ContainsFunc(n.keys, func(k *crypt.Key) bool { return k.ID() == id })
}

// key is the export's key of that id, nil if it has none or is not served.
func (n *Node) key(id abi.KeyID) *crypt.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != abi.StateServing {
		return nil
	}
	for _, k := range n.keys {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

// secure tells whether the export is served, and with keys.
func (n *Node) secure() (served, keyed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state == abi.StateServing, len(n.keys) > 0
}

// allow is what a caller may do now.
func (n *Node) allow(who caller) abi.Perm {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.allowLocked(who)
}

func (n *Node) allowLocked(who caller) abi.Perm {
	switch {
	case n.state != abi.StateServing,
		!who.proven() && (len(n.keys) > 0 || n.cfg.RequireCrypto),
		who.proven() && !n.has(who.key):
		return 0
	}
	perm := n.rules.allow(who)
	if n.readOnly {
		perm &= abi.PermRead
	}
	return perm
}

// admits tells whether a caller that has not shown a key yet could be allowed
// anything.
func (n *Node) admits(who caller) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.keys) == 0 {
		return n.allowLocked(who) != 0
	}
	return slices.ContainsFunc(n.keys, func(k *crypt.Key) bool {
		who.key = k.ID()
		return n.allowLocked(who) != 0
	})
}

// stillTime is how long a change of the rules waits for what the store is doing
// for those who lost the right to it.
const stillTime = 50 * time.Millisecond

// permit changes the rules and applies them to those who are served. When it
// returns the store is called for them no more, not for the rest of a long erasure
// either, nor is it in a call for them that takes less than stillTime: a store that
// is stuck cannot be called back.
func (n *Node) permit(change func()) {
	n.mu.Lock()
	change()
	var lost []*Seat
	for _, s := range n.sessions {
		open, had := s.seat.Open(), s.seat.Perm
		n.core.Permit(s.seat, n.allowLocked(s.who))
		if open && s.seat.Running() > 0 && (!s.seat.Open() || s.seat.Perm != had) {
			lost = append(lost, s.seat)
		}
	}
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
	for end := time.Now().Add(stillTime); n.running(lost) && time.Now().Before(end); {
		time.Sleep(stillTime / 50)
	}
}

// running tells whether the store does something for one of these.
func (n *Node) running(seats []*Seat) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(seats, func(s *Seat) bool { return s.Running() > 0 })
}

// showKeys is the keys as they may be shown, and what is wrong with them; mu is held.
func (n *Node) showKeys(warnings []string) ([]abi.Key, []string) {
	var keys []abi.Key
	for _, k := range n.keys {
		shown := abi.Key{ID: k.ID(), Cipher: k.Suite().Cipher(), Hash: k.Suite().Hash()}
		for _, s := range n.sessions {
			if s.who.key == shown.ID {
				shown.Sessions++
			}
		}
		keys = append(keys, shown)
	}
	for _, r := range n.rules {
		if r.Key != (abi.KeyID{}) && !n.has(r.Key) {
			warnings = append(warnings, fmt.Sprintf("rule %s is for clients with key %v, which this export does not have: nobody can prove it", r.Who(), r.Key))
		}
	}
	if n.cfg.RequireCrypto && len(keys) == 0 {
		warnings = append(warnings, "crypto is required and there is no key: nobody is served until there is one")
	}
	return keys, warnings
}
