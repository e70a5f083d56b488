// Package history holds what the clients of a device did and were told, and finds what no device may do to them: an acknowledged
// byte lost or reverted, a value that was read and is gone again, a torn or foreign sector.
package history

import (
	"encoding/binary"
	"hash/crc32"
)

// Sector is the unit that is stamped, in bytes.
const Sector = 512

// ID names what a change left in its sectors. Zeroes are 0, whoever wrote them.
type ID uint64

// MakeID is the id of the n-th change (from 1) of a writer.
func MakeID(writer int, n uint64) ID { return ID(uint64(writer+1)<<48 | n) }

// Writer and Number take an id apart.
func (id ID) Writer() int    { return int(id>>48) - 1 }
func (id ID) Number() uint64 { return uint64(id) & (1<<48 - 1) }

const magic = 0x6473_7473_7461_6d70 // "dststamp"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Stamp fills a sector: magic, lba, id, filler that depends on them, crc32c. No part of it is like that of another stamp.
func Stamp(b []byte, lba uint64, id ID) {
	le := binary.LittleEndian
	le.PutUint64(b, magic)
	le.PutUint64(b[8:], lba)
	le.PutUint64(b[16:], uint64(id))
	x := uint64(id)*0x9e37_79b9_7f4a_7c15 ^ lba
	for i := 24; i < Sector-8; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		le.PutUint64(b[i:], x)
	}
	le.PutUint64(b[Sector-8:], uint64(crc32.Checksum(b[:Sector-8], castagnoli)))
}

// Parse reads the stamp of the sector at lba: 0 for zeroes; false for anything that no writer can have written there.
func Parse(b []byte, lba uint64) (ID, bool) {
	le := binary.LittleEndian
	if le.Uint64(b) == 0 {
		for _, c := range b[:Sector] {
			if c != 0 {
				return 0, false
			}
		}
		return 0, true
	}
	whole := le.Uint64(b) == magic && le.Uint64(b[Sector-8:]) == uint64(crc32.Checksum(b[:Sector-8], castagnoli))
	return ID(le.Uint64(b[16:])), whole && le.Uint64(b[8:]) == lba
}

// Where is the lba that a whole stamp was made for.
func Where(b []byte) (uint64, bool) {
	le := binary.LittleEndian
	lba := le.Uint64(b[8:])
	id, ok := Parse(b, lba)
	return lba, ok && id != 0
}

// describe says what a sector that Parse refused looks like.
func describe(b []byte, lba uint64) string {
	le := binary.LittleEndian
	switch {
	case le.Uint64(b) != magic:
		return "no stamp"
	case le.Uint64(b[Sector-8:]) != uint64(crc32.Checksum(b[:Sector-8], castagnoli)):
		return "torn: parts of two stamps, or damaged"
	case le.Uint64(b[8:]) != lba:
		return "the stamp of another sector"
	}
	return "whole"
}
