package trans

import (
	"sync"

	"dst/dataplane/mempool"
)

// DepthMax is the most elements of fronts that a reserve can have: ids carry 16
// bits of an element's number.
const DepthMax = 1 << 12

// Room is where the payload memory of requests comes from: a *mempool.Arena, or
// what a simulator puts in its place. See there for the methods.
type Room interface {
	TryGet(n int) []byte
	Get(n int, stop <-chan struct{}) (b []byte, ok bool)
	Put(b []byte)
	Waiting() bool
}

// Reserve is a node's fixed number of transactions and their payload memory.
type Reserve struct {
	pool    *mempool.Pool[Trans]
	arena   Room
	pressed func()

	own struct { // the node's own transactions: no front can take them all
		sync.Mutex
		free []*Trans
		all  int
	}
}

// NewReserve makes depth transactions (1 to DepthMax) for fronts, whose payload
// comes from arena, and own for the node itself.
func NewReserve(depth, own int, arena Room) *Reserve {
	r := &Reserve{arena: arena, pressed: func() {}}
	r.pool = mempool.New(depth+own, func(i int, t *Trans) {
		t.slot, t.span = i, -1
		t.Request.Owner = (*request)(t)
	})
	var fronts []*Trans
	for t := r.pool.TryGet(); t != nil; t = r.pool.TryGet() {
		if t.slot < depth {
			fronts = append(fronts, t)
			continue
		}
		t.own = true
		r.own.free = append(r.own.free, t)
	}
	for _, t := range fronts {
		r.pool.Put(t)
	}
	r.own.all = own
	return r
}

// SetPressed sets what is called, on the goroutine of the front, before
// somebody waits for payload memory. Call it before the first Get.
func (r *Reserve) SetPressed(f func()) { r.pressed = f }

// Starving tells whether somebody waits for payload memory.
func (r *Reserve) Starving() bool { return r.arena.Waiting() }

// Own takes a transaction of the node itself; its payload, if any, is the
// node's. nil if there is none.
func (r *Reserve) Own(op Op) *Trans {
	r.own.Lock()
	defer r.own.Unlock()
	n := len(r.own.free)
	if n == 0 {
		return nil
	}
	t := r.own.free[n-1]
	r.own.free = r.own.free[:n-1]
	t.Op = op
	return t
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
		if t.Data = r.arena.TryGet(int(length)); t.Data == nil {
			r.pressed()
			if t.Data, ok = r.arena.Get(int(length), stop); !ok {
				r.pool.Put(t)
				return nil, false
			}
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

// Put gives t back, and its payload memory unless somebody else has taken that
// over (t.Data is nil then) or t is the node's own.
func (r *Reserve) Put(t *Trans) {
	if t.Data != nil && !t.own {
		r.arena.Put(t.Data)
	}
	t.Flags, t.Offset, t.Length, t.Data, t.Err = 0, 0, 0, nil, 0
	t.Front, t.Cookie, t.Mark, t.OnWire, t.Resend, t.Promised = nil, 0, 0, false, false, false
	t.Request.Data, t.Answer.Data, t.Piece = nil, nil, Piece{}
	if t.own {
		r.own.Lock()
		defer r.own.Unlock()
		r.own.free = append(r.own.free, t)
		return
	}
	r.pool.Put(t)
}

// Depth is the number of elements, the node's own included: the numbers of
// elements (Trans.Slot) are below it.
func (r *Reserve) Depth() int { return r.pool.Len() }

// InUse is the number of elements that fronts have taken.
func (r *Reserve) InUse() int { return r.pool.InUse() - r.own.all }
