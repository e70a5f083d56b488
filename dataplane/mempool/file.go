package mempool

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is where an Arena has its chunks from.
type memory interface {
	// alloc gives n bytes, present, and tells whether they are locked.
	alloc(n int) (mem []byte, locked bool, err error)
	free(mem []byte)
}

// anonymous is memory of this process alone.
type anonymous struct{}

func (anonymous) alloc(n int) ([]byte, bool, error) { return lockedPages(n) }
func (anonymous) free(b []byte)                     { FreePages(b) }

// File is payload memory that lies in a file on tmpfs and so outlives the
// process. What an Arena has of it is allocated there before it is touched: a
// file system that is full is an error, never a signal.
type File struct {
	f    *os.File
	from int64  // where the memory begins in the file, in bytes
	unit int    // bytes
	mem  []byte // all of it; only the units in use may be touched

	mu   sync.Mutex // guards used: an Arena gives back and takes at the same time
	used []bool     // by unit
}

// Extent is a piece of a File's memory: n bytes from at.
type Extent struct{ At, N int }

// MapFile maps size bytes of f from the offset from, a multiple of the
// machine's page, and allocates none of them. f stays the caller's.
func MapFile(f *os.File, from int64, size int) (*File, error) {
	if err := f.Truncate(from + int64(size)); err != nil {
		return nil, fmt.Errorf("make room in %s: %w", f.Name(), err)
	}
	mem, err := unix.Mmap(int(f.Fd()), from, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d KiB of %s: %w", size>>10, f.Name(), err)
	}
	return &File{f: f, from: from, mem: mem}, nil
}

// Allocate makes sure that f has the n bytes from at, so that touching them is
// never a signal. tmpfs may give up with EINTR, and the runtime's own signals
// are enough for that. Errors: those of fallocate(2), but not EINTR.
func Allocate(f *os.File, at, n int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), 0, at, n); err != unix.EINTR {
			return err
		}
	}
}

// FileSize is how many bytes a File needs for an Arena of these sizes.
func FileSize(guaranteed, limit, largest int) int {
	unit := roundUp(max(largest, lendSize))
	return (roundUp(guaranteed)+unit-1)/unit*unit + (roundUp(limit)-roundUp(guaranteed))/unit*unit
}

// Close unmaps the memory: the Arena that had it must be closed. What is
// allocated in the file stays so.
func (m *File) Close() error { return unix.Munmap(m.mem) }

// Piece is the memory at e, which must be out of the Arena over m.
func (m *File) Piece(e Extent) []byte {
	return m.mem[e.At : e.At+e.N : (e.At+e.N+PageSize-1)&^(PageSize-1)]
}

// Where is the place of b, which must be out of the Arena over m.
func (m *File) Where(b []byte) Extent {
	return Extent{int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(m.mem)))), len(b)}
}

// alloc takes the first units that are free, and so many neighbours.
func (m *File) alloc(n int) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	units := (n + m.unit - 1) / m.unit
	run := 0
	for i, used := range m.used {
		if run++; used {
			run = 0
		}
		if run == units {
			return m.claim((i-units+1)*m.unit, n)
		}
	}
	return nil, false, fmt.Errorf("%s has no room for %d KiB: %w", m.f.Name(), n>>10, unix.ENOMEM)
}

// claim takes n bytes from the unit that begins at at. Called with the lock, or
// before there is an Arena.
func (m *File) claim(at, n int) ([]byte, bool, error) {
	if err := Allocate(m.f, m.from+int64(at), int64(n)); err != nil {
		return nil, false, fmt.Errorf("the file system of %s has no room for %d KiB of payload memory: make it larger: %w", m.f.Name(), n>>10, err)
	}
	for i := at / m.unit; i*m.unit < at+n; i++ {
		m.used[i] = true
	}
	b := m.mem[at : at+n : at+n]
	return b, unix.Mlock(b) == nil, nil
}

// sweep gives the file system back what an earlier Arena had and this one, whose
// pieces are all claimed, has not.
func (m *File) sweep() {
	for i := 0; i < len(m.used); i++ {
		if from := i; !m.used[i] {
			for i < len(m.used) && !m.used[i] {
				i++
			}
			m.punch(from*m.unit, (i-from)*m.unit)
		}
	}
}

func (m *File) punch(at, n int) {
	_ = unix.Fallocate(int(m.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, m.from+int64(at), int64(n))
}

// free gives the memory back to the file system.
func (m *File) free(b []byte) {
	e := m.Where(b)
	_ = unix.Munlock(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.punch(e.At, e.N)
	for i := e.At / m.unit; i*m.unit < e.At+e.N; i++ {
		m.used[i] = false
	}
}
