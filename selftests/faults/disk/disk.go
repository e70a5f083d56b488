// Package disk is a disk that can be lost: one file on a FUSE file system of its own, with a volatile cache. Tests let an export keep
// its bytes there, and then lose what no fsync has covered, or make operations fail, wait or find no room. Nothing of it is a kernel's
// guess: what a program is told of, and what is left when the power goes, is exactly what was ordered.
//
// Source: include/uapi/linux/fuse.h.
package disk

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Sector is what survives whole or not at all, in bytes.
const Sector = 512

// Op is what a program asks of the disk.
type Op int

const (
	Read Op = iota
	Write
	Sync  // fsync, fdatasync, and the second half of a write with RWF_DSYNC
	Erase // fallocate: punch a hole, or zero
	ops
)

// Fault is what becomes of an operation.
type Fault struct {
	After uint64        // so many of its kind are let through first
	Count uint64        // then it hits so many, 0 = all that follow
	Errno unix.Errno    // they fail; a Sync that does gives up what it should have made durable, as kernels do, see Evict
	Stall time.Duration // they wait before they are done; nothing else does
}

// Stats counts what happened since New.
type Stats struct {
	Done  [ops]uint64 // operations that ended well
	Hit   uint64      // faults that struck
	Held  int         // operations that wait
	Dirty int         // sectors that a loss could take
}

// Disk is the file. All methods may be called at any time by any goroutine.
type Disk struct {
	mu      sync.Mutex
	seen    []byte // what is read
	kept    []byte // what is left after a loss
	dirty   []bool // sectors that no Sync has covered
	doomed  []bool // that one has failed to cover: they are read until Evict, and no other Sync looks at them
	filled  []bool // that have taken room
	room    int    // sectors that may still; -1 = no limit
	faults  [ops]*Fault
	hit     chan struct{} // closed and replaced when a fault strikes
	release chan struct{} // closed and replaced by Release
	xattrs  map[string][]byte
	stats   Stats
	fuse    *fuse
}

// New mounts a disk of size bytes as the file "disk" in a directory. It needs root and /dev/fuse.
func New(dir string, size int) (*Disk, error) {
	d := newDisk(size)
	f, err := mount(dir, d)
	if err != nil {
		return nil, err
	}
	d.fuse = f
	return d, nil
}

func newDisk(size int) *Disk {
	n := size / Sector
	return &Disk{seen: make([]byte, n*Sector), kept: make([]byte, n*Sector),
		dirty: make([]bool, n), doomed: make([]bool, n), filled: make([]bool, n), room: -1,
		hit: make(chan struct{}), release: make(chan struct{}), xattrs: map[string][]byte{}}
}

// Close unmounts the disk; who has it open gets errors.
func (d *Disk) Close() error {
	d.Release()
	return d.fuse.close()
}

// Order sets what becomes of operations of a kind; an earlier order for it is forgotten, nil ends it. The channel is closed when
// the fault strikes for the first time.
func (d *Disk) Order(op Op, f *Fault) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[op] = f
	d.hit = make(chan struct{})
	return d.hit
}

// Release ends the wait of all operations that stall.
func (d *Disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.release)
	d.release = make(chan struct{})
}

// Room limits what may be written where nothing was written yet, in bytes from now on; negative: no limit. Beyond it there is ENOSPC.
func (d *Disk) Room(bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room = bytes / Sector; bytes < 0 {
		d.room = -1
	}
}

// Lose is a loss of power: of each sector that no Sync has covered the new content is lost with that probability. Nobody may be
// using the disk. It returns how many sectors were lost.
func (d *Disk) Lose(p float64, rnd *rand.Rand) (lost int) {
	d.Evict()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, dirty := range d.dirty {
		if !dirty {
			continue
		}
		d.dirty[i] = false
		if at := i * Sector; rnd.Float64() < p {
			copy(d.seen[at:at+Sector], d.kept[at:])
			lost++
		} else {
			copy(d.kept[at:at+Sector], d.seen[at:])
		}
	}
	return lost
}

// Evict lets the cache forget what a failed Sync has given up: the old content is read again, unless it was written once more.
func (d *Disk) Evict() (lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, doomed := range d.doomed {
		if doomed {
			copy(d.seen[i*Sector:(i+1)*Sector], d.kept[i*Sector:])
			d.doomed[i] = false
			lost++
		}
	}
	return lost
}

// Kept is a copy of what a loss of power would leave at least.
func (d *Disk) Kept() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.kept...)
}

// Stats returns the counters.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	for _, dirty := range d.dirty {
		if dirty {
			s.Dirty++
		}
	}
	return s
}

// meet is the fault that op meets, after it has waited for as long as that says.
func (d *Disk) meet(op Op) unix.Errno {
	d.mu.Lock()
	f := d.faults[op]
	switch {
	case f == nil:
		d.mu.Unlock()
		return 0
	case f.After > 0:
		f.After--
		d.mu.Unlock()
		return 0
	case f.Count == 1:
		d.faults[op] = nil
	case f.Count > 0:
		f.Count--
	}
	d.stats.Hit++
	select {
	case <-d.hit:
	default:
		close(d.hit)
	}
	d.stats.Held++
	release, stall, errno := d.release, f.Stall, f.Errno
	d.mu.Unlock()
	if stall > 0 {
		t := time.NewTimer(stall)
		select {
		case <-t.C:
		case <-release:
		}
		t.Stop()
	}
	d.mu.Lock()
	d.stats.Held--
	d.mu.Unlock()
	return errno
}

// inside checks a range.
func (d *Disk) inside(off, n uint64) bool {
	size := uint64(len(d.seen))
	return off <= size && n <= size-off
}

// readAt is as much of n bytes from off as there is.
func (d *Disk) readAt(off uint64, n uint32) ([]byte, unix.Errno) {
	if errno := d.meet(Read); errno != 0 {
		return nil, errno
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	from := min(off, uint64(len(d.seen)))
	d.stats.Done[Read]++
	return append([]byte(nil), d.seen[from:min(from+uint64(n), uint64(len(d.seen)))]...), 0
}

// writeAt puts b at off, into the cache.
func (d *Disk) writeAt(b []byte, off uint64) unix.Errno {
	if errno := d.meet(Write); errno != 0 {
		return errno
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.inside(off, uint64(len(b))) {
		return unix.EFBIG
	}
	if !d.fill(off, uint64(len(b))) {
		return unix.ENOSPC
	}
	copy(d.seen[off:], b)
	d.soil(off, uint64(len(b)))
	d.stats.Done[Write]++
	return 0
}

// fill takes room for a range; false if there is not enough, and then for none of it.
func (d *Disk) fill(off, n uint64) bool {
	need := 0
	for i := off / Sector; i*Sector < off+n; i++ {
		if !d.filled[i] {
			need++
		}
	}
	if d.room >= 0 && need > d.room {
		return false
	}
	for i := off / Sector; i*Sector < off+n; i++ {
		d.filled[i] = true
	}
	if d.room >= 0 {
		d.room -= need
	}
	return true
}

func (d *Disk) soil(off, n uint64) {
	for i := off / Sector; i*Sector < off+n; i++ {
		d.dirty[i], d.doomed[i] = true, false
	}
}

// sync makes durable what was written to a range before; if it fails that is lost.
func (d *Disk) sync(off, n uint64) unix.Errno {
	errno := d.meet(Sync)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := off / Sector; i*Sector < off+n; i++ {
		at := i * Sector
		switch {
		case !d.dirty[i]:
			continue
		case errno != 0:
			d.doomed[i] = true
		default:
			copy(d.kept[at:at+Sector], d.seen[at:])
		}
		d.dirty[i] = false
	}
	if errno == 0 {
		d.stats.Done[Sync]++
	}
	return errno
}

// erase is fallocate: nothing but zeroes is asked for.
func (d *Disk) erase(off, n uint64, mode uint32) unix.Errno {
	if mode&^(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 ||
		mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return unix.EOPNOTSUPP
	}
	if errno := d.meet(Erase); errno != 0 {
		return errno
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.inside(off, n) {
		return unix.EFBIG
	}
	if mode&unix.FALLOC_FL_ZERO_RANGE != 0 && !d.fill(off, n) {
		return unix.ENOSPC
	}
	clear(d.seen[off : off+n])
	d.soil(off, n)
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
		for i := (off + Sector - 1) / Sector; (i+1)*Sector <= off+n; i++ {
			if d.filled[i] && d.room >= 0 {
				d.room++
			}
			d.filled[i] = false
		}
	}
	d.stats.Done[Erase]++
	return 0
}

// String is for messages.
func (o Op) String() string {
	if o < 0 || o >= ops {
		return fmt.Sprint("op ", int(o))
	}
	return [...]string{"read", "write", "sync", "erase"}[o]
}
