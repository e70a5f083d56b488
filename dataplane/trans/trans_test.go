package trans

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// newReserve is a reserve with a small arena of its own.
func newReserve(t testing.TB, depth int) *Reserve {
	t.Helper()
	arena, err := mempool.NewArena(mempool.NewBudget(64<<20), 4<<20, 4<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = arena.Close() })
	return NewReserve(depth, 2, arena)
}

// front counts what comes back.
type front struct {
	reserve            *Reserve
	completes, flushes int
	err                unix.Errno
}

func (f *front) Complete(t *Trans) { f.completes++; f.err = t.Err; f.reserve.Put(t) }
func (f *front) Flush()            { f.flushes++ }

func TestSealWritesTheFrozenHeader(t *testing.T) {
	r := newReserve(t, 4)
	for _, c := range []struct {
		op      Op
		length  uint32
		flags   uint64
		msg     abi.Msg
		rw      uint64
		size    uint32
		payload int
	}{
		{Read, 8192, abi.FlagReadAhead, abi.MsgIO, 0, 8192, 0},
		{Write, 4096, abi.FlagFUA, abi.MsgIO, abi.RWWrite, 4100, 4096},
		{Flush, 0, 0, abi.MsgFlush, 0, 4, 0},
		{Discard, 1 << 30, 0, abi.MsgDiscard, 0, 1 << 30, 0},
		{Zero, 4096, abi.FlagNoHole, abi.MsgWriteZeroes, 0, 4096, 0},
	} {
		x, _ := r.Get(c.op, c.length, nil)
		x.Flags, x.Offset = c.flags, 1<<20
		x.Seal(crypt.DigestCRC32C)
		var h abi.Header
		h.Parse(x.Request.Head)
		if h.Cmd != c.msg || h.RW != c.rw || h.Size != c.size || h.CSize != 4 || h.Flags != c.flags ||
			h.Sector != 2048 || h.ID != x.ID || len(x.Request.Data) != c.payload {
			t.Errorf("%v: header %+v with %d bytes behind", c.op, h, len(x.Request.Data))
		}
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		sum.Write(x.Request.Head[:abi.HeaderSize])
		sum.Write(x.Request.Data)
		if got := binary.BigEndian.Uint32(x.Request.Head[abi.HeaderSize:]); got != sum.Sum32() {
			t.Errorf("%v: digest %#x, want %#x", c.op, got, sum.Sum32())
		}
		r.Put(x)
	}
}

func TestIDsAreNeverUsedTwice(t *testing.T) {
	r, seen := newReserve(t, 2), map[uint64]bool{}
	for range 1000 {
		x, _ := r.Get(Flush, 0, nil)
		x.Seal(crypt.DigestNone)
		if x.ID == 0 || seen[x.ID] {
			t.Fatalf("id %#x again", x.ID)
		}
		seen[x.ID] = true
		r.Put(x)
	}
}

func TestLastDropCompletesOnce(t *testing.T) {
	r := newReserve(t, 1)
	f, b := &front{reserve: r}, NewTable(r)
	x, _ := r.Get(Flush, 0, nil)
	x.Front = f
	x.Seal(crypt.DigestNone)
	b.Insert(x)
	x.Hold() // the sender's
	b.Take(x)
	if x.Drop() || f.completes != 0 {
		t.Fatal("completed while the sender still holds it")
	}
	(*request)(x).Sent(&x.Request, nil)
	if f.completes != 1 || f.flushes != 1 {
		t.Fatalf("%d completes, %d flushes after the last hold", f.completes, f.flushes)
	}
}

func TestReserveWaitsUntilStop(t *testing.T) {
	r := newReserve(t, 1)
	x, _ := r.Get(Read, 4096, nil)
	if r.TryGet(Read, 4096) != nil {
		t.Fatal("an empty reserve gave something")
	}
	stop := make(chan struct{})
	close(stop)
	if _, ok := r.Get(Read, 4096, stop); ok {
		t.Fatal("an empty reserve gave something")
	}
	r.Put(x)
	if r.InUse() != 0 {
		t.Fatalf("%d in use", r.InUse())
	}
	if x = r.TryGet(Write, 4<<20+1); x != nil || r.InUse() != 0 {
		t.Fatal("more than the arena was given, or an element was lost")
	}
}

// TestTableAgainstModel runs random inserts and takes beside a plain list.
func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newReserve(t, 8)
		b := NewTable(r)
		var model []*Trans
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			if len(model) < 8 && rapid.Bool().Draw(rt, "insert") {
				op := rapid.SampledFrom([]Op{Read, Write, Discard, Zero, Flush}).Draw(rt, "op")
				x, _ := r.Get(op, 512, nil)
				x.Offset = 512 * rapid.Uint64Range(0, 3).Draw(rt, "block")
				x.Seal(crypt.DigestNone)
				b.Insert(x)
				model = append(model, x)
			} else if len(model) > 0 {
				i := rapid.IntRange(0, len(model)-1).Draw(rt, "take")
				x := model[i]
				model = append(model[:i:i], model[i+1:]...)
				if b.Find(x.ID) != x {
					rt.Fatal("a filed transaction was not found")
				}
				b.Take(x)
				if b.Find(x.ID) != nil {
					rt.Fatal("a taken transaction was found")
				}
				r.Put(x)
			}
			checkTable(rt, b, model)
		}
		for _, x := range model {
			b.Take(x)
			r.Put(x)
		}
	})
}

func checkTable(rt *rapid.T, b *Table, model []*Trans) {
	if b.Len() != len(model) {
		rt.Fatalf("%d filed, want %d", b.Len(), len(model))
	}
	x := b.First()
	for i, want := range model {
		if x != want {
			rt.Fatalf("number %d is not in order", i)
		}
		behind := false
		for _, old := range model[:i] {
			behind = behind || old.Op.Changes() && want.Op.Changes() && old.Offset == want.Offset
		}
		if b.Behind(want) != behind {
			rt.Fatalf("number %d: behind is %v", i, !behind)
		}
		x = x.Next()
	}
	if x != nil {
		rt.Fatal("more filed than known")
	}
}

func TestRequestPathAllocatesNothing(t *testing.T) {
	r := newReserve(t, 4)
	b, f := NewTable(r), &front{reserve: r}
	if n := testing.AllocsPerRun(1000, func() {
		x, _ := r.Get(Write, 4096, nil)
		x.Front = f
		x.Seal(crypt.DigestCRC32C)
		b.Insert(x)
		if b.Find(x.ID) != x || b.Behind(x) {
			t.Fatal("lost")
		}
		b.Take(x)
		x.Drop()
	}); n != 0 {
		t.Fatalf("%v allocations per request", n)
	}
}

func BenchmarkTable(b *testing.B) {
	r := newReserve(b, 128)
	table, f := NewTable(r), &front{reserve: r}
	b.ReportAllocs()
	for b.Loop() {
		x, _ := r.Get(Write, 4096, nil)
		x.Front = f
		x.Seal(crypt.DigestNone)
		table.Insert(x)
		table.Behind(x)
		table.Take(table.Find(x.ID))
		x.Drop()
	}
}
