package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/remote"
)

// lostNode is a remembered node that could not be made again when the daemon
// started: a disk is missing, an address is taken. It is shown with the reason
// and keeps its name, rules and attachment; start tries again, del gives it up.
type lostNode struct {
	plane *Plane
	conf  abi.Node // as remembered
	why   error
	since time.Time
}

func (l *lostNode) refuse() error {
	return abi.Blame(abi.AttrNodeName, fmt.Errorf("node %q could not be restored, start it to try again or remove it: %w", l.conf.Name, l.why))
}

func (l *lostNode) start() error               { return l.refuse() } // Plane.Start makes it again
func (l *lostNode) set(*abi.Node) error        { return l.refuse() }
func (l *lostNode) crypto(*cryptoChange) error { return l.refuse() }

func (l *lostNode) rule(abi.Rule, bool) error { return l.refuse() }
func (l *lostNode) launch()                   {}
func (l *lostNode) stop()                     {}
func (l *lostNode) stats() *abi.Counters      { return new(abi.Counters) }

// device is the kernel device that the node had, nil if there is none.
func (l *lostNode) device() *leftover {
	return l.plane.leftover(&l.conf, l.plane.run.readPage(l.conf.Name))
}

func (l *lostNode) remove(force bool) error {
	if !force && remote.Dirty(l.plane.run.readPage(l.conf.Name)) {
		return abi.Blame(abi.AttrNodeName, fmt.Errorf("node %q has acknowledged changes that may not be durable at the peer: mend why it could not be restored and start it, or say force, which loses them: %w",
			l.conf.Name, unix.EBUSY))
	}
	return abi.Blame(abi.AttrNodeName, l.device().release(force))
}

func (l *lostNode) config() *abi.Node {
	n := l.conf
	return &n
}

func (l *lostNode) get() *abi.Node {
	n := l.config()
	n.Mask = 0
	fillKnobs(n)
	age := uint64(time.Since(l.since).Milliseconds())
	n.Status = &abi.Status{State: abi.StateFailed, StateAge: age, Rules: l.conf.Status.Rules, Keys: l.conf.Status.Keys,
		Reason: fmt.Sprintf("could not be restored (start tries again): %v", l.why)}
	l.device().describe(n.Status)
	return n
}
