package trans

import (
	"slices"

	"dst/abi"
)

// Replay goes through a Log and gives out what has to be written again: of each
// range the newest bytes, if they were acknowledged in another era than the
// present one. Newest records come first; the pieces do not overlap, so their
// order does not matter.
type Replay struct {
	log     *Log
	era     uint32
	next    uint64     // the record to look at
	at      uint64     // where in it
	covered []interval // what newer records say something of: sorted, disjoint
	out     int        // pieces given out and not returned
	flying  [ReplayDepth]uint64
}

// ReplayDepth is how many pieces may be out at the same time.
const ReplayDepth = 16

// interval is the bytes from from to to.
type interval struct{ from, to uint64 }

// Piece is something to be written again.
type Piece struct {
	slot   int // of flying
	Op     Op
	Flags  uint64
	Offset uint64
	Length uint32
	Data   []byte // of a Write: in the log
}

// Replay begins to write again what is not of this era; pieces of an earlier
// one that are still out are forgotten.
func (l *Log) Replay(era uint32) *Replay {
	r := &l.replay
	r.era, r.next, r.at, r.out = era, l.tail, 0, 0
	r.covered = r.covered[:0]
	r.flying = [ReplayDepth]uint64{}
	return r
}

// Next is the next piece, of most bytes at most; false if there is none now,
// which is the end if nothing is out.
func (r *Replay) Next(most uint32) (p Piece, ok bool) {
	if r.out == ReplayDepth {
		return p, false
	}
	if p, ok, mine := r.log.harms.next(r); mine {
		return p, ok
	}
	for r.next > r.log.head {
		rec := r.log.record(r.next)
		if rec.kind() != KindCut && rec.era() != r.era {
			if from, to, ok := r.gap(max(r.at, rec.off()), rec.end()); ok {
				r.at = min(to, from+uint64(most))
				return r.give(rec, from, r.at), true
			}
		}
		r.pass(rec)
	}
	return p, false
}

// gap is the first part of from to to that nothing newer covers.
func (r *Replay) gap(from, to uint64) (a, b uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(r.covered, from, func(c interval, at uint64) int {
		if c.to > at {
			return 1
		}
		return -1
	}) // the first that ends behind from
	for ; from < to; i++ {
		if i == len(r.covered) || r.covered[i].from >= to {
			return from, to, true
		}
		if from < r.covered[i].from {
			return from, r.covered[i].from, true
		}
		from = r.covered[i].to
	}
	return 0, 0, false
}

// give makes the piece of rec from from to to.
func (r *Replay) give(rec record, from, to uint64) Piece {
	p := Piece{Op: Write, Offset: from, Length: uint32(to - from)}
	switch rec.kind() {
	case KindWrite:
		p.Data = r.log.payload.Piece(rec.extent())[from-rec.off() : to-rec.off()]
	case KindDiscard:
		p.Op = Discard
	case KindZero:
		p.Op = Zero
	case KindZeroNoHole:
		p.Op, p.Flags = Zero, abi.FlagNoHole
	}
	p.slot = slices.Index(r.flying[:], 0)
	r.flying[p.slot] = rec.seq()
	r.out++
	return p
}

// pass goes on to the record before rec, whose pieces are all given out.
func (r *Replay) pass(rec record) {
	seq := rec.seq()
	r.next, r.at = seq-1, 0
	r.cover(interval{rec.off(), rec.end()})
	r.settle(seq)
}

// Done says that the export has acknowledged p in the present era.
func (r *Replay) Done(p Piece) {
	seq := r.flying[p.slot]
	r.flying[p.slot] = 0
	r.out--
	r.settle(seq)
}

// settle renews a record all of whose pieces are there again.
func (r *Replay) settle(seq uint64) {
	if r.passed(seq) && !slices.Contains(r.flying[:], seq) && seq > r.log.head {
		if rec := r.log.record(seq); rec.kind() != KindCut {
			rec.renew(r.era)
		}
	}
}

// Over tells whether everything is there again.
func (r *Replay) Over() bool { return r.next <= r.log.head && r.out == 0 }

// cover adds c to what is covered.
func (r *Replay) cover(c interval) {
	i, _ := slices.BinarySearchFunc(r.covered, c.from, func(o interval, at uint64) int {
		if o.to >= at {
			return 1
		}
		return -1
	}) // the first that ends at or behind c's beginning
	j := i
	for ; j < len(r.covered) && r.covered[j].from <= c.to; j++ {
		c.from, c.to = min(c.from, r.covered[j].from), max(c.to, r.covered[j].to)
	}
	if i == j {
		r.covered = slices.Insert(r.covered, i, c)
		return
	}
	r.covered[i] = c
	r.covered = slices.Delete(r.covered, i+1, j)
}
