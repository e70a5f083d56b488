package history

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// script is a history of one sector. Words: wN begins write N, +N it is done, -N it failed, ?N nobody will know; zN and the same
// for zeroes; rN begins read N, =N:M it finds what write M left (0: zeroes; t: torn; f: foreign).
func script(mode, words string) (violations int) {
	h := New(2)
	h.Lenient, h.Mortal = mode == "lenient", mode == "mortal"
	ops := map[string]*Op{}
	for _, w := range strings.Fields(words) {
		name := w[1:]
		switch w[0] {
		case 'w':
			ops["w"+name] = h.Begin("write", true, idOf(name), 0, 1)
		case 'z':
			ops["w"+name] = h.Begin("zero", true, 0, 0, 1)
		case '+':
			h.Changed(ops["w"+name], Done)
		case '-':
			h.Changed(ops["w"+name], Failed)
		case '?':
			h.Changed(ops["w"+name], Unknown)
		case 'r':
			ops["r"+name] = h.Begin("read", false, 0, 0, 1)
		case '=':
			read, what, _ := strings.Cut(name, ":")
			b := make([]byte, Sector)
			switch what {
			case "0":
			case "t":
				Stamp(b, 0, 5)
				copy(b[256:], make([]byte, 256))
			case "f":
				Stamp(b, 1, 5)
			default:
				Stamp(b, 0, idOf(what))
			}
			h.Found(ops["r"+read], Done, b)
		}
	}
	n, _ := h.Violations()
	return n
}

func idOf(name string) ID { return MakeID(0, uint64(name[0]-'0')) }

func TestRules(t *testing.T) {
	tests := []struct {
		what, words string
		violations  int
	}{
		{"new", "r1 =1:0", 0},
		{"written", "w1 +1 r1 =1:1", 0},
		{"lost", "w1 +1 r1 =1:0", 1},
		{"never written", "r1 =1:7", 1},
		{"torn", "w5 +5 r1 =1:t", 1},
		{"foreign", "w5 +5 r1 =1:f", 1},
		{"reverted", "w1 +1 w2 +2 r1 =1:1", 1},
		{"two at a time: either", "w1 w2 +1 +2 r1 =1:1", 0},
		{"two at a time: or the other", "w1 w2 +1 +2 r1 =1:2", 0},
		{"and stays", "w1 w2 +1 +2 r1 =1:1 r2 =2:2", 1},
		{"a read while it is written", "w1 +1 w2 r1 r2 =1:1 =2:2 +2 r3 =3:2", 0},
		{"what was read un-happens", "w1 +1 w2 r1 =1:2 r2 =2:1", 1},
		{"reads at one time may differ", "w1 +1 w2 r1 r2 =1:2 =2:1", 0},
		{"a read that began early may be late", "w1 +1 r1 w2 +2 =1:1", 0},
		{"failed and not there", "w1 +1 w2 -2 r1 =1:1", 0},
		{"failed and there", "w1 +1 w2 -2 r1 =1:2 r2 =2:2", 0},
		{"failed, there and gone", "w1 +1 w2 -2 r1 =1:2 r2 =2:1", 1},
		{"failed, not there and there", "w1 +1 w2 -2 r1 =1:1 r2 =2:2", 1},
		{"a ghost", "w1 ?1 w2 +2 r1 =1:1", 1},
		{"unknown, pending while another is done", "w1 w2 +2 ?1 r1 =1:1", 0},
		{"lenient: failed, there and gone", "w1 +1 w2 -2 r1 =1:2 r2 =2:1", 0},
		{"lenient: there, failed and gone", "w1 +1 w2 r1 =1:2 -2 r2 =2:1", 0},
		{"lenient: failed, there, gone and there", "w1 +1 w2 -2 r1 =1:2 r2 =2:1 r3 =3:2", 1},
		{"lenient: failed and written over", "w1 +1 w2 -2 w3 +3 r1 =1:2", 1},
		{"lenient: lost", "w1 +1 w2 -2 r1 =1:0", 1},
		{"lenient: done and gone", "w1 +1 w2 +2 r1 =1:1", 1},
		{"mortal: there, unknown and gone", "w1 +1 w2 r1 =1:2 ?2 r2 =2:1", 0},
		{"mortal: unknown, there and gone", "w1 +1 w2 ?2 r1 =1:2 r2 =2:1", 1},
		{"mortal: unknown, not there and there", "w1 +1 w2 ?2 r1 =1:1 r2 =2:2", 1},
		{"mortal: lost", "w1 +1 w2 r1 =1:2 ?2 r2 =2:0", 1},
		{"zeroes", "w1 +1 z2 +2 r1 =1:0", 0},
		{"zeroes lost", "w1 +1 z2 +2 r1 =1:1", 1},
		{"zeroes of one or the other", "w1 +1 z2 z3 +2 +3 r1 =1:0 r2 =2:0", 0},
		{"zeroes that were written over", "z1 +1 z2 +2 w3 +3 r1 =1:0", 1},
		{"zeroes read, older gone", "w1 z2 z3 r1 +1 r2 =2:0 r3 =3:1", 1},
		{"zeroes un-happen", "w1 +1 z2 z3 r1 =1:0 r2 =2:1", 1},
	}
	for _, tt := range tests {
		mode, _, _ := strings.Cut(tt.what, ":")
		if n := script(mode, tt.words); n != tt.violations {
			t.Errorf("%s: %d violations in %q, want %d", tt.what, n, tt.words, tt.violations)
		}
	}
}

func TestStamp(t *testing.T) {
	b, rnd := make([]byte, Sector), rand.New(rand.NewPCG(3, 4))
	for range 100 {
		lba, id := rnd.Uint64N(1<<40), MakeID(rnd.IntN(100), rnd.Uint64N(1<<40))
		Stamp(b, lba, id)
		if got, ok := Parse(b, lba); !ok || got != id || got.Writer() != id.Writer() {
			t.Fatalf("%x: %x, %v", id, got, ok)
		}
		b[rnd.IntN(Sector)] ^= 1 << rnd.IntN(8)
		if _, ok := Parse(b, lba); ok {
			t.Fatal("damage was not seen")
		}
	}
	clear(b)
	if id, ok := Parse(b, 7); id != 0 || !ok {
		t.Error("zeroes are zeroes")
	}
	b[Sector-1] = 1
	if _, ok := Parse(b, 7); ok {
		t.Error("nearly zeroes are not")
	}
}

// TestRegisters runs a device that is right, with many clients at once, then the same with one lie: only that is found.
func TestRegisters(t *testing.T) {
	for seed := range uint64(200) {
		for _, lie := range []bool{false, true} {
			n := simulate(rand.New(rand.NewPCG(seed, 1)), lie)
			if !lie && n != 0 {
				t.Fatalf("seed %d: %d violations of a device that is right", seed, n)
			}
			if lie && n == 0 {
				t.Fatalf("seed %d: a write that was lost was not found", seed)
			}
		}
	}
}

// simulate lets eight clients write, zero and read two sectors, each operation done at some moment between its beginning and its
// end. A lie throws the last write away that was acknowledged, with nothing else running, and reads.
func simulate(rnd *rand.Rand, lie bool) int {
	h := New(2)
	var disk [2 * Sector]byte
	type client struct {
		op   *Op
		done bool // at the disk
		data []byte
	}
	clients := make([]client, 8)
	for n := range uint64(2000) {
		c := &clients[rnd.IntN(len(clients))]
		switch {
		case c.op == nil:
			lba := rnd.Uint64N(2)
			switch rnd.IntN(4) {
			case 0:
				*c = client{op: h.Begin("zero", true, 0, lba, 1), data: make([]byte, Sector)}
			case 1:
				*c = client{op: h.Begin("write", true, MakeID(1, n+1), lba, 1), data: make([]byte, Sector)}
				Stamp(c.data, lba, c.op.ID)
			default:
				*c = client{op: h.Begin("read", false, 0, lba, 1)}
			}
		case !c.done:
			c.done = true
			at := disk[c.op.LBA*Sector:][:Sector]
			if c.op.Kind == "read" {
				c.data = append([]byte(nil), at...)
			} else {
				copy(at, c.data)
			}
		default:
			if c.op.Kind == "read" {
				h.Found(c.op, Done, c.data)
			} else {
				h.Changed(c.op, Done)
			}
			c.op = nil
		}
	}
	for i := range clients {
		if op := clients[i].op; op != nil {
			h.Changed(op, Unknown)
		}
	}
	if lie {
		h.Changed(h.Begin("write", true, MakeID(1, 1<<20), 0, 1), Done)
	}
	h.Found(h.Begin("read", false, 0, 0, 1), Done, disk[:Sector])
	n, _ := h.Violations()
	return n
}
