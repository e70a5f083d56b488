package trans

// Table holds the transactions that a node has taken and not completed, in the
// order of their submission, and the ranges that those among them change. It
// has no lock of its own: its node's lock guards it. Nothing is allocated
// after NewTable.
//
// Insert and Take are the two ends of a transaction's life in the node:
// between them it belongs to the table, and whoever takes it completes it.
type Table struct {
	reserve     *Reserve
	first, last *Trans
	seq         uint64
	n           int
	ids         []uint64 // by element: the filed id, 0 if none
	spans       []span   // of the changing ones, in no order
}

// span is a range that a transaction changes.
type span struct {
	from, to, seq uint64
	slot          int
}

// NewTable makes the table of the transactions of r.
func NewTable(r *Reserve) *Table {
	return &Table{reserve: r, ids: make([]uint64, r.Depth()), spans: make([]span, 0, r.Depth())}
}

// Insert files t, which must be sealed, behind all others.
func (b *Table) Insert(t *Trans) {
	b.seq++
	t.Seq = b.seq
	t.holds.Store(1)
	if t.prev = b.last; t.prev != nil {
		t.prev.next = t
	} else {
		b.first = t
	}
	b.last = t
	b.n++
	b.ids[t.slot] = t.ID
	if t.Op.Changes() {
		t.span = len(b.spans)
		b.spans = append(b.spans, span{t.Offset, t.End(), t.Seq, t.slot})
	}
}

// Find is the filed transaction of id, nil if there is none.
func (b *Table) Find(id uint64) *Trans {
	slot := int(id & 0xffff)
	if id == 0 || slot >= len(b.ids) || b.ids[slot] != id {
		return nil
	}
	return b.reserve.pool.At(slot)
}

// Take removes t, which must be filed: it belongs to the caller now, who
// completes it by Drop.
func (b *Table) Take(t *Trans) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		b.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		b.last = t.prev
	}
	t.prev, t.next = nil, nil
	b.n--
	b.ids[t.slot] = 0
	if i := t.span; i >= 0 {
		end := len(b.spans) - 1
		b.spans[i] = b.spans[end]
		b.reserve.pool.At(b.spans[i].slot).span = i
		b.spans = b.spans[:end]
		t.span = -1
	}
}

// Behind reports whether t must wait: an older filed transaction changes bytes
// that t changes too.
func (b *Table) Behind(t *Trans) bool {
	if !t.Op.Changes() {
		return false
	}
	from, to := t.Offset, t.End()
	for i := range b.spans {
		if s := &b.spans[i]; s.from < to && from < s.to && s.seq < t.Seq {
			return true
		}
	}
	return false
}

// First is the oldest filed transaction, nil if there is none.
func (b *Table) First() *Trans { return b.first }

// Next is the transaction filed behind t.
func (t *Trans) Next() *Trans { return t.next }

// Len is the number of filed transactions.
func (b *Table) Len() int { return b.n }
