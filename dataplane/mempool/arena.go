package mempool

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lendSize is what an Arena borrows at a time, in bytes, if its largest piece
// is not larger.
const lendSize = 1 << 20

// reservedWaiters is how many goroutines may wait in one Arena before the first
// of them costs an allocation (each of which is kept for the next).
const reservedWaiters = 8

// Arena is the payload memory of one remote or of one client's session: pages
// off the Go heap, handed out in contiguous, page-aligned pieces. The
// guaranteed part is there, and locked if possible, as long as the Arena is;
// more is lent from the Budget in chunks while it is needed. All methods may be
// called by any goroutine.
type Arena struct {
	budget     *Budget
	source     memory
	largest    int // bytes of the largest piece
	limit      int // bytes, guaranteed and lent together
	lend       int // bytes of a lent chunk
	guaranteed int // bytes
	locked     bool

	mu struct {
		sync.Mutex
		chunks      []*chunk // the guaranteed one, then the lent ones in order of age
		mapped      int      // bytes of them, and of the one being lent
		inUse       int      // bytes
		lending     bool     // somebody is mapping a chunk, without the lock
		closed      bool
		first, last *waiter // served in this order, nobody overtakes
		idle        *waiter // waiters to be used again
	}
}

// waiter is a Get that found no room.
type waiter struct {
	n     int
	b     []byte        // set, under the lock, when it is served
	ready chan struct{} // one token then; made once, used again
	next  *waiter
}

// NewArena makes an Arena of guaranteed bytes, mapped, present and locked from
// now on and counted in the budget, that may grow to limit bytes by chunks of 1 MiB
// or of largest, the largest piece that will be asked for. Sizes are rounded up
// to pages. Errors: EINVAL unless 0 < largest <= guaranteed <= limit, ENOMEM if
// the budget or the system has not so much.
func NewArena(b *Budget, guaranteed, limit, largest int) (*Arena, error) {
	return newArena(b, guaranteed, limit, largest, anonymous{}, nil)
}

// NewArenaIn is NewArena in the memory of m, which must have FileSize bytes of
// it. The pieces in kept, which an earlier Arena of the same sizes gave out
// there, are out of this one from the beginning, with their contents. Errors: also
// EUCLEAN for a kept piece that no such Arena can have given out.
func NewArenaIn(b *Budget, guaranteed, limit, largest int, m *File, kept []Extent) (*Arena, error) {
	m.unit = roundUp(max(largest, lendSize))
	m.used = make([]bool, len(m.mem)/m.unit)
	a, err := newArena(b, guaranteed, limit, largest, m, kept)
	if err == nil {
		m.sweep()
	}
	return a, err
}

// newArena is NewArena with memory from source, where kept is.
func newArena(b *Budget, guaranteed, limit, largest int, source memory, kept []Extent) (*Arena, error) {
	if largest <= 0 || guaranteed < largest || limit < guaranteed || limit > maxInt-PageSize {
		return nil, fmt.Errorf("arena of %d to %d bytes for pieces up to %d: it must hold at least one of the largest: %w",
			guaranteed, limit, largest, unix.EINVAL)
	}
	a := &Arena{
		budget: b, source: source, largest: roundUp(largest), guaranteed: roundUp(guaranteed), limit: roundUp(limit),
		lend: roundUp(max(largest, lendSize)),
	}
	if err := b.Reserve(int64(a.guaranteed)); err != nil {
		return nil, err
	}
	mem, locked, err := source.alloc(a.guaranteed)
	if err != nil {
		b.Release(int64(a.guaranteed))
		return nil, err
	}
	a.locked = locked
	a.mu.chunks = append(make([]*chunk, 0, 1+(a.limit-a.guaranteed)/a.lend), newChunk(mem[:a.guaranteed]))
	a.mu.mapped = a.guaranteed
	for range reservedWaiters {
		a.mu.idle = &waiter{ready: make(chan struct{}, 1), next: a.mu.idle}
	}
	for _, e := range kept {
		if err := a.keep(source.(*File), e); err != nil {
			a.Leave()
			return nil, err
		}
	}
	return a, nil
}

func roundUp(n int) int { return (n + PageSize - 1) &^ (PageSize - 1) }

// Get takes n bytes, page aligned and contiguous; the capacity is whole pages.
// Their content is arbitrary. While there is no room it borrows, and else waits,
// first come first served: a large piece is not starved by small ones. ok is
// false once stop is closed or the Arena is, and if n is not 1 to largest; a nil
// stop waits for ever.
func (a *Arena) Get(n int, stop <-chan struct{}) (b []byte, ok bool) {
	select {
	case <-stop:
		return nil, false
	default:
	}
	if b := a.TryGet(n); b != nil {
		return b, true
	}
	if n <= 0 || n > a.largest {
		return nil, false
	}
	a.mu.Lock()
	if a.mu.closed {
		a.mu.Unlock()
		return nil, false
	}
	w := a.enqueueLocked(n)
	a.serveLocked() // a Put may have come since TryGet
	a.borrowLocked()
	a.mu.Unlock()

	select {
	case <-w.ready:
		a.mu.Lock()
	case <-stop:
		a.mu.Lock()
		if w.b == nil {
			a.dequeueLocked(w)
		} else { // served at the same moment
			<-w.ready
			a.freeLocked(w.b)
			w.b = nil
		}
		a.serveLocked() // those behind w may fit where w did not
	}
	b, w.b = w.b, nil
	w.next, a.mu.idle = a.mu.idle, w
	a.mu.Unlock()
	return b, b != nil
}

// TryGet takes n bytes as Get does, or nil if that would mean to borrow or to
// wait, or to overtake somebody who waits.
func (a *Arena) TryGet(n int) []byte {
	if n <= 0 || n > a.largest {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.first != nil {
		return nil
	}
	return a.takeLocked(n)
}

// Put gives back what Get returned: b may have been shortened but starts where
// it did. It panics if that is not out.
func (a *Arena) Put(b []byte) {
	a.mu.Lock()
	c := a.freeLocked(b)
	a.serveLocked()
	spare := c.free == c.pages && a.retireLocked(c)
	a.mu.Unlock()
	if spare {
		a.release(c)
	}
}

// Trim gives the budget back what was lent and has been empty since the last
// Trim. (Put keeps what is empty, so that a load that comes in waves, as a replay
// log does that fills and is flushed, does not map the same memory with each of
// them; all but one chunk if the budget is scarce.) The owner calls it now and
// then, about each second.
func (a *Arena) Trim() {
	a.mu.Lock()
	for i := len(a.mu.chunks) - 1; i > 0; i-- {
		c := a.mu.chunks[i]
		if c.free == c.pages && !c.touched {
			a.mu.chunks = slices.Delete(a.mu.chunks, i, i+1)
			a.mu.mapped -= len(c.mem)
			a.release(c)
		}
		c.touched = false
	}
	a.mu.Unlock()
}

// InUse is the memory that is out, in bytes of whole pages.
func (a *Arena) InUse() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.inUse
}

// Waiting tells whether somebody waits for memory.
func (a *Arena) Waiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.first != nil
}

// Lent is the memory borrowed from the budget beyond the guaranteed, in bytes.
func (a *Arena) Lent() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.mu.mapped-a.guaranteed, 0)
}

// Locked tells whether the guaranteed part is safe from swap.
func (a *Arena) Locked() bool { return a.locked }

// Close unmaps everything and returns it to the budget. EBUSY, and nothing
// happens, while anything is out or somebody waits. Idempotent.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.inUse != 0 || a.mu.first != nil || a.mu.lending {
		return fmt.Errorf("arena: %d bytes are still in use: %w", a.mu.inUse, unix.EBUSY)
	}
	for _, c := range a.mu.chunks {
		a.release(c)
	}
	a.mu.chunks, a.mu.mapped, a.mu.closed = nil, 0, true
	return nil
}

// release unmaps a chunk that is in no list any more.
func (a *Arena) release(c *chunk) {
	a.source.free(c.mem)
	a.budget.Release(int64(len(c.mem)))
}

func (a *Arena) takeLocked(n int) []byte {
	pages := (n + PageSize - 1) / PageSize
	for _, c := range a.mu.chunks {
		if i := c.take(pages); i >= 0 {
			a.mu.inUse += pages * PageSize
			return c.mem[i*PageSize : i*PageSize+n : (i+pages)*PageSize]
		}
	}
	return nil
}

func (a *Arena) freeLocked(b []byte) *chunk {
	p := unsafe.SliceData(b) // the address identifies the piece, also at length 0
	for _, c := range a.mu.chunks {
		if i := c.page(p); i >= 0 {
			if k := c.put(i); k > 0 {
				a.mu.inUse -= k * PageSize
				return c
			}
			break
		}
	}
	a.mu.Unlock() // for whoever survives the panic
	panic("mempool: Put of what is not out of this arena")
}

// retireLocked takes the empty chunk c out of the Arena if it is a lent one,
// another lent one is empty too, and others may need it.
func (a *Arena) retireLocked(c *chunk) bool {
	if !a.budget.scarce() {
		return false
	}
	at, other := 0, false
	for i, d := range a.mu.chunks[1:] {
		if d == c {
			at = i + 1
		} else if d.free == d.pages {
			other = true
		}
	}
	if at == 0 || !other {
		return false
	}
	a.mu.chunks = slices.Delete(a.mu.chunks, at, at+1)
	a.mu.mapped -= len(c.mem)
	return true
}

// serveLocked hands memory to those who wait, in order, until one does not fit.
func (a *Arena) serveLocked() {
	for w := a.mu.first; w != nil; w = a.mu.first {
		b := a.takeLocked(w.n)
		if b == nil {
			return
		}
		a.mu.first, w.next = w.next, nil
		w.b = b
		w.ready <- struct{}{}
	}
}

// borrowLocked maps chunks, without the lock, as long as somebody waits and the
// limits permit. It may fail: whoever waits is served by a Put then, for the
// guaranteed part alone holds the largest piece.
func (a *Arena) borrowLocked() {
	for a.mu.first != nil && !a.mu.lending && a.mu.mapped+a.lend <= a.limit && a.budget.take(int64(a.lend)) {
		a.mu.lending = true
		a.mu.mapped += a.lend
		a.mu.Unlock()
		mem, _, err := a.source.alloc(a.lend)
		a.mu.Lock()
		a.mu.lending = false
		if err != nil {
			a.mu.mapped -= a.lend
			a.budget.Release(int64(a.lend))
			return
		}
		a.mu.chunks = append(a.mu.chunks, newChunk(mem[:a.lend]))
		a.serveLocked()
	}
}

func (a *Arena) enqueueLocked(n int) *waiter {
	w := a.mu.idle
	if w == nil {
		w = &waiter{ready: make(chan struct{}, 1)}
	} else {
		a.mu.idle, w.next = w.next, nil
	}
	w.n = n
	if a.mu.first == nil {
		a.mu.first = w
	} else {
		a.mu.last.next = w
	}
	a.mu.last = w
	return w
}

func (a *Arena) dequeueLocked(w *waiter) {
	var before *waiter
	for at := a.mu.first; at != w; at = at.next {
		before = at
	}
	if before == nil {
		a.mu.first = w.next
	} else {
		before.next = w.next
	}
	if a.mu.last == w {
		a.mu.last = before
	}
	w.next = nil
}
