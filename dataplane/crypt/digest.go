// Package crypt protects what crosses the wire: digests over header and payload.
package crypt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// Digest is the algorithm that guards each frame of a connection against damage,
// end to end. It is no protection against an attacker.
type Digest uint8

const (
	DigestNone   Digest = iota // integrity is not promised
	DigestCRC32C               // CRC-32C (Castagnoli, RFC 3720 B.4), big-endian
)

// digests has the names of the kernel's crypto API and the sizes in bytes.
var digests = [...]struct {
	name string
	size int
}{
	DigestNone:   {"none", 0},
	DigestCRC32C: {"crc32c", crc32.Size},
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseDigest is the digest of that name. Errors: EINVAL.
func ParseDigest(name string) (Digest, error) {
	for i := range digests {
		if digests[i].name == name {
			return Digest(i), nil
		}
	}
	return DigestNone, fmt.Errorf("hash %q is not known: write crc32c or none: %w", name, unix.EINVAL)
}

// Valid tells whether d is one of the constants.
func (d Digest) Valid() bool { return int(d) < len(digests) }

// Size is the room behind the header that the digest takes, in bytes.
func (d Digest) Size() int {
	if !d.Valid() {
		return 0
	}
	return digests[d].size
}

// Name is the name in the kernel's crypto API, "none", or digest(N).
func (d Digest) Name() string {
	if !d.Valid() {
		return fmt.Sprintf("digest(%d)", uint8(d))
	}
	return digests[d].name
}

func (d Digest) String() string { return d.Name() }

// Seal writes the digest of header and data behind the header. head has
// abi.HeaderSize + Size bytes at least.
func (d Digest) Seal(head, data []byte) {
	if d == DigestCRC32C {
		binary.BigEndian.PutUint32(head[abi.HeaderSize:abi.HeaderSize+crc32.Size], sum(head, data))
	}
}

// Check compares the digest behind the header with head and data as they
// arrived. Errors: EBADMSG if they differ, head is too short or d unknown.
func (d Digest) Check(head, data []byte) error {
	if !d.Valid() || len(head) < abi.HeaderSize+d.Size() {
		return errHead
	}
	return d.End(head, d.Add(d.Begin(head), data))
}

// Begin, Add and End are Check for data that comes in pieces: the sum of the
// header, of the pieces in their order, and its comparison with the digest.
func (d Digest) Begin(head []byte) (sum uint32) {
	if d == DigestCRC32C {
		sum = crc32.Checksum(head[:abi.HeaderSize], castagnoli)
	}
	return sum
}

// Add is sum with b behind what it was of.
func (d Digest) Add(sum uint32, b []byte) uint32 {
	if d == DigestCRC32C {
		sum = crc32.Update(sum, castagnoli, b)
	}
	return sum
}

// End compares sum with the digest behind the header. Errors: those of Check.
func (d Digest) End(head []byte, sum uint32) error {
	if !d.Valid() || len(head) < abi.HeaderSize+d.Size() {
		return errHead
	}
	if d == DigestCRC32C && binary.BigEndian.Uint32(head[abi.HeaderSize:]) != sum {
		return errDamaged
	}
	return nil
}

var (
	errHead    = fmt.Errorf("frame without room for its digest: %w", unix.EBADMSG)
	errDamaged = fmt.Errorf("frame damaged on its way: look for a faulty network card, switch or memory: %w", unix.EBADMSG)
)

func sum(head, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:abi.HeaderSize], castagnoli), castagnoli, data)
}
