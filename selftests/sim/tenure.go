package main

import (
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// settle makes the client's tenure durable, then opens. One at a time: an older
// tenure never follows a newer one.
func (n *session) settle() {
	n.phase = phaseSave
	if n.server.saves = append(n.server.saves, n); len(n.server.saves) == 1 {
		n.save()
	}
}

// save is settle for the first that waits for it: a new tenure is durable, then
// installed, if its client is still there; else the old one is made durable again.
func (n *session) save() {
	s := n.server
	tenure, last, changed := s.core.Propose(n.seat)
	rival := changed && s.w.rival != nil && last == s.w.rival.id
	if rival {
		s.w.wins()
	}
	noted, took := changed && n.phase == phaseSave && !n.eof, time.Duration(0)
	if noted {
		took = s.w.chance(s.w.plan.set.disk)
	}
	s.w.after(took, func() {
		if s.dead {
			return
		}
		if noted {
			s.disk.tenure, s.disk.last = tenure, last
		}
		n.saved(tenure, last, rival)
	})
}

// saved installs the tenure, or puts the old one back, and lets the next one save.
func (n *session) saved(tenure, last abi.ID, rival bool) {
	s := n.server
	if n.phase == phaseSave {
		switch {
		case n.eof:
			n.end()
		case s.core.Install(n.seat, tenure, last):
			if rival {
				s.w.won()
			}
			n.open(tenure)
		default:
			n.refuse(&abi.Refuse{Code: abi.RefuseShutdown, Errno: unix.ESTALE, Text: "the place was lost"})
			n.end()
		}
	}
	took := time.Duration(0)
	if is, _ := s.core.Tenure(); is != s.disk.tenure {
		took = s.w.chance(s.w.plan.set.disk)
	}
	s.w.after(took, func() {
		if s.dead {
			return
		}
		s.disk.tenure, s.disk.last = s.core.Tenure()
		if s.saves = s.saves[1:]; len(s.saves) > 0 {
			s.saves[0].save()
		}
	})
}
