package export

import (
	"errors"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Store is where an export's bytes are: a file or a block device, or what a
// test puts in its place. Its methods may be called by many workers at once,
// with ranges that were checked against the Geometry. Errors carry an errno.
type Store interface {
	// ReadAt fills b from off. Bytes that the store does not have are EIO,
	// never left as they were. With wait false it answers EAGAIN, and b is
	// undefined, where it would have to wait.
	ReadAt(b []byte, off uint64, wait bool) error
	// WriteAt writes all of b; durable asks for what Geometry.FUA promises.
	WriteAt(b []byte, off uint64, durable bool) error
	// Erase gives up n bytes or makes them zeroes, at most EraseChunk at once.
	Erase(off, n uint64, how Erasure) error
	// Flush makes durable what was written before it was called.
	Flush() error
	Close() error
}

// Erasure is what Erase does with a range.
type Erasure uint8

const (
	EraseDiscard  Erasure = iota // contents are undefined afterwards; may do nothing
	EraseZero                    // reads as zeroes, blocks may be given up
	EraseAllocate                // reads as zeroes, blocks stay allocated
)

// EraseChunk is how many bytes an Erase takes at most, so that a fence never
// waits for a long one as a whole.
const EraseChunk = 16 << 20

// Geometry is what a Store is like. It does not change while it is open; a size
// that does is the Node's (Resize).
type Geometry struct {
	Size      uint64 // bytes when it was opened, a multiple of BlockMin
	BlockMin  uint32 // bytes: alignment of every request, a power of two from 512
	BlockPref uint32 // bytes: best alignment
	ReadOnly  bool   // opened for reading
	Direct    bool   // the page cache is passed by
	Rotating  bool
	Instant   bool // memory: reads and writes never wait
	Cached    bool // ReadAt without wait can succeed
	Late      bool // a change may be told, once for all, what an earlier one did not find room for
	// FUA: a durable WriteAt is durable when it returns, by itself and without
	// consuming the error of somebody else's write (as fsync does).
	FUA bool
}

// Disk is an opened store and what is known about it.
type Disk struct {
	Store    Store
	Geometry Geometry
	Identity *Identity
	Warnings []string // what the administrator should know, a sentence each
	// Measure is how many bytes the store has now. nil: as many as ever (tests).
	Measure func() (uint64, error)
}

// features are the bits of a WELCOME that tell what the disk does.
func (g *Geometry) features() uint64 {
	f := abi.FeatureFlush | abi.FeatureFUA | abi.FeatureDiscard | abi.FeatureWriteZeroes
	if g.Rotating {
		f |= abi.FeatureRotational
	}
	return f
}

// errnoOf is the errno that err carries, EIO if none.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var e unix.Errno
	if errors.As(err, &e) && e != 0 && e <= 0xffff {
		return e
	}
	return unix.EIO
}
