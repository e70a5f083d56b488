package trans

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dst/abi"
	"dst/dataplane/mempool"
)

// heap is payload memory that outlives its users: a slab of pages, each out or
// not. What is given back is poisoned.
type heap struct {
	mem []byte
	out []int // by page: pages of the piece that starts there
}

func newHeap(pages int) *heap {
	return &heap{mem: make([]byte, pages*mempool.PageSize), out: make([]int, pages)}
}

func (h *heap) get(n int) []byte {
	pages := (n + mempool.PageSize - 1) / mempool.PageSize
	for i := 0; i+pages <= len(h.out); i++ {
		if !slices.ContainsFunc(h.out[i:i+pages], func(k int) bool { return k != 0 }) {
			for j := range pages {
				h.out[i+j] = -1
			}
			h.out[i] = pages
			return h.Piece(mempool.Extent{At: i * mempool.PageSize, N: n})
		}
	}
	return nil
}

func (h *heap) Where(b []byte) mempool.Extent {
	for i := range h.out {
		if &h.mem[i*mempool.PageSize] == &b[0] {
			return mempool.Extent{At: i * mempool.PageSize, N: len(b)}
		}
	}
	panic("not of this heap")
}

func (h *heap) Piece(e mempool.Extent) []byte { return h.mem[e.At : e.At+e.N] }

func (h *heap) Put(b []byte) {
	e := h.Where(b)
	at := e.At / mempool.PageSize
	pages := h.out[at]
	if pages != (e.N+mempool.PageSize-1)/mempool.PageSize {
		panic(fmt.Sprintf("%d bytes are given back where %d pages are out", e.N, pages))
	}
	for j := range pages {
		h.out[at+j] = 0
		copy(h.mem[(at+j)*mempool.PageSize:], bytes.Repeat([]byte{0xA5}, mempool.PageSize))
	}
}

func (h *heap) inUse() (pages int) {
	for _, k := range h.out {
		pages += max(k, 0)
	}
	return pages
}

const (
	testDepth   = 8
	testRecords = 32
	testSectors = 24
)

func newLog(t testing.TB, mem []byte, h *heap) *Log {
	t.Helper()
	l, err := OpenLog(mem, testDepth, testRecords, abi.ID{7})
	if err != nil {
		t.Fatal(err)
	}
	l.Adopt(h)
	return l
}

// put logs a write of that value to sectors from to from+n.
func put(t testing.TB, l *Log, h *heap, from, n int, value byte, era uint32) {
	t.Helper()
	if !l.Reserve() {
		t.Fatal("no record")
	}
	data := h.get(n * abi.SectorSize)
	for i := range data {
		data[i] = value
	}
	l.Append(KindWrite, uint64(from)*abi.SectorSize, uint32(len(data)), data, era)
}

// replayed plays the log onto disk and returns the pieces, as many at a time as
// there may be.
func replayed(l *Log, disk []byte, era uint32, most uint32) (n int) {
	r := l.Replay(era)
	for !r.Over() {
		var out []Piece
		for {
			p, ok := r.Next(most)
			if !ok {
				break
			}
			out = append(out, p)
		}
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		for _, p := range out {
			apply(disk, p)
			r.Done(p)
			n++
		}
	}
	return n
}

func apply(disk []byte, p Piece) {
	part := disk[p.Offset : p.Offset+uint64(p.Length)]
	if clear(part); p.Op == Write {
		copy(part, p.Data)
	}
}

// TestLogReplaysTheNewest: what was written over is not written again, and what
// is durable is not touched.
func TestLogReplaysTheNewest(t *testing.T) {
	h := newHeap(64)
	l := newLog(t, make([]byte, LogSize(testDepth, testRecords)), h)
	put(t, l, h, 0, 8, 'a', 1)
	put(t, l, h, 2, 2, 'b', 1)
	put(t, l, h, 10, 4, 'c', 1)
	if !l.Reserve() {
		t.Fatal("no record")
	}
	l.Append(KindCut, 5*abi.SectorSize, 2*abi.SectorSize, nil, 1) // durable
	l.Reserve()
	l.Append(KindZero, 11*abi.SectorSize, abi.SectorSize, nil, 1)
	if l.Stale(1) || !l.Stale(2) {
		t.Error("stale in the same era, or not in another")
	}
	disk := bytes.Repeat([]byte{'.'}, testSectors*abi.SectorSize)
	replayed(l, disk, 2, 1<<20)
	if got, want := sectorsOf(disk), "aabba..a..c\x00cc.........."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if l.Stale(2) {
		t.Error("still stale")
	}
	if n := replayed(l, disk, 2, 1<<20); n != 0 {
		t.Errorf("%d pieces are played twice", n)
	}
	l.Trim(2, 2)
	if l.Len() != 3 || l.Bytes() != 4*abi.SectorSize || h.inUse() != 1 {
		t.Errorf("%d records, %d bytes, %d pages", l.Len(), l.Bytes(), h.inUse())
	}
	l.Trim(100, 2)
	if l.Len() != 0 || l.Bytes() != 0 || h.inUse() != 0 {
		t.Errorf("%d records, %d bytes, %d pages", l.Len(), l.Bytes(), h.inUse())
	}
}

// sectorsOf is the first byte of each sector.
func sectorsOf(disk []byte) string {
	var b []byte
	for i := 0; i < len(disk); i += abi.SectorSize {
		b = append(b, disk[i])
	}
	return string(b)
}

// TestLogTrimStopsAtWhatIsStale: a flush of a new life says nothing of what only
// the old one had.
func TestLogTrimStopsAtWhatIsStale(t *testing.T) {
	h := newHeap(64)
	l := newLog(t, make([]byte, LogSize(testDepth, testRecords)), h)
	put(t, l, h, 0, 1, 'a', 1)
	put(t, l, h, 1, 1, 'b', 2)
	l.Trim(l.Tail(), 2)
	if l.Len() != 2 {
		t.Errorf("%d records", l.Len())
	}
	l.Trim(l.Tail(), 1)
	if l.Len() != 1 {
		t.Errorf("%d records", l.Len())
	}
	l.Forget()
	if l.Len() != 0 || l.Bytes() != 0 || h.inUse() != 0 {
		t.Errorf("%d records, %d bytes, %d pages after everything was forgotten", l.Len(), l.Bytes(), h.inUse())
	}
}

// TestLogIsFull: no more records than there are, counting those promised.
func TestLogIsFull(t *testing.T) {
	h := newHeap(64)
	l := newLog(t, make([]byte, LogSize(testDepth, testRecords)), h)
	for i := range testRecords - 1 {
		put(t, l, h, i%8, 1, 'x', 1)
	}
	if !l.Reserve() || l.Reserve() {
		t.Error("wrong room")
	}
	l.Unreserve()
	put(t, l, h, 0, 1, 'y', 1)
	if l.Reserve() {
		t.Error("a record too many")
	}
	l.Trim(5, 1)
	for i := range 5 {
		put(t, l, h, i, 1, 'z', 1)
	}
	if l.Reserve() {
		t.Error("a record too many after the ring has turned")
	}
}

// TestLogModel holds the log against a plain array through writes, cuts, erasures,
// flushes, new lives of the export, replays that break in the middle, and
// daemons that die anywhere.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := make([]byte, LogSize(testDepth, testRecords))
		h := newHeap(200)
		l, err := OpenLog(mem, testDepth, testRecords, abi.ID{7})
		if err != nil {
			t.Fatal(err)
		}
		l.Adopt(h)
		era := uint32(1)
		acked := make([]byte, testSectors*abi.SectorSize) // what a reader must see
		disk := bytes.Clone(acked)                        // the export's cache
		value := byte(0)
		span := func() (from, n int) {
			from = rapid.IntRange(0, testSectors-1).Draw(t, "from")
			return from, rapid.IntRange(1, min(12, testSectors-from)).Draw(t, "n")
		}
		change := func(kind Kind) {
			from, n := span()
			if l.Stale(era) || !l.Reserve() {
				return // recovery comes first; or the log is full
			}
			value++
			p := Piece{Op: Zero, Offset: uint64(from) * abi.SectorSize, Length: uint32(n * abi.SectorSize)}
			if kind == KindWrite || kind == KindCut {
				p.Op, p.Data = Write, bytes.Repeat([]byte{value}, n*abi.SectorSize)
			}
			apply(acked, p)
			apply(disk, p)
			var data []byte
			if kind == KindWrite {
				data = h.get(len(p.Data))
				copy(data, p.Data)
			}
			l.Append(kind, p.Offset, p.Length, data, era)
		}
		durable := bytes.Clone(disk) // what the export has if it dies
		t.Repeat(map[string]func(*rapid.T){
			"write":   func(*rapid.T) { change(KindWrite) },
			"discard": func(*rapid.T) { change(KindDiscard) },
			"zero":    func(*rapid.T) { change(KindZero) },
			"fua": func(*rapid.T) {
				before := l.Tail()
				change(KindCut)
				if l.Tail() > before {
					r := l.record(l.Tail())
					copy(durable[r.off():r.end()], disk[r.off():r.end()])
				}
			},
			"flush": func(*rapid.T) {
				if !l.Stale(era) {
					copy(durable, disk)
					l.Trim(l.Tail(), era)
				}
			},
			"the export dies": func(t *rapid.T) {
				for i := 0; i < len(disk); i += abi.SectorSize { // a sector of its cache may have survived
					if rapid.Bool().Draw(t, "survives") {
						copy(durable[i:i+abi.SectorSize], disk[i:i+abi.SectorSize])
					}
				}
				copy(disk, durable)
				era++
			},
			"recovery": func(t *rapid.T) {
				r := l.Replay(era)
				stop := rapid.IntRange(0, 60).Draw(t, "stop")
				most := uint32(rapid.IntRange(1, 12).Draw(t, "most") * abi.SectorSize)
				var out []Piece
				for !r.Over() {
					p, ok := r.Next(most)
					if ok {
						out = append(out, p)
					}
					if stop--; stop < 0 {
						for _, p := range out { // executed, not acknowledged
							apply(disk, p)
						}
						return
					}
					if len(out) == 0 {
						continue // it is over
					}
					if !ok || rapid.Bool().Draw(t, "answer") {
						i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
						apply(disk, out[i])
						r.Done(out[i])
						out = slices.Delete(out, i, i+1)
					}
				}
			},
			"the daemon dies": func(t *rapid.T) {
				kept := l.Kept()
				if l, err = OpenLog(bytes.Clone(mem), testDepth, testRecords, abi.ID{7}); err != nil {
					t.Fatal(err)
				}
				mem = l.mem
				l.Adopt(h)
				if !slices.Equal(kept, l.Kept()) {
					t.Fatal("other pieces are kept")
				}
			},
			"": func(t *rapid.T) {
				var bytesHeld uint64
				pages := 0
				for _, e := range l.Kept() {
					bytesHeld += uint64(e.N)
					pages += (e.N + mempool.PageSize - 1) / mempool.PageSize
				}
				if bytesHeld != l.Bytes() || pages != h.inUse() {
					t.Fatalf("%d bytes in %d pages are kept, %d are counted, %d pages are out", bytesHeld, pages, l.Bytes(), h.inUse())
				}
				if l.Stale(era) {
					return
				}
				if !bytes.Equal(disk, acked) {
					t.Fatalf("nothing is stale, and the export has %q where %q was acknowledged", sectorsOf(disk), sectorsOf(acked))
				}
			},
		})
		replayed(l, disk, era, 4096)
		if !bytes.Equal(disk, acked) {
			t.Fatalf("after recovery the export has %q where %q was acknowledged", sectorsOf(disk), sectorsOf(acked))
		}
	})
}

// TestLogDamage: whatever byte of a log changes, it is refused, or what it says
// of the bytes is a state that there was: never something else.
func TestLogDamage(t *testing.T) {
	h := newHeap(64)
	mem := make([]byte, LogSize(testDepth, testRecords))
	l := newLog(t, mem, h)
	for i := range 6 {
		put(t, l, h, i, 2, byte('a'+i), 1)
	}
	l.Trim(2, 1)
	for at := range mem {
		bad := bytes.Clone(mem)
		bad[at] ^= 0x10
		got, err := OpenLog(bad, testDepth, testRecords, abi.ID{7})
		if err != nil {
			if !errors.Is(err, unix.EUCLEAN) {
				t.Fatalf("byte %d: %v", at, err)
			}
			continue
		}
		inRecord := at >= got.base && (at-got.base)/recordSize >= 3 && (at-got.base)/recordSize <= 6
		if inRecord && at%4 != 0 && got.Len() == 4 {
			era := (at - got.base) % recordSize
			if era < 28 {
				t.Errorf("byte %d of record %d changed and nobody noticed", era, (at-got.base)/recordSize)
			}
		}
	}
}

// TestLogGhosts: what was on its way is known to the next daemon, and to the one
// after it, until it is laid.
func TestLogGhosts(t *testing.T) {
	mem := make([]byte, LogSize(testDepth, testRecords))
	l := newLog(t, mem, newHeap(1))
	l.SetRange(3, 4096, 512)
	l.SetRange(7, 0, 1024)
	l.SetRange(3, 0, 0)
	l.SetRange(0, 1<<40, 4096)
	for range 3 {
		l = newLog(t, mem, newHeap(1))
		if n := l.Haunt(); n != 2 {
			t.Fatalf("%d ghosts", n)
		}
	}
	for _, tt := range []struct {
		off, end uint64
		want     bool
	}{{0, 512, true}, {1023, 4096, true}, {1024, 1 << 40, false}, {1<<40 + 4095, 1 << 41, true}, {4096, 4608, false}} {
		if got := l.Haunted(tt.off, tt.end); got != tt.want {
			t.Errorf("%d to %d: %v", tt.off, tt.end, got)
		}
	}
	if left := l.Lay(512, 1<<50); left != 1 || !l.Haunted(0, 1) || l.Haunted(1<<40, 1<<41) {
		t.Errorf("%d are left", left)
	}
	if left := l.Lay(0, 1024); left != 0 {
		t.Errorf("%d are left", left)
	}
	for i := range testDepth {
		l.SetRange(i, uint64(i)*512, 512)
	}
	if n := l.Haunt(); n != testDepth {
		t.Fatalf("%d ghosts", n)
	}
	l.SetRange(0, 100<<10, 512)
	if n := l.Haunt(); n != testDepth || !l.Haunted(0, 512) || !l.Haunted(100<<10, 100<<10+1) {
		t.Errorf("%d ghosts, and a range is forgotten", n)
	}
}

// FuzzOpenLog: no memory makes it panic, and what it accepts is consistent.
func FuzzOpenLog(f *testing.F) {
	h := newHeap(64)
	mem := make([]byte, LogSize(testDepth, testRecords))
	l := newLog(f, mem, h)
	f.Add(bytes.Clone(mem[:256]))
	put(f, l, h, 0, 2, 'a', 1)
	put(f, l, h, 1, 2, 'b', 1)
	f.Add(bytes.Clone(mem[:512]))
	bad := bytes.Clone(mem[:512])
	binary.NativeEndian.PutUint64(bad[offHead:], 1<<63)
	f.Add(bad)
	f.Fuzz(func(t *testing.T, head []byte) {
		mem := make([]byte, LogSize(testDepth, testRecords))
		copy(mem, head)
		l, err := OpenLog(mem, testDepth, testRecords, abi.ID{7})
		if err != nil {
			return
		}
		if l.Len() > testRecords || len(l.Kept()) > l.Len() {
			t.Fatalf("%d records", l.Len())
		}
		l.Haunt()
		l.Stale(1)
	})
}
