package export

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
)

// settle gives s its tenure, a new one when it is durable. If that cannot be, or
// the client is not there any more to be welcomed, the old one stays.
func (n *Node) settle(s *session) error {
	n.saving.Lock()
	defer n.saving.Unlock()
	n.mu.Lock()
	tenure, last, changed := n.core.Propose(s.seat)
	n.mu.Unlock()
	err, stuck := error(nil), n.unsaved
	if changed {
		err = n.note(s, tenure, last)
	}
	n.mu.Lock()
	if err == nil && !n.core.Install(s.seat, tenure, last) {
		err = errLost
	}
	tenure, last = n.core.Tenure()
	n.mu.Unlock()
	var unsaved error
	if n.unsaved && (err != nil || !changed) {
		unsaved = n.save(tenure, last)
	}
	if n.unsaved = unsaved != nil; n.unsaved && !stuck {
		n.log.Warn().Err(unsaved).Msg("who writes cannot be noted: if the daemon is restarted before it can, that client's device may fail")
	}
	return err
}

// note makes the tenure of s durable, whose client lives before and after that.
func (n *Node) note(s *session, tenure, last abi.ID) error {
	if err := s.hungUp(); err != nil {
		return err
	}
	n.unsaved = true
	if err := n.save(tenure, last); err != nil {
		return &abi.Refuse{Code: abi.RefuseLimit, Errno: errnoOf(err), Text: cut("the export cannot note who writes: " + err.Error())}
	}
	return s.hungUp()
}

// save makes tenure and last durable; saving is held.
func (n *Node) save(tenure, last abi.ID) error {
	if n.disk.Identity.Save == nil {
		return nil
	}
	return n.disk.Identity.Save(tenure, last)
}

// errLost is for a client whose place went to another one before its WELCOME.
var errLost error = &abi.Refuse{Code: abi.RefuseShutdown, Errno: unix.ESTALE, Text: "the place was lost again meanwhile: come back"}

// errHungUp is a client that is gone before its WELCOME.
var errHungUp = fmt.Errorf("it hung up while it waited: %w", unix.ECONNRESET)

// hungUp tells whether the client is gone, although nothing is read from it yet.
// Errors: errHungUp.
func (s *session) hungUp() error {
	if s.left.Load() || conn.Gone(s.stream) {
		return errHungUp
	}
	return nil
}
