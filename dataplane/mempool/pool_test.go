package mempool

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type elem struct {
	i int
	_ [56]byte
}

func newElems(n int) *Pool[elem] { return New(n, func(i int, e *elem) { e.i = i }) }

func TestPoolIsWhatNewMade(t *testing.T) {
	p := newElems(5)
	if p.Len() != 5 || p.InUse() != 0 {
		t.Fatalf("Len %d, InUse %d", p.Len(), p.InUse())
	}
	for i := range p.Len() {
		if p.At(i).i != i || p.Index(p.At(i)) != i {
			t.Fatalf("element %d is %d at index %d", i, p.At(i).i, p.Index(p.At(i)))
		}
	}
}

func TestPoolHandsEachElementOnce(t *testing.T) {
	p := newElems(3)
	seen := map[*elem]bool{}
	for e := p.TryGet(); e != nil; e = p.TryGet() {
		seen[e] = true
	}
	if len(seen) != 3 || p.InUse() != 3 {
		t.Fatalf("%d elements, InUse %d", len(seen), p.InUse())
	}
	for e := range seen {
		p.Put(e)
	}
	if p.InUse() != 0 {
		t.Fatalf("InUse %d", p.InUse())
	}
}

func TestPoolGetWaitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newElems(1)
		e, _ := p.Get(nil)
		var order []int
		for i := range 4 {
			go func() {
				e, ok := p.Get(nil)
				if !ok {
					t.Error("no element")
				}
				order = append(order, i) // one at a time: there is one element
				time.Sleep(time.Second)
				p.Put(e)
			}()
			synctest.Wait() // so that it waits behind the others
		}
		if len(order) != 0 {
			t.Fatal("Get did not wait")
		}
		p.Put(e)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(order) != 4 || order[0] != 0 || order[1] != 1 || order[2] != 2 || order[3] != 3 {
			t.Fatalf("order %v", order)
		}
	})
}

func TestPoolGetStops(t *testing.T) {
	p := newElems(1)
	stop := make(chan struct{})
	e, ok := p.Get(stop)
	if !ok {
		t.Fatal("no element")
	}
	done := make(chan bool)
	go func() {
		_, ok := p.Get(stop)
		done <- ok
	}()
	close(stop)
	if <-done {
		t.Fatal("got an element that is out")
	}
	p.Put(e)
	if _, ok := p.Get(stop); ok {
		t.Fatal("got an element after stop")
	}
}

func TestPoolPutPanics(t *testing.T) {
	p, q := newElems(2), newElems(2)
	e := p.TryGet()
	p.Put(e)
	mustPanic(t, "put twice", func() { p.Put(e) })
	mustPanic(t, "of another pool", func() { p.Put(q.TryGet()) })
	mustPanic(t, "nil", func() { p.Put(nil) })
	mustPanic(t, "no elements", func() { New[elem](0, nil) })
	mustPanic(t, "elements of no size", func() { New[struct{}](1, nil) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestPoolStress(t *testing.T) {
	p := newElems(7)
	owners := make([]atomic.Int32, 7)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				e, _ := p.Get(nil)
				if owners[e.i].Add(1) != 1 {
					t.Error("two owners")
				}
				owners[e.i].Add(-1)
				p.Put(e)
			}
		})
	}
	wg.Wait()
	if p.InUse() != 0 {
		t.Fatalf("InUse %d", p.InUse())
	}
}

func TestPoolDoesNotAllocate(t *testing.T) {
	p := newElems(4)
	stop := make(chan struct{})
	if n := testing.AllocsPerRun(1000, func() {
		e, _ := p.Get(stop)
		p.Put(e)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkPool(b *testing.B) {
	p := newElems(128)
	stop := make(chan struct{})
	b.ReportAllocs()
	for b.Loop() {
		e, _ := p.Get(stop)
		p.Put(e)
	}
}
