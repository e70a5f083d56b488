//go:build sim

package trans

import "dst/abi"

// harms are ways in which the simulator breaks a log.
type harms struct{ sequence bool }

// HarmSequence lets a log be replayed from its beginning, with what newer
// records hide: a log of requests, not of the newest bytes.
func (l *Log) HarmSequence() { l.harms.sequence = true }

// HarmRenew takes the whole log for replayed.
func (l *Log) HarmRenew(era uint32) {
	for seq := l.head + 1; seq <= l.tail; seq++ {
		if rec := l.record(seq); rec.kind() != KindCut {
			rec.renew(era)
		}
	}
}

// next gives sector after sector of record after record. r.next counts down all
// the same.
func (h harms) next(r *Replay) (p Piece, ok, mine bool) {
	if !h.sequence {
		return p, false, false
	}
	l := r.log
	for r.next > l.head {
		rec := l.record(l.head + 1 + l.tail - r.next)
		r.at = max(r.at, rec.off())
		if rec.kind() == KindCut || rec.era() == r.era || r.at >= rec.end() {
			r.next, r.at = r.next-1, 0
			r.settle(rec.seq())
			continue
		}
		at := r.at
		r.at += abi.SectorSize
		return r.give(rec, at, r.at), true, true
	}
	return p, false, true
}

func (r *Replay) passed(seq uint64) bool {
	if r.log.harms.sequence {
		return r.log.head+1+r.log.tail-r.next > seq
	}
	return r.next < seq
}
