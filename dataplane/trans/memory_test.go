package trans

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
)

func memfile(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "log")
	t.Cleanup(func() { f.Close() })
	return f
}

var testSizes = Sizes{Guaranteed: 1 << 20, Limit: 4 << 20, Largest: 1 << 20, Depth: 16}

// TestMemoryOutlivesTheProcess: what the log holds is there again, with its
// bytes, and all else is free.
func TestMemoryOutlivesTheProcess(t *testing.T) {
	f, b := memfile(t), mempool.NewBudget(16<<20)
	m, err := OpenMemory(f, b, testSizes, abi.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Log.Fresh() {
		t.Error("not fresh")
	}
	data := m.Arena.TryGet(5000)
	copy(data, bytes.Repeat([]byte("dst"), 2000))
	m.Log.Reserve()
	m.Log.Append(KindWrite, 512, uint32(len(data)), data, 1)
	if err := m.Close(); err != nil || b.Used() != 0 {
		t.Fatalf("%v, used %d", err, b.Used())
	}
	for _, tt := range []struct {
		sizes Sizes
		owner abi.ID
	}{
		{testSizes, abi.ID{2}},
		{Sizes{1 << 20, 4 << 20, 1 << 20, 17}, abi.ID{1}},
		{Sizes{1 << 20, 64 << 20, 1 << 20, 16}, abi.ID{1}},
	} {
		if _, err := OpenMemory(f, b, tt.sizes, tt.owner); !errors.Is(err, unix.EUCLEAN) || b.Used() != 0 {
			t.Errorf("%+v: %v, used %d", tt, err, b.Used())
		}
	}
	if m, err = OpenMemory(f, b, testSizes, abi.ID{1}); err != nil {
		t.Fatal(err)
	}
	if m.Log.Fresh() || m.Log.Len() != 1 || m.Arena.InUse() != 8192 {
		t.Errorf("fresh %v, %d records, %d bytes are out", m.Log.Fresh(), m.Log.Len(), m.Arena.InUse())
	}
	p, ok := m.Log.Replay(2).Next(1 << 20)
	if !ok || p.Op != Write || p.Offset != 512 || !bytes.Equal(p.Data, bytes.Repeat([]byte("dst"), 2000)[:5000]) {
		t.Errorf("%v %+v", ok, p.Offset)
	}
	m.Log.Trim(1, 1)
	if m.Arena.InUse() != 0 {
		t.Errorf("%d bytes are out", m.Arena.InUse())
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLogAllocatesNothing in steady state.
func TestLogAllocatesNothing(t *testing.T) {
	m, err := OpenMemory(memfile(t), mempool.NewBudget(16<<20), testSizes, abi.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n := testing.AllocsPerRun(1000, func() {
		for i := range 100 {
			m.Log.Reserve()
			m.Log.SetRange(1, uint64(i)*512, 512)
			m.Log.Append(KindWrite, uint64(i)*512, 512, m.Arena.TryGet(512), 1)
			m.Log.SetRange(1, 0, 0)
		}
		r := m.Log.Replay(2)
		for p, ok := r.Next(4096); ok; p, ok = r.Next(4096) {
			r.Done(p)
		}
		m.Log.Trim(m.Log.Tail(), 2)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLog(b *testing.B) {
	fd, _ := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	m, err := OpenMemory(os.NewFile(uintptr(fd), "log"), mempool.NewBudget(128<<20), Sizes{4 << 20, 64 << 20, 1 << 20, 128}, abi.ID{1})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for i := range b.N {
		m.Log.Reserve()
		m.Log.SetRange(1, uint64(i)*4096, 4096)
		data, _ := m.Arena.Get(4096, nil)
		m.Log.Append(KindWrite, uint64(i)*4096, 4096, data, 1)
		m.Log.SetRange(1, 0, 0)
		if m.Log.Len() == 1000 {
			m.Log.Trim(m.Log.Tail(), 1)
		}
	}
}

// TestLogIsFreshUntilItsFirstRecord: one that was made in the place of a lost one
// by a daemon that was killed right then is still known to be new.
func TestLogIsFreshUntilItsFirstRecord(t *testing.T) {
	f, b := memfile(t), mempool.NewBudget(16<<20)
	for range 2 {
		m, err := OpenMemory(f, b, testSizes, abi.ID{1})
		if err != nil {
			t.Fatal(err)
		}
		if !m.Log.Fresh() {
			t.Error("not fresh")
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMemoryCutShort: a file that lost its end is damaged, and not a log with
// fewer records or payloads of zeroes.
func TestMemoryCutShort(t *testing.T) {
	f, b := memfile(t), mempool.NewBudget(16<<20)
	m, err := OpenMemory(f, b, testSizes, abi.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	m.Log.Reserve()
	m.Log.Append(KindWrite, 0, 4096, m.Arena.TryGet(4096), 1)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{4 << 20, 1 << 20, 8192, 4096, 100} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if m, err := OpenMemory(f, b, testSizes, abi.ID{1}); !errors.Is(err, unix.EUCLEAN) || b.Used() != 0 {
			t.Errorf("cut to %d: %v, %d in use", size, err, b.Used())
			if m != nil {
				_ = m.Close()
			}
		}
	}
}
