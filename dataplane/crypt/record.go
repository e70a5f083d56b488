package crypt

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A record is what the secure channel (Secrets) carries bytes in:
//
//	length u24 | flags u8 | sealed bytes
//
// The length is that of the plaintext, so that it alone tells how many bytes
// follow. The first four bytes are authenticated with the rest. The nonce is how
// many records the direction had before; it is never sent, so that a record that
// is lost, repeated, moved or of another connection does not open.
const (
	RecordHead = 4        // bytes before the sealed ones
	RecordData = 64 << 10 // bytes of plaintext of one record at most
	// RecordMax is how many bytes a record has at most, with any suite.
	RecordMax = RecordHead + RecordData + recordTail
	// RecordExtra is by how many bytes at most a record is longer than its plaintext.
	RecordExtra = RecordHead + recordTail

	recordTail = 16 + 64 // padding and the longest MAC
)

// flagRekey: the records behind this one have the next key.
const flagRekey = 1

// ErrForged is the end of a connection on which something arrived that the peer
// did not send there.
var ErrForged = fmt.Errorf("a record is not the peer's: it was damaged or forged on its way: %w", unix.EBADMSG)

// errSpent stops a direction whose key is used up; the connection is made anew.
var errSpent = fmt.Errorf("the key of the connection is used up: connect again: %w", unix.EKEYEXPIRED)

// limits is how long one key is used.
type limits struct {
	records uint64        // then the next key
	bytes   uint64        // then the next key
	age     time.Duration // then the next key
	stop    uint64        // records: the key is never used for more, whatever the peer does
}

var usual = limits{records: 1 << 24, bytes: 64 << 30, age: time.Hour, stop: 1 << 32}

// tail is by how many bytes n bytes of plaintext grow when sealed.
func (s Suite) tail(n int) int {
	switch s.cipher {
	case cipherGCM, cipherChaCha:
		return tagSize
	case cipherCBC:
		return blockSize - n%blockSize + macs[s.mac].size
	}
	return macs[s.mac].size
}

// recordSize is how many bytes a record with n bytes of plaintext has.
func (s Suite) recordSize(n int) int { return RecordHead + n + s.tail(n) }

func putHead(b []byte, n int, flags byte) {
	_ = b[3]
	b[0], b[1], b[2], b[3] = byte(n>>16), byte(n>>8), byte(n), flags
}

func headSize(b []byte) (n int, flags byte) {
	_ = b[3]
	return int(b[0])<<16 | int(b[1])<<8 | int(b[2]), b[3]
}
