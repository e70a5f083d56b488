// Package mempool holds the memory a daemon in the write-back path must own
// before the first request arrives: reserves of whole elements (Pool) and
// page-aligned payload memory off the Go heap (Arena, Pages), both bounded.
// Whoever finds them empty waits; that wait is the back-pressure.
package mempool

import (
	"sync/atomic"
	"unsafe"
)

// Pool is a fixed reserve of n elements made once by New. An element belongs to
// whoever got it until Put; nothing is allocated after New. All methods may be
// called by any goroutine.
type Pool[T any] struct {
	elems []T
	out   []atomic.Bool // by index: taken and not yet given back
	free  chan *T       // the channel's queue of receivers is the FIFO of waiters
}

// New makes a reserve of n elements (n > 0) and calls init, if not nil, once for
// each with its index. An element's size must not be 0.
func New[T any](n int, init func(i int, e *T)) *Pool[T] {
	var e T
	if n <= 0 || unsafe.Sizeof(e) == 0 {
		panic("mempool: a Pool needs elements that have a size")
	}
	p := &Pool[T]{
		elems: make([]T, n),
		out:   make([]atomic.Bool, n),
		free:  make(chan *T, n),
	}
	for i := range p.elems {
		if init != nil {
			init(i, &p.elems[i])
		}
		p.free <- &p.elems[i]
	}
	return p
}

// Get takes an element and waits for one, first come first served, while there
// is none. ok is false once stop is closed; a nil stop waits for ever.
func (p *Pool[T]) Get(stop <-chan struct{}) (e *T, ok bool) {
	select {
	case <-stop:
		return nil, false
	default:
	}
	if e := p.TryGet(); e != nil {
		return e, true
	}
	select {
	case e := <-p.free:
		p.out[p.Index(e)].Store(true)
		return e, true
	case <-stop:
		return nil, false
	}
}

// TryGet takes an element, or nil if there is none at the moment.
func (p *Pool[T]) TryGet() *T {
	select {
	case e := <-p.free:
		p.out[p.Index(e)].Store(true)
		return e
	default:
		return nil
	}
}

// Put gives e back and never waits. It panics if e is not out or not of this pool.
func (p *Pool[T]) Put(e *T) {
	if !p.out[p.Index(e)].CompareAndSwap(true, false) {
		panic("mempool: Put without Get")
	}
	p.free <- e
}

// Len is the size of the reserve.
func (p *Pool[T]) Len() int { return len(p.elems) }

// InUse is the number of elements that are out; a momentary value.
func (p *Pool[T]) InUse() int { return len(p.elems) - len(p.free) }

// At is element i, whoever has it: for scans that know what they may read.
func (p *Pool[T]) At(i int) *T { return &p.elems[i] }

// Index is the i of At(i) == e. It panics if e is not an element of this pool.
func (p *Pool[T]) Index(e *T) int {
	// Only addresses are compared and subtracted, nothing is dereferenced.
	off := uintptr(unsafe.Pointer(e)) - uintptr(unsafe.Pointer(unsafe.SliceData(p.elems)))
	size := unsafe.Sizeof(*e)
	if i := off / size; i < uintptr(len(p.elems)) && off%size == 0 {
		return int(i)
	}
	panic("mempool: not an element of this pool")
}
