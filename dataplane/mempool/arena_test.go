package mempool

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

func newTestArena(t testing.TB, guaranteed, limit, largest int) (*Arena, *Budget) {
	t.Helper()
	b := NewBudget(64 * mib)
	a, err := NewArena(b, guaranteed, limit, largest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if b.Used() != 0 {
			t.Errorf("%d bytes of the budget not returned", b.Used())
		}
	})
	return a, b
}

func TestArenaPieces(t *testing.T) {
	a, b := newTestArena(t, 4*mib, 4*mib, mib)
	if b.Used() != 4*mib || a.Lent() != 0 {
		t.Fatalf("used %d, lent %d", b.Used(), a.Lent())
	}
	for _, n := range []int{1, 4095, 4096, 4097, 256 * kib, mib} {
		p, ok := a.Get(n, nil)
		if !ok || len(p) != n || cap(p) != roundUp(n) || uintptr(unsafe.Pointer(&p[0]))%PageSize != 0 || a.InUse() != cap(p) {
			t.Fatalf("Get(%d): %v, len %d, cap %d, in use %d", n, ok, len(p), cap(p), a.InUse())
		}
		p[0], p[n-1] = 1, 2
		a.Put(p[:0])
		if poison {
			if p[0] != 0xA5 || p[n-1] != 0xA5 {
				t.Fatal("not poisoned")
			}
		}
	}
	for _, n := range []int{-1, 0, mib + 1} {
		if _, ok := a.Get(n, nil); ok || a.TryGet(n) != nil {
			t.Fatalf("Get(%d) succeeded", n)
		}
	}
}

func TestArenaRefusesSizes(t *testing.T) {
	b := NewBudget(2 * mib)
	for _, s := range [][3]int{{0, 0, 0}, {mib, mib, 2 * mib}, {mib, kib, kib}, {-1, -1, -1}, {mib, maxInt, mib}} {
		if _, err := NewArena(b, s[0], s[1], s[2]); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%v: %v", s, err)
		}
	}
	if _, err := NewArena(b, 4*mib, 4*mib, mib); !errors.Is(err, unix.ENOMEM) || b.Used() != 0 {
		t.Errorf("beyond the budget: %v, used %d", err, b.Used())
	}
}

func TestArenaPutPanics(t *testing.T) {
	a, _ := newTestArena(t, mib, mib, mib)
	p, _ := a.Get(3*PageSize, nil)
	mustPanic(t, "not the beginning", func() { a.Put(p[PageSize:]) })
	mustPanic(t, "not of the arena", func() { a.Put(make([]byte, PageSize)) })
	mustPanic(t, "nil", func() { a.Put(nil) })
	a.Put(p)
	mustPanic(t, "twice", func() { a.Put(p) })
}

// TestArenaLendsAndGivesBack: what is empty stays while nobody misses it, until it
// was empty from one Trim to the next; all but one chunk goes at once where the
// budget is scarce.
func TestArenaLendsAndGivesBack(t *testing.T) {
	for name, c := range map[string]struct{ budget, kept int }{"roomy": {8 * mib, 3 * mib}, "scarce": {5 * mib, mib}} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(int64(c.budget))
			a, err := NewArena(b, mib, 4*mib, mib)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var ps [4][]byte
			for i := range ps {
				ps[i], _ = a.Get(mib, nil)
			}
			if a.Lent() != 3*mib || b.Used() != 4*mib || a.TryGet(1) != nil {
				t.Fatalf("lent %d, used %d", a.Lent(), b.Used())
			}
			for _, p := range ps {
				a.Put(p)
			}
			if a.Lent() != c.kept || b.Used() != int64(mib+c.kept) {
				t.Fatalf("lent %d, used %d", a.Lent(), b.Used())
			}
			a.Trim() // it was in use since the last one
			if a.Lent() != c.kept {
				t.Fatalf("lent %d after the first Trim", a.Lent())
			}
			a.Trim()
			if a.Lent() != 0 || b.Used() != mib {
				t.Fatalf("lent %d, used %d after the second Trim", a.Lent(), b.Used())
			}
		})
	}
}

func TestArenaWaitsWithoutBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(mib)
		a, err := NewArena(b, mib, 8*mib, mib)
		if err != nil {
			t.Fatal(err)
		}
		small, _ := a.Get(PageSize, nil)
		var order []int
		var wg sync.WaitGroup
		for i, n := range []int{mib, PageSize, 2 * PageSize} { // the large one is first and stays so
			wg.Go(func() {
				p, ok := a.Get(n, nil)
				if !ok {
					t.Error("no memory")
				}
				order = append(order, i) // the large one excludes the others
				a.Put(p)
			})
			synctest.Wait()
		}
		if a.TryGet(PageSize) != nil {
			t.Error("overtook those who wait")
		}
		if err := a.Close(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("closed under those who wait: %v", err)
		}
		a.Put(small)
		wg.Wait()
		if len(order) != 3 || order[0] != 0 {
			t.Errorf("order %v", order)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := a.Get(1, nil); ok {
			t.Error("memory from a closed arena")
		}
	})
}

func TestArenaStopLetsTheNextIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTestArena(t, mib, mib, mib)
		held, _ := a.Get(mib/2, nil)
		stop := make(chan struct{})
		var large, small bool
		go func() {
			_, large = a.Get(mib, stop)
		}()
		synctest.Wait()
		go func() {
			var p []byte
			if p, small = a.Get(mib/4, nil); small {
				a.Put(p)
			}
		}()
		synctest.Wait()
		if small {
			t.Error("the small piece overtook the large one")
		}
		close(stop)
		synctest.Wait()
		if large || !small {
			t.Errorf("after stop: large %v, small %v", large, small)
		}
		a.Put(held)
	})
}

// scarce is memory that runs out on request.
type scarce struct{ fail *bool }

func (s scarce) alloc(n int) ([]byte, bool, error) {
	if *s.fail {
		return nil, false, unix.ENOMEM
	}
	return lockedPages(n)
}

func (scarce) free(b []byte) { FreePages(b) }

func TestArenaSurvivesFailureToLend(t *testing.T) {
	b := NewBudget(8 * mib)
	fail := false
	a, err := newArena(b, mib, 8*mib, mib, scarce{&fail}, nil)
	if err != nil {
		t.Fatal(err)
	}
	fail = true
	p, _ := a.Get(mib, nil)
	got := make(chan []byte)
	go func() {
		p, _ := a.Get(mib, nil)
		got <- p
	}()
	a.Put(p)
	a.Put(<-got)
	if b.Used() != mib {
		t.Errorf("used %d", b.Used())
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := newArena(b, mib, mib, mib, a.source, nil); !errors.Is(err, unix.ENOMEM) || b.Used() != 0 {
		t.Errorf("%v, used %d", err, b.Used())
	}
}

// TestArenaModel holds the Arena against a list of what is out: pieces never
// overlap, the counters are right, and there is room while there must be.
func TestArenaModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		budget := NewBudget(int64(rapid.IntRange(200, 2000).Draw(t, "budget")) * PageSize)
		a, err := NewArena(budget, 200*PageSize, 200*PageSize+2*mib, 64*PageSize)
		if err != nil {
			t.Fatal(err)
		}
		var out [][]byte
		pages := 0
		check := func() {
			if a.InUse() != pages*PageSize || budget.Used() != int64(200*PageSize+a.Lent()) {
				t.Fatalf("in use %d of %d pages, used %d, lent %d", a.InUse(), pages, budget.Used(), a.Lent())
			}
		}
		stop := make(chan struct{})
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"get": func(t *rapid.T) {
				n := rapid.IntRange(1, 64*PageSize).Draw(t, "n")
				p := a.TryGet(n)
				if p == nil && pages == 0 {
					t.Fatal("no room in an empty arena")
				}
				if p != nil && len(p) != n {
					t.Fatalf("len %d", len(p))
				}
				if p != nil {
					out, pages = hold(t, out, p), pages+cap(p)/PageSize
				}
			},
			"lend": func(t *rapid.T) { // Get that may borrow but must not wait
				if p, ok := getOrStop(a, rapid.IntRange(1, 64).Draw(t, "pages")*PageSize); ok {
					out, pages = hold(t, out, p), pages+cap(p)/PageSize
				}
			},
			"put": func(t *rapid.T) {
				if len(out) == 0 {
					return
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "i")
				p := out[i]
				out = append(out[:i], out[i+1:]...)
				pages -= cap(p) / PageSize
				a.Put(p[:rapid.IntRange(0, len(p)).Draw(t, "short")])
			},
			"trim": func(*rapid.T) { a.Trim() },
		})
		close(stop)
		for _, p := range out {
			a.Put(p)
		}
		a.Trim()
		a.Trim()
		pages = 0
		check()
		if err := a.Close(); err != nil || budget.Used() != 0 {
			t.Fatalf("%v, used %d", err, budget.Used())
		}
	})
}

// getOrStop is Get, given up as soon as it has borrowed what it could.
func getOrStop(a *Arena, n int) ([]byte, bool) {
	if p := a.TryGet(n); p != nil {
		return p, true
	}
	a.mu.Lock()
	w := a.enqueueLocked(n)
	a.borrowLocked()
	if w.b == nil {
		a.dequeueLocked(w)
	}
	b := w.b
	a.mu.Unlock()
	return b, b != nil
}

// hold adds p to the pieces that are out, none of which it may touch.
func hold(t *rapid.T, out [][]byte, p []byte) [][]byte {
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	for _, q := range out {
		at := uintptr(unsafe.Pointer(unsafe.SliceData(q)))
		if lo < at+uintptr(cap(q)) && at < lo+uintptr(cap(p)) {
			t.Fatal("pieces overlap")
		}
	}
	return append(out, p)
}

func TestArenaStress(t *testing.T) {
	a, _ := newTestArena(t, mib, 3*mib, mib)
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 300 {
				n := 1 + r.IntN(64*kib)
				if i%50 == 0 {
					n = mib
				}
				stop := make(chan struct{})
				if i%7 == 0 {
					go close(stop)
				}
				p, ok := a.Get(n, stop)
				if !ok {
					continue
				}
				mark := byte(1 + g)
				for j := 0; j < n; j += 512 {
					p[j] = mark
				}
				for j := 0; j < n; j += 512 {
					if p[j] != mark {
						t.Error("two owners")
						return
					}
				}
				a.Put(p)
			}
		})
	}
	wg.Wait()
	if a.InUse() != 0 {
		t.Errorf("in use %d", a.InUse())
	}
}

func TestArenaDoesNotAllocate(t *testing.T) {
	a, _ := newTestArena(t, 4*mib, 64*mib, mib)
	stop := make(chan struct{})
	if n := testing.AllocsPerRun(1000, func() {
		p, _ := a.Get(4096, stop)
		q, _ := a.Get(128*kib, stop)
		a.Put(p)
		a.Put(q)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestArenaWaitDoesNotAllocate: two goroutines that take turns at memory for one.
func TestArenaWaitDoesNotAllocate(t *testing.T) {
	a, _ := newTestArena(t, mib, mib, mib)
	turn, done := make(chan struct{}), make(chan struct{})
	go func() {
		for range turn {
			p, _ := a.Get(mib, nil)
			a.Put(p)
			done <- struct{}{}
		}
	}()
	if n := testing.AllocsPerRun(500, func() {
		p, _ := a.Get(mib, nil)
		turn <- struct{}{}
		a.Put(p)
		<-done
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	close(turn)
}

func TestBudget(t *testing.T) {
	b := NewBudget(10)
	if err := b.Reserve(11); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("11 of 10: %v", err)
	}
	if err := b.Reserve(-1); err == nil {
		t.Error("reserved -1")
	}
	if err := b.Reserve(10); err != nil || b.Used() != 10 || b.Total() != 10 {
		t.Errorf("10 of 10: %v, used %d", err, b.Used())
	}
	b.Release(10)
	mustPanic(t, "release too much", func() { b.Release(1) })
}

func TestPages(t *testing.T) {
	p, err := Pages(1)
	if err != nil || len(p)%PageSize != 0 || len(p) == 0 {
		t.Fatalf("%d bytes: %v", len(p), err)
	}
	p[len(p)-1] = 1
	FreePages(p[:10])
	for _, n := range []int{0, -1, maxInt} {
		if _, err := Pages(n); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Pages(%d): %v", n, err)
		}
	}
	mustPanic(t, "pages of somebody else", func() { FreePages(make([]byte, PageSize)) })
}

func BenchmarkArenaPage(b *testing.B) {
	a, _ := newTestArena(b, 4*mib, 4*mib, mib)
	stop := make(chan struct{})
	b.ReportAllocs()
	for b.Loop() {
		p, _ := a.Get(4096, stop)
		a.Put(p)
	}
}

func BenchmarkArena128K(b *testing.B) {
	a, _ := newTestArena(b, 4*mib, 4*mib, mib)
	for range 64 { // a ragged lower part
		p := a.TryGet(4096)
		defer a.Put(p)
	}
	b.ReportAllocs()
	for b.Loop() {
		p, _ := a.Get(128*kib, nil)
		a.Put(p)
	}
}
