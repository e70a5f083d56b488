package trans

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
)

// Memory is the payload memory of a remote and its log, both in one file on
// tmpfs: what is received there is the log's content where it lies.
type Memory struct {
	Arena *mempool.Arena
	Log   *Log

	f    *os.File
	file *mempool.File
	mem  []byte // the log's

	limit int
}

// Sizes are what a Memory is made for; another one can not read it.
type Sizes struct {
	Guaranteed, Limit, Largest int // bytes, see mempool.NewArena
	Depth                      int // elements of the reserve
}

// records is how many live records the log has room for: one for each 16 KiB of
// the arena, and at least two for each request.
func (s Sizes) records() int { return min(max(s.Limit>>14, 2*s.Depth, 256), 1<<16) }

// OpenMemory opens the memory that owner left in f, or makes it in an empty
// file; f stays the caller's. Errors: EUCLEAN if it is damaged, of other sizes or of somebody else;
// ENOMEM and ENOSPC if there is no room, in the budget or in the file system.
func OpenMemory(f *os.File, b *mempool.Budget, s Sizes, owner abi.ID) (*Memory, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	m := &Memory{limit: s.Limit, f: os.NewFile(uintptr(fd), f.Name())}
	if err := m.open(m.f, b, s, owner); err != nil {
		err = errors.Join(err, m.f.Close())
		if m.file != nil {
			err = errors.Join(err, m.file.Close())
		}
		if m.mem != nil {
			err = errors.Join(err, unix.Munmap(m.mem))
		}
		return nil, err
	}
	return m, nil
}

// NewMemory is a Memory without a file, for who drives a core by himself: log,
// and at most limit bytes of payload, which are the caller's.
func NewMemory(log *Log, limit int) *Memory { return &Memory{Log: log, limit: limit} }

func (m *Memory) open(f *os.File, b *mempool.Budget, s Sizes, owner abi.ID) (err error) {
	size := LogSize(s.Depth, s.records())
	size = (size + os.Getpagesize() - 1) &^ (os.Getpagesize() - 1)
	payload := mempool.FileSize(s.Guaranteed, s.Limit, s.Largest)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if is, want := info.Size(), int64(size)+int64(payload); is != 0 && is != want {
		return fmt.Errorf("the replay log has %d bytes where %d are needed: %w", is, want, unix.EUCLEAN)
	}
	if err := mempool.Allocate(f, 0, int64(size)); err != nil {
		return fmt.Errorf("the run directory has no room for a replay log of %d KiB: %w", size>>10, err)
	}
	if m.mem, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("map the replay log: %w", err)
	}
	_ = unix.Mlock(m.mem) // without the right to, it is as good, only not safe from swap
	if m.Log, err = OpenLog(m.mem, s.Depth, s.records(), owner); err != nil {
		return err
	}
	if m.file, err = mempool.MapFile(f, int64(size), payload); err != nil {
		return err
	}
	if m.Arena, err = mempool.NewArenaIn(b, s.Guaranteed, s.Limit, s.Largest, m.file, m.Log.Kept()); err != nil {
		return err
	}
	m.Log.Adopt(m)
	return nil
}

// Half is half of the payload memory that there can be, in bytes.
func (m *Memory) Half() int { return m.limit / 2 }

// Where, Piece and Put make it the log's Payload.
func (m *Memory) Where(b []byte) mempool.Extent { return m.file.Where(b) }
func (m *Memory) Piece(e mempool.Extent) []byte { return m.file.Piece(e) }
func (m *Memory) Put(b []byte)                  { m.Arena.Put(b) }

// Close is the end of the memory in this process; what the log holds stays in
// the file for the next. Nobody may touch any of it any more. Errors: EBUSY,
// besides, if more than what the log holds is out.
func (m *Memory) Close() error {
	var err error
	held := 0
	for _, e := range m.Log.Kept() {
		held += (e.N + mempool.PageSize - 1) &^ (mempool.PageSize - 1)
	}
	if out := m.Arena.InUse(); out != held {
		err = fmt.Errorf("%d bytes of payload memory are out, the log has %d: %w", out, held, unix.EBUSY)
	}
	m.Arena.Leave()
	return errors.Join(err, m.file.Close(), unix.Munmap(m.mem), m.f.Close())
}
