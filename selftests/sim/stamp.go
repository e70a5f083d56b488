package main

import (
	"bytes"
	"encoding/binary"

	"dst/abi"
)

const (
	sectorSize = abi.SectorSize
	stampMagic = 0x4453_5453 // "DSTS"
	garbage    = ^uint64(0)  // the value of a sector that no write has made
)

// stamp fills b, one sector, with the value v as store has it at sector at: the
// value 0 is zeroes, any other can be told from those of other sectors and
// stores, and a torn one from all.
func stamp(b []byte, v uint64, store byte, at int) {
	if v == 0 {
		clear(b)
		return
	}
	binary.BigEndian.PutUint64(b, v)
	binary.BigEndian.PutUint64(b[8:], stampMagic<<32|uint64(store)<<24|uint64(at))
	for n := 16; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// value is the v of stamp, or garbage.
func value(b []byte, store byte, at int) uint64 {
	v := binary.BigEndian.Uint64(b)
	want := uint64(0)
	if v != 0 {
		want = stampMagic<<32 | uint64(store)<<24 | uint64(at)
	}
	if binary.BigEndian.Uint64(b[8:]) != want || !bytes.Equal(b[16:], b[:len(b)-16]) {
		return garbage
	}
	return v
}
