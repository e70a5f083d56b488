package crypt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"dst/abi"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestCRC32CVectors: RFC 3720, B.4, and the check value of the algorithm.
func TestCRC32CVectors(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for _, c := range []struct {
		data []byte
		want uint32
	}{
		{make([]byte, 32), 0x8A9136AA},
		{bytes.Repeat([]byte{0xFF}, 32), 0x62A8AB43},
		{up, 0x46DD794E},
		{[]byte("123456789"), 0xE3069283},
	} {
		// The digest of header and data is that of the two in a row.
		all := append(make([]byte, abi.HeaderSize), c.data...)
		head := make([]byte, abi.HeaderSize+4)
		DigestCRC32C.Seal(head, c.data)
		if got, want := binary.BigEndian.Uint32(head[abi.HeaderSize:]), bitwise(all); got != want {
			t.Errorf("%x: %08x, want %08x", c.data, got, want)
		}
		if got := bitwise(c.data); got != c.want {
			t.Errorf("the reference gives %08x for %x, want %08x", got, c.data, c.want)
		}
	}
}

// bitwise is CRC-32C as its definition says it.
func bitwise(p []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range p {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0x82F63B78&-(crc&1)
		}
	}
	return ^crc
}

func TestDigestNames(t *testing.T) {
	for _, d := range []Digest{DigestNone, DigestCRC32C} {
		if got, err := ParseDigest(d.Name()); err != nil || got != d || !d.Valid() {
			t.Errorf("%s: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDigest("md4"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("md4: %v", err)
	}
	if d := Digest(9); d.Valid() || d.Size() != 0 || d.Name() != "digest(9)" {
		t.Errorf("%s is valid", d)
	}
}

func TestDigestFindsDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		head := rapid.SliceOfN(rapid.Byte(), abi.HeaderSize+4, abi.HeaderSize+4).Draw(t, "head")
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		DigestCRC32C.Seal(head, data)
		if err := DigestCRC32C.Check(head, data); err != nil {
			t.Fatal(err)
		}
		bit := rapid.IntRange(0, 8*(len(head)+len(data))-1).Draw(t, "bit")
		if at := bit / 8; at < len(head) {
			head[at] ^= 1 << (bit % 8)
		} else {
			data[at-len(head)] ^= 1 << (bit % 8)
		}
		if err := DigestCRC32C.Check(head, data); !errors.Is(err, unix.EBADMSG) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if err := DigestNone.Check(head, data); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCheckRefusesShortHeads(t *testing.T) {
	for n := range abi.HeaderSize + 4 {
		if err := DigestCRC32C.Check(make([]byte, n), nil); !errors.Is(err, unix.EBADMSG) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if err := DigestNone.Check(make([]byte, abi.HeaderSize), nil); err != nil {
		t.Error(err)
	}
	if err := Digest(9).Check(make([]byte, abi.HeaderSize), nil); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("unknown digest: %v", err)
	}
	head := bytes.Repeat([]byte{7}, abi.HeaderSize)
	DigestNone.Seal(head, nil) // changes nothing
	if !bytes.Equal(head, bytes.Repeat([]byte{7}, abi.HeaderSize)) {
		t.Error("DigestNone wrote")
	}
}

func TestDigestDoesNotAllocate(t *testing.T) {
	head, data := make([]byte, abi.HeaderSize+4), make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		DigestCRC32C.Seal(head, data)
		if DigestCRC32C.Check(head, data) != nil {
			t.Fatal("damaged")
		}
		head[0]++
		if DigestCRC32C.Check(head, data) == nil {
			t.Fatal("not noticed")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkSeal4K(b *testing.B) {
	head, data := make([]byte, abi.HeaderSize+4), make([]byte, 4096)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		DigestCRC32C.Seal(head, data)
	}
}

// TestDigestInPieces: Begin, Add and End judge as Check does.
func TestDigestInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Digest(rapid.IntRange(0, 2).Draw(t, "digest"))
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		head := make([]byte, abi.HeaderSize+4)
		d.Seal(head, data)
		if rapid.Bool().Draw(t, "damaged") {
			head[rapid.IntRange(0, len(head)-1).Draw(t, "byte")] ^= 1
		}
		cut := rapid.IntRange(0, len(data)).Draw(t, "cut")
		got := d.End(head, d.Add(d.Add(d.Begin(head), data[:cut]), data[cut:]))
		if want := d.Check(head, data); !errors.Is(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
