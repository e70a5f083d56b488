package remote

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// SavedSize is the size of the page that a node is remembered in, in bytes.
const SavedSize = 4096

const savedMagic = 0x4453_5453_4156_4533 // "DSTSAVE3"

// Offsets in the page: magic, the word that says which of two slots holds, the
// dirty mark, the slots, and why the node has failed.
const (
	offMagic  = 0
	offTurn   = 8
	offDirty  = 16
	offSlot   = 64
	slotSize  = 256  // the last 4 bytes are a checksum of the others
	offFailed = 1024 // length of the text, its checksum, the text; all 0: it has not
	failedMax = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bits of the dirty mark.
const (
	dirtyLog    = 1 // there are acknowledged changes that no flush covers
	dirtyNoLog  = 2 // of some of them the log is lost
	dirtyReplay = 4 // some of them are only in the log: the export has lost them
)

// Saved is what must outlive the daemon so that a restarted one is the same
// client: it lies in a page of the run directory, mapped into memory, and is
// written before anything that depends on it happens (the epoch before its
// HELLO, the dirty mark before the acknowledgement).
type Saved struct {
	ClientID abi.ID
	Epoch    uint64
	Known    bool // a WELCOME was seen: the fields below hold
	StoreID  abi.ID
	Tenure   abi.ID
	Verifier abi.Verifier
	Era      uint32 // counts the verifiers that were seen
	Shape    Info   // of the device, as its users know it
	Failed   string // why the node has failed for good, "": it has not; see doom
}

// load reads the page; a page of zeroes is a new attachment. dirty is the dirty
// mark.
func load(page []byte) (s Saved, dirty byte, err error) {
	ne := binary.NativeEndian
	magic := ne.Uint64(page[offMagic:])
	if magic == 0 {
		return Saved{}, 0, nil
	}
	b := page[offSlot+slotSize*int(ne.Uint64(page[offTurn:])&1):][:slotSize]
	if magic != savedMagic || ne.Uint32(b[slotSize-4:]) != crc32.Checksum(b[:slotSize-4], castagnoli) {
		return Saved{}, 0, errDamaged
	}
	copy(s.ClientID[:], b)
	s.Epoch = ne.Uint64(b[16:])
	s.Known = b[24] != 0
	copy(s.StoreID[:], b[32:])
	copy(s.Tenure[:], b[48:])
	copy(s.Verifier[:], b[64:])
	s.Era = ne.Uint32(b[112:])
	s.Shape = Info{Size: ne.Uint64(b[80:]), BlockMin: ne.Uint32(b[88:]), BlockPref: ne.Uint32(b[92:]), MaxSize: ne.Uint32(b[96:]),
		ReadOnly: b[100] != 0, Features: ne.Uint64(b[104:])}
	if word := ne.Uint64(page[offFailed:]); word != 0 {
		text := page[offFailed+8:][:min(uint32(word), failedMax)]
		if uint32(word>>32) != crc32.Checksum(text, castagnoli) {
			return Saved{}, 0, errDamaged
		}
		s.Failed = string(text)
	}
	return s, page[offDirty], nil
}

var errDamaged = fmt.Errorf("the remembered state of the node is damaged: remove the node and add it again: %w", unix.EUCLEAN)

// doom remembers that the node has failed for good, and why. Only who erases the page
// takes that back.
func (s *Saved) doom(page []byte, why string) {
	s.Failed = strings.ToValidUTF8(why[:min(len(why), failedMax)], "")
	n := copy(page[offFailed+8:], s.Failed)
	word := uint64(crc32.Checksum([]byte(s.Failed), castagnoli))<<32 | uint64(n)
	binary.NativeEndian.PutUint64(page[offFailed:], word)
}

// store writes s into the slot that does not hold and then turns: a daemon
// killed in between leaves the old state whole.
func (s *Saved) store(page []byte) {
	ne := binary.NativeEndian
	turn := ne.Uint64(page[offTurn:]) + 1
	b := page[offSlot+slotSize*int(turn&1):][:slotSize]
	copy(b, s.ClientID[:])
	ne.PutUint64(b[16:], s.Epoch)
	b[24], b[100] = bit(s.Known), bit(s.Shape.ReadOnly)
	copy(b[32:], s.StoreID[:])
	copy(b[48:], s.Tenure[:])
	copy(b[64:], s.Verifier[:])
	ne.PutUint64(b[80:], s.Shape.Size)
	ne.PutUint32(b[88:], s.Shape.BlockMin)
	ne.PutUint32(b[92:], s.Shape.BlockPref)
	ne.PutUint32(b[96:], s.Shape.MaxSize)
	ne.PutUint64(b[104:], s.Shape.Features)
	ne.PutUint32(b[112:], s.Era)
	ne.PutUint32(b[slotSize-4:], crc32.Checksum(b[:slotSize-4], castagnoli))
	ne.PutUint64(page[offTurn:], turn)
	ne.PutUint64(page[offMagic:], savedMagic)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Attachment is the client id that page remembers; ok is false for a page of a
// node that was never started, or a damaged one.
func Attachment(page []byte) (id abi.ID, ok bool) {
	s, _, err := load(page)
	return s.ClientID, err == nil && s.ClientID != abi.ID{}
}

// Dirty tells whether page remembers acknowledged changes that no flush covers, of
// a node that has not failed.
func Dirty(page []byte) bool {
	s, dirty, err := load(page)
	return err == nil && dirty != 0 && s.Failed == ""
}
