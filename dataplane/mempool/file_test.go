package mempool

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fileArena is an Arena of mib to 4 mib over a fresh or an old file.
func fileArena(t *testing.T, f *os.File, b *Budget, kept []Extent) (*File, *Arena, error) {
	t.Helper()
	m, err := MapFile(f, PageSize, FileSize(mib, 4*mib, mib))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewArenaIn(b, mib, 4*mib, mib, m, kept)
	return m, a, err
}

func openFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestFileOutlivesTheArena: pieces that were out are there again, with their
// contents, and nothing else is.
func TestFileOutlivesTheArena(t *testing.T) {
	f, b := openFile(t), NewBudget(16*mib)
	m, a, err := fileArena(t, f, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var kept []Extent
	var want [][]byte
	for {
		p := a.TryGet(1 + random.IntN(100<<10))
		if p == nil {
			stop := make(chan struct{})
			var ok bool
			if a.Lent() == 3*mib {
				break
			}
			if p, ok = a.Get(100<<10, stop); !ok {
				t.Fatal("nothing was lent")
			}
		}
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		kept, want = append(kept, m.Where(p)), append(want, bytes.Clone(p))
	}
	inUse := a.InUse()
	a.Leave()
	if b.Used() != 0 {
		t.Errorf("%d bytes of the budget are kept", b.Used())
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, a, err = fileArena(t, f, b, kept)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if a.InUse() != inUse || b.Used() != 4*mib {
		t.Errorf("in use %d, want %d; used %d", a.InUse(), inUse, b.Used())
	}
	for i, e := range kept {
		if p := m.Piece(e); !bytes.Equal(p, want[i]) {
			t.Fatalf("piece %d of %d has other bytes", i, len(kept))
		} else {
			a.Put(p)
		}
	}
	a.Trim()
	a.Trim()
	if a.InUse() != 0 || a.Lent() != 0 {
		t.Errorf("in use %d, lent %d", a.InUse(), a.Lent())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 64<<10 {
		t.Errorf("the file still takes %d bytes (%v)", st.Blocks*512, err)
	}
}

// TestFileRefusesNonsense: kept pieces that cannot be are an error, and cost
// nothing.
func TestFileRefusesNonsense(t *testing.T) {
	for name, kept := range map[string][]Extent{
		"unaligned":      {{100, 10}},
		"negative":       {{-PageSize, 10}},
		"empty":          {{0, 0}},
		"too large":      {{0, mib + 1}},
		"past the end":   {{8 * mib, 10}},
		"overflow":       {{maxInt &^ (PageSize - 1), PageSize}},
		"twice":          {{0, PageSize}, {0, PageSize}},
		"overlap":        {{0, 3 * PageSize}, {2 * PageSize, PageSize}},
		"across a chunk": {{2*mib - PageSize, 2 * PageSize}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(16 * mib)
			m, _, err := fileArena(t, openFile(t), b, kept)
			if !errors.Is(err, unix.EUCLEAN) || b.Used() != 0 {
				t.Errorf("%v, used %d", err, b.Used())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFileFullIsAnError: a file system without room refuses the guaranteed part,
// and never lends what it has not.
func TestFileFullIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mounting needs root: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := NewBudget(64 * mib)
	m, err := MapFile(f, 0, FileSize(3*mib, 8*mib, mib))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := NewArenaIn(b, 3*mib, 8*mib, mib, m, nil); !errors.Is(err, unix.ENOSPC) || b.Used() != 0 {
		t.Fatalf("%v, used %d", err, b.Used())
	}
	a, err := NewArenaIn(b, mib, 8*mib, mib, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for range 2 { // the second is lent; a third would be a signal
		p, _ := a.Get(mib, nil)
		clear(p)
		out = append(out, p)
	}
	stop := make(chan struct{})
	got := make(chan bool)
	go func() {
		_, ok := a.Get(mib, stop)
		got <- ok
	}()
	for tried := false; !tried; { // it has asked for more, and was refused
		a.mu.Lock()
		tried = a.mu.first != nil && !a.mu.lending
		a.mu.Unlock()
	}
	close(stop)
	if <-got {
		t.Error("more was lent than there is")
	}
	for _, p := range out {
		a.Put(p)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// TestFileIsGivenAndTakenBackAtOnce: a chunk is given back without the Arena's
// lock, while the next one is lent.
func TestFileIsGivenAndTakenBackAtOnce(t *testing.T) {
	b := NewBudget(16 * mib)
	m, a, err := fileArena(t, openFile(t), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var users sync.WaitGroup
	for range 6 {
		users.Go(func() {
			for range 1000 {
				p, ok := a.Get(mib, nil)
				if !ok {
					t.Error("no memory")
					return
				}
				runtime.Gosched()
				a.Put(p)
			}
		})
	}
	users.Wait()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(m.used, true); i >= 0 {
		t.Errorf("unit %d is not given back", i)
	}
}

// TestFileIsSwept: what a process that was killed had borrowed does not stay
// with the file.
func TestFileIsSwept(t *testing.T) {
	f, b := openFile(t), NewBudget(16*mib)
	m, a, err := fileArena(t, f, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	var kept []Extent
	for range 4 {
		p, _ := a.Get(mib, nil)
		kept = append(kept, m.Where(p))
	}
	a.Leave()
	_ = m.Close()
	m, a, err = fileArena(t, f, b, kept[2:3])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	defer a.Leave()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 2*mib+64<<10 {
		t.Errorf("the file takes %d bytes for two pieces of 1 MiB (%v)", st.Blocks*512, err)
	}
}
