package history

import (
	"fmt"
	"math"
	"sync"
	"time"
)

const never = math.MaxUint64

// Outcome is what a client was told of an operation.
type Outcome uint8

const (
	Pending Outcome = iota
	Done
	Failed  // an error: a change is there or not
	Unknown // no answer will come: a change is there or not
)

func (o Outcome) String() string { return [...]string{"pending", "done", "failed", "unknown"}[o] }

// Op is one operation from its beginning to what its client was told. Only History changes it.
type Op struct {
	Kind    string // for messages
	ID      ID     // what a change leaves; 0 for zeroes, and for reads
	LBA, N  uint64 // sectors
	start   uint64
	begun   time.Time
	ended   time.Time
	outcome Outcome

	prev, next *Op // those that have not ended, in order of their start
}

// version is one value that a sector has or may have had. A change v is before another one u if v is over before u starts, or
// before a read starts that finds u. From the time on that such a u is there no read may find v.
type version struct {
	op   *Op
	over uint64 // by then the change has been made, or never will be
	eff  uint64 // by then it is known to have been made
	dead uint64 // no read that starts later finds it
}

// History is all of them. Its methods may be called by any goroutine.
type History struct {
	// Lenient: changes may fail, and one that does may be read and be gone again, also while it was not known to fail; until
	// something is written over it nothing is said of it. Set it, and Mortal, before the first Begin.
	Lenient bool
	// Mortal: who has sent a change may never know. What a read finds of one before that is known may be gone again; what is found
	// later stays.
	Mortal bool

	mu         sync.Mutex
	clock      uint64
	sectors    [][]version
	open       Op // a ring
	violations []string
	count      int
	ops        [4]uint64
	origin     time.Time
}

// New is the history of a device of so many sectors, all zeroes.
func New(sectors uint64) *History {
	h := &History{sectors: make([][]version, sectors), origin: time.Now()}
	h.open.prev, h.open.next = &h.open, &h.open
	first := &Op{Kind: "zeroes of the beginning", N: sectors, outcome: Done, begun: h.origin, ended: h.origin}
	for i := range h.sectors {
		h.sectors[i] = []version{{op: first, dead: never}}
	}
	return h
}

func (h *History) tick() uint64 { h.clock++; return h.clock }

// Begin is a change or a read that is about to be sent. A change has an id, but for zeroes.
func (h *History) Begin(kind string, change bool, id ID, lba, n uint64) *Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := &Op{Kind: kind, ID: id, LBA: lba, N: n, start: h.tick(), begun: time.Now()}
	op.prev, op.next = h.open.prev, &h.open
	op.prev.next, op.next.prev = op, op
	if change {
		for i := lba; i < lba+n; i++ {
			h.sectors[i] = append(h.prune(h.sectors[i]), version{op: op, over: never, eff: never, dead: never})
		}
	}
	return op
}

// prune forgets versions that no operation which still runs could find.
func (h *History) prune(vs []version) []version {
	if len(vs) < 8 {
		return vs
	}
	oldest := h.clock
	if h.open.next != &h.open {
		oldest = h.open.next.start
	}
	kept := vs[:0]
	for _, v := range vs {
		if v.dead >= oldest {
			kept = append(kept, v)
		}
	}
	return kept
}

// end takes op out of those that have not ended.
func (h *History) end(op *Op, o Outcome) (now uint64) {
	op.prev.next, op.next.prev = op.next, op.prev
	op.prev, op.next = nil, nil
	op.outcome, op.ended = o, time.Now()
	h.ops[o]++
	return h.tick()
}

// Changed is what a client was told of a change. After an error, or where no answer will come any more, the change was made before
// now, or never will be: whoever breaks that writes over what was acknowledged later.
func (h *History) Changed(op *Op, o Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.end(op, o)
	for i := op.LBA; i < op.LBA+op.N; i++ {
		vs := h.sectors[i]
		for j := range vs {
			if vs[j].op != op {
				continue
			}
			vs[j].over = min(vs[j].over, now)
			if o == Done {
				vs[j].eff = min(vs[j].eff, now)
				bury(vs, op.start, vs[j].eff, op)
			}
		}
	}
}

// bury notes that every change which was over before a time is older than u, which is there since eff.
func bury(vs []version, before, eff uint64, u *Op) {
	for i := range vs {
		if v := &vs[i]; v.op != u && v.over < before {
			v.dead = min(v.dead, eff)
		}
	}
}

// Flushed, or anything else that neither changes nor reads.
func (h *History) Flushed(op *Op, o Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(op, o)
}

// Found is the answer to a read: data, if it is Done.
func (h *History) Found(op *Op, o Outcome, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.end(op, o)
	if o != Done {
		return
	}
	for i := range op.N {
		b := data[i*Sector : (i+1)*Sector]
		id, ok := Parse(b, op.LBA+i)
		if !ok {
			h.accuse(op, op.LBA+i, fmt.Sprintf("%s: % x…", describe(b, op.LBA+i), b[:32]))
			continue
		}
		h.found(op, op.LBA+i, id, now)
	}
}

// found judges one sector. Zeroes may be those of several changes.
func (h *History) found(op *Op, lba uint64, id ID, now uint64) {
	vs := h.sectors[lba]
	var one *version
	n, start, vague := 0, uint64(never), false
	for i := range vs {
		if v := &vs[i]; v.op.ID == id && v.dead >= op.start {
			n++
			vague = vague || h.Lenient && v.op.outcome != Done || h.Mortal && v.op.outcome == Pending
			one, start = v, min(start, v.op.start)
		}
	}
	switch {
	case n == 0:
		h.accuse(op, lba, "what must not be there any more: "+h.name(vs, id)+"\n"+h.list(vs))
	case vague:
	case n == 1:
		one.eff, one.over = min(one.eff, now), min(one.over, now)
		bury(vs, max(op.start, start), one.eff, one.op)
	default:
		for i := range vs {
			if v := &vs[i]; v.op.ID != id && v.over < max(op.start, start) {
				v.dead = min(v.dead, now)
			}
		}
	}
}
