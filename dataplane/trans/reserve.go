package trans

import "dst/dataplane/mempool"

// DepthMax is the most elements a reserve can have: ids carry 16 bits of it.
const DepthMax = 1 << 12

// Reserve is a node's fixed number of transactions and their payload memory.
type Reserve struct {
	pool  *mempool.Pool[Trans]
	arena *mempool.Arena
}

// NewReserve makes depth transactions (1 to DepthMax) whose payload comes from
// arena.
func NewReserve(depth int, arena *mempool.Arena) *Reserve {
	return &Reserve{arena: arena, pool: mempool.New(depth, func(i int, t *Trans) {
		t.slot, t.span = i, -1
		t.Request.Owner = (*request)(t)
	})}
}

// Get takes a transaction for op with payload memory for length bytes, waiting
// for both. It reports false once stop is closed.
func (r *Reserve) Get(op Op, length uint32, stop <-chan struct{}) (*Trans, bool) {
	t, ok := r.pool.Get(stop)
	if !ok {
		return nil, false
	}
	t.Op, t.Length = op, length
	if op == Read || op == Write {
		if t.Data, ok = r.arena.Get(int(length), stop); !ok {
			r.pool.Put(t)
			return nil, false
		}
	}
	return t, true
}

// TryGet is Get that does not wait: nil where Get would.
func (r *Reserve) TryGet(op Op, length uint32) *Trans {
	t := r.pool.TryGet()
	if t == nil {
		return nil
	}
	t.Op, t.Length = op, length
	if op == Read || op == Write {
		if t.Data = r.arena.TryGet(int(length)); t.Data == nil {
			r.pool.Put(t)
			return nil
		}
	}
	return t
}

// Put gives t and its payload memory back.
func (r *Reserve) Put(t *Trans) {
	if t.Data != nil {
		r.arena.Put(t.Data)
	}
	t.Flags, t.Offset, t.Length, t.Data, t.Err = 0, 0, 0, nil, 0
	t.Front, t.Cookie, t.Mark, t.OnWire, t.Resend = nil, 0, 0, false, false
	t.Request.Data, t.Answer.Data = nil, nil
	r.pool.Put(t)
}

// Depth is the number of elements.
func (r *Reserve) Depth() int { return r.pool.Len() }

// InUse is the number of elements taken.
func (r *Reserve) InUse() int { return r.pool.InUse() }
