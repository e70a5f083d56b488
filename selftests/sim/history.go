package main

import (
	"fmt"

	"dst/abi"
	"dst/dataplane/trans"
)

// ask is one request of a user, and what the history knows of it. Times are
// ticks: every beginning and end has its own.
type ask struct {
	step
	id     int
	dev    *device
	values []uint64 // that it writes, or has read, by sector
	start  int
	end    int   // 0: not yet. A change that is not answered by then has no effect later
	ack    int   // answered with success
	seen   []int // by sector: when it was first read
	sure   bool  // it is durable: it survives both hosts
	flying bool  // the users wait for it
	lost   bool  // failed or abandoned: it may have happened or not, and may be lost again
}

// history is what a device may show (failover 6.2, O1): a read is wrong if it
// brings a value that was overwritten, for certain, by one that is known to have
// happened before the read began: acknowledged, or read. After the loss of a
// client's host only what is durable is known.
type history struct {
	ticks   int
	asks    []*ask
	changes [][]*ask // by sector, in the order of their beginning
	last    uint64   // value
	punch   bool
	stable  bool
}

func newHistory(set *settings) *history {
	return &history{changes: make([][]*ask, set.sectors), punch: set.punch, stable: set.stable || set.shared}
}

func (h *history) tick() int {
	h.ticks++
	return h.ticks
}

// begin enters what a user asks of dev.
func (h *history) begin(s step, dev *device) *ask {
	a := &ask{step: s, id: len(h.asks), dev: dev, start: h.tick(), values: make([]uint64, s.n), seen: make([]int, s.n)}
	h.asks = append(h.asks, a)
	if !s.op.Changes() {
		return a
	}
	for i := range a.values {
		if s.op == trans.Write {
			h.last++
			a.values[i] = h.last
		}
		h.changes[s.from+i] = append(h.changes[s.from+i], a)
	}
	return a
}

// vague tells whether a leaves a sector with any of its former values, for as
// long as nothing else is written there: a store may ignore a discard.
func (h *history) vague(a *ask) bool { return a.op == trans.Discard && !h.punch }

// done is a's success; what it read is in data.
func (h *history) done(a *ask, data []byte) error {
	a.ack = h.tick()
	if a.end == 0 {
		a.end = a.ack
	}
	switch {
	case a.op == trans.Read:
		for i := range a.values {
			a.values[i] = value(data[i*sectorSize:][:sectorSize], storeName, a.from+i)
			if err := h.judge(a, i); err != nil {
				return err
			}
		}
	case a.op == trans.Flush:
		for _, o := range h.asks {
			o.sure = o.sure || o.op.Changes() && o.dev == a.dev && o.ack != 0 && o.ack < a.start
		}
	default:
		a.sure = h.stable || a.flags&abi.FlagFUA != 0
	}
	return nil
}

// fail is a's error, or the end of who would have taken its answer.
func (h *history) fail(a *ask) {
	if a.lost = true; a.end == 0 {
		a.end = h.tick()
	}
}

// fence ends what a may do later, answered or not.
func (h *history) fence(a *ask) {
	if a.end == 0 {
		a.end = h.tick()
	}
}

// known tells whether x, a change of r's sector i, happened before r began.
func (h *history) known(x, r *ask, sector int) bool {
	if x.dev.dead && !x.sure {
		return false
	}
	if x.ack != 0 && x.ack < r.start {
		return true
	}
	seen := x.seen[sector-x.from]
	return x.dev == r.dev && !x.lost && seen != 0 && seen < r.start
}

// over finds a change that makes v, nil for the first value, too old for r.
func (h *history) over(v, r *ask, sector int) *ask {
	end := 0
	if v != nil {
		if end = v.end; end == 0 {
			return nil
		}
	}
	all := h.changes[sector]
	for i := len(all) - 1; i >= 0 && all[i].start > end; i-- {
		if x := all[i]; x != v && !h.vague(x) && h.known(x, r, sector) {
			return x
		}
	}
	return nil
}

// judge holds the i-th sector that r brought against what it may be.
func (h *history) judge(r *ask, i int) error {
	sector, v := r.from+i, r.values[i]
	var found, newer *ask
	n := 0
	if v == 0 {
		if newer = h.over(nil, r, sector); newer == nil {
			n++
		}
	}
	for _, x := range h.changes[sector] {
		if h.vague(x) {
			if h.over(x, r, sector) == nil && v <= h.last {
				return nil
			}
			continue
		}
		if x.values[sector-x.from] != v {
			continue
		}
		if o := h.over(x, r, sector); o != nil {
			newer = o
			continue
		}
		found = x
		n++
	}
	switch {
	case n == 0 && newer != nil:
		return fmt.Errorf("sector %d: %v brought value %d, which was overwritten for good by %v", sector, r, v, newer)
	case n == 0:
		return fmt.Errorf("sector %d: %v brought value %#x, which nobody wrote there", sector, r, v)
	case n == 1 && found != nil && found.seen[sector-found.from] == 0:
		found.seen[sector-found.from] = h.tick()
	}
	return nil
}

func (a *ask) String() string {
	return fmt.Sprintf("#%d %v of client %x [%d,%d]%v", a.id, a.step, a.dev.id[:2], a.start, a.end, a.values)
}
