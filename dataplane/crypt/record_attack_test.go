package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forged fails unless the opener says that stream is forged, after it has shown
// no more than a prefix of texts; and it says so for ever.
func forged(t *testing.T, o *Opener, stream []byte, texts [][]byte) {
	t.Helper()
	got, err := openAll(o, slices.Clone(stream), false)
	if !errors.Is(err, ErrForged) || !errors.Is(err, unix.EBADMSG) {
		t.Fatalf("%v", err)
	}
	if len(got) >= len(texts) && len(texts) > 0 || !same(got, texts[:len(got)]) {
		t.Fatalf("%d texts were shown", len(got))
	}
	if _, _, err := o.Next(stream); !errors.Is(err, ErrForged) {
		t.Fatalf("goes on: %v", err)
	}
	dst := []byte{1, 2, 3}
	o.Open(dst, stream)
	if err := o.Finish(); !errors.Is(err, ErrForged) || !bytes.Equal(dst, make([]byte, 3)) {
		t.Fatalf("opens on: %v", err)
	}
}

// TestN12RecordEveryBit: each bit of a recorded session flipped, in both directions.
func TestN12RecordEveryBit(t *testing.T) {
	overSuites(t, func(t *testing.T, s Suite) {
		texts := [][]byte{text(1), text(48), text(20), text(16)}
		for way := range byte(2) { // another connection has other keys, as the other direction has
			sealer, _ := direction(t, s, way, nil)
			sealer.lane.limits.records = 2
			stream := slices.Concat(sealAll(t, sealer, texts...)...)
			for bit := range 8 * len(stream) {
				_, opener := direction(t, s, way, nil)
				stream[bit/8] ^= 1 << (bit % 8)
				got, err := openAll(opener, slices.Clone(stream), bit%2 == 0)
				stream[bit/8] ^= 1 << (bit % 8)
				if err == nil || len(got) >= len(texts) || !same(got, texts[:len(got)]) {
					t.Fatalf("bit %d: %d texts, %v", bit, len(got), err)
				}
				// A greater length waits for bytes that never come: nothing was proven.
				if n, _, e := opener.Next(stream); e == nil && err.Error() != "cut" {
					t.Fatalf("bit %d: goes on with %d", bit, n)
				}
			}
		}
	})
}

// TestN15RecordMoved: records repeated, lost, exchanged, of the other direction and of
// another connection.
func TestN15RecordMoved(t *testing.T) {
	overSuites(t, func(t *testing.T, s Suite) {
		texts := [][]byte{text(48), text(48), text(48)}
		sealer, _ := direction(t, s, 1, nil)
		r := sealAll(t, sealer, texts...)
		other, _ := direction(t, s, 2, nil)
		alien := sealAll(t, other, texts...)
		for name, stream := range map[string][][]byte{
			"replay of the first":    {r[0], r[0]},
			"replay of all":          {r[0], r[1], r[2], r[0]},
			"deletion of the first":  {r[1]},
			"deletion of the second": {r[0], r[2]},
			"reordering":             {r[1], r[0], r[2]},
			"splicing":               {r[0], alien[1], r[2]},
			"another connection":     {alien[0]},
		} {
			t.Run(name, func(t *testing.T) {
				_, opener := direction(t, s, 1, nil)
				forged(t, opener, slices.Concat(stream...), append(texts, nil))
			})
		}
		t.Run("reflection", func(t *testing.T) {
			client, _ := secretsOf(s, 1)
			opener, err := NewOpener(&client, nil)
			if err != nil {
				t.Fatal(err)
			}
			forged(t, opener, r[0], texts)
		})
		t.Run("another suite", func(t *testing.T) {
			for _, foreign := range everySuite {
				if foreign == s {
					continue
				}
				_, opener := direction(t, foreign, 1, nil)
				got, err := openAll(opener, slices.Concat(r...), false)
				if err == nil || len(got) > 0 {
					t.Errorf("opened as %s: %v", foreign, err)
				}
			}
		})
	})
}

// TestN1RecordLengths: what a length says is judged before anything is done with
// it.
func TestN1RecordLengths(t *testing.T) {
	overSuites(t, func(t *testing.T, s Suite) {
		for _, limit := range []int{1 << 10, RecordData} {
			for _, c := range []struct {
				n     int
				flags byte
				legal bool
			}{
				{0, 0, false}, {1, 0, true}, {15, 0, true}, {16, 0, true}, {limit - 1, 0, true}, {limit, 0, true}, {limit, flagRekey, true},
				{limit + 1, 0, false}, {1<<24 - 1, 0, false}, {1, 2, false}, {1, 0xFE, false}, {1, 0xFF, false},
			} {
				_, opener := direction(t, s, 1, nil)
				opener.Limit(limit)
				raw := make([]byte, RecordMax)
				putHead(raw, c.n, c.flags)
				n, size, err := opener.Next(raw)
				if !c.legal {
					if n != 0 || size != 0 || !errors.Is(err, ErrForged) {
						t.Errorf("%d, %x: %d in %d, %v", c.n, c.flags, n, size, err)
					}
					continue
				}
				if n != c.n || size <= n || size > RecordMax || err != nil {
					t.Fatalf("%d: %d in %d, %v", c.n, n, size, err)
				}
				dst := bytes.Repeat([]byte{1}, n)
				opener.Open(dst, raw[:size])
				if err := opener.Finish(); !errors.Is(err, ErrForged) || !bytes.Equal(dst, make([]byte, n)) {
					t.Errorf("%d: %v", c.n, err)
				}
			}
		}
	})
	_, opener := direction(t, everySuite[0], 1, nil)
	for n := range RecordHead {
		if text, size, err := opener.Next(make([]byte, n)); text != 0 || size != 0 || err != nil {
			t.Errorf("%d bytes of head: %d, %d, %v", n, text, size, err)
		}
	}
}

// TestRecordSizeOfSeal: a record of nothing, or too large, is a fault of the caller.
func TestRecordSizeOfSeal(t *testing.T) {
	for _, n := range []int{0, RecordData + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes were sealed", n)
				}
			}()
			sealer, _ := direction(t, everySuite[0], 1, nil)
			_, _ = sealer.Seal(make([]byte, 2*RecordMax), make([]byte, n))
		}()
	}
}

// nonces sees that no nonce is used twice with a key.
type nonces struct {
	sync.Mutex
	seen map[string]bool
	keys map[[secretSize]byte]bool
	fail func(string, ...any)
}

func watchNonces(fail func(string, ...any)) *nonces {
	return &nonces{seen: map[string]bool{}, keys: map[[secretSize]byte]bool{}, fail: fail}
}

func (n *nonces) use(key *[secretSize]byte, counter uint64) {
	n.Lock()
	defer n.Unlock()
	id := fmt.Sprintf("%x %d", *key, counter)
	if n.seen[id] {
		n.fail("nonce %d was used twice", counter)
	}
	n.seen[id], n.keys[*key] = true, true
}

// TestRekey: both directions change their keys a thousand times, each after few
// records, and no nonce is used twice.
func TestRekey(t *testing.T) {
	pool := NewPool(3)
	defer pool.Close()
	overSuites(t, func(t *testing.T, s Suite) {
		client, export := secretsOf(s, 1)
		used := watchNonces(t.Errorf)
		for _, ends := range [2][2]*Secrets{{&client, &export}, {&export, &client}} {
			sealer, err := NewSealer(ends[0], pool)
			if err != nil {
				t.Fatal(err)
			}
			opener, err := NewOpener(ends[1], pool)
			if err != nil {
				t.Fatal(err)
			}
			sealer.lane.limits.records, sealer.lane.watch = 3, used.use
			opener.lane.limits.stop = 3
			small, big := text(9), text(bigRecord)
			for i := range 1000 {
				texts := [][]byte{small, small, small}
				if i%50 == 0 {
					texts = [][]byte{big, small, big, big, small, big}
				}
				got, err := openBatch(opener, slices.Concat(sealAll(t, sealer, texts...)...), texts)
				if err != nil || !same(got, texts) {
					t.Fatalf("key %d: %v", i, err)
				}
			}
			if sealer.lane.key == ends[0].Send || sealer.lane.key != opener.lane.key {
				t.Error("the ends have other keys")
			}
		}
		if len(used.keys) < 2000 {
			t.Errorf("%d keys", len(used.keys))
		}
	})
}

// TestRekeyWhen: bytes and age end a key too.
func TestRekeyWhen(t *testing.T) {
	for name, set := range map[string]func(*limits){
		"bytes": func(l *limits) { l.bytes = 200 },
		"age":   func(l *limits) { l.age = time.Nanosecond },
	} {
		sealer, opener := direction(t, everySuite[0], 1, nil)
		first := sealer.lane.key
		set(&sealer.lane.limits)
		sealAll(t, sealer, text(100)) // the age is looked at when a batch is finished
		if sealer.lane.key != first {
			t.Errorf("%s: too early", name)
		}
		rec := sealAll(t, sealer, text(100))[0]
		if sealer.lane.key == first || rec[3] != flagRekey {
			t.Errorf("%s: the key stays", name)
		}
		if opener.lane.key != first {
			t.Errorf("%s: the opener changed before it was told", name)
		}
	}
}

// TestRekeyNever: neither end uses a key for ever.
func TestRekeyNever(t *testing.T) {
	sealer, opener := direction(t, everySuite[0], 1, nil)
	opener.lane.limits.stop, sealer.lane.limits.stop = 3, 5
	stream := slices.Concat(sealAll(t, sealer, text(1), text(1), text(1), text(1), text(1))...)
	if _, err := sealer.Seal(make([]byte, 100), text(1)); !errors.Is(err, unix.EKEYEXPIRED) {
		t.Errorf("sealed on: %v", err)
	}
	if got, err := openAll(opener, stream, false); len(got) != 3 || !errors.Is(err, unix.EKEYEXPIRED) {
		t.Errorf("%d opened, %v", len(got), err)
	}
}

// TestRekeyFlagged: that a record is the last of its key is proven before it is
// believed.
func TestRekeyFlagged(t *testing.T) {
	sealer, opener := direction(t, everySuite[0], 1, nil)
	key := opener.lane.key
	rec := sealAll(t, sealer, text(9))[0]
	rec[3] = flagRekey
	forged(t, opener, rec, nil)
	if opener.lane.key != key {
		t.Error("the key was changed")
	}
}

// TestRecordPadding: wrong padding with a right MAC, which only the peer itself can
// make, is no text either, in place or not.
func TestRecordPadding(t *testing.T) {
	s := Suite{cipherCBC, macSHA256}
	for n := range 33 {
		for _, inPlace := range []bool{false, true} {
			sealer, opener := direction(t, s, 1, nil)
			rec := sealAll(t, sealer, text(n+1))[0]
			e := sealer.lane.engines[0]
			sealed := rec[RecordHead : len(rec)-e.mac.Size()]
			e.dec.SetIV(e.iv(0))
			e.dec.CryptBlocks(sealed, sealed)
			sealed[len(sealed)-1] ^= 0x10 // its last byte is always padding
			e.enc.SetIV(e.iv(0))
			e.enc.CryptBlocks(sealed, sealed)
			copy(rec[RecordHead+len(sealed):], e.authenticate(rec[:RecordHead], sealed, 0))
			if got, err := openAll(opener, rec, inPlace); !errors.Is(err, ErrForged) || len(got) > 0 {
				t.Errorf("%d bytes: %x, %v", n+1, got, err)
			}
		}
	}
}
