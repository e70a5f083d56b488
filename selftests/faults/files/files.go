// Package files writes files of a mounted file system and keeps a ledger of what it was told of them: begun, acknowledged, durable. It
// holds against the ledger what the files say while the device below them is lost and comes back, and what the disk below that
// device says right after a loss of power. Every sector bears a stamp of package history.
package files

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/selftests/faults/history"
)

const (
	blockSize  = 4096
	blocks     = 512 // of a file
	sectors    = blockSize / history.Sector
	writers    = 4 // of a file, each with blocks of its own
	largest    = 8 // blocks of a write
	pause      = 3 * time.Millisecond
	flushPause = 800 * time.Millisecond
)

// Files are two files: one is written past the page cache, one through it and then pushed out by sync_file_range. Either way what
// was written is then acknowledged by the device, and not durable before a flush.
type Files struct {
	raw     string
	files   []*file
	writing sync.RWMutex // held for writing: nobody writes
	stop    chan struct{}
	wg      sync.WaitGroup
	writes  atomic.Uint64
	flushes atomic.Uint64
	reads   atomic.Uint64
	mu      sync.Mutex
	bad     []string
}

// file is one of them; what is known of it is counted in changes of the file, by block.
type file struct {
	number int
	past   bool // the page cache
	fd     int  // written and flushed
	in     int  // read, past the page cache
	last   atomic.Uint64

	mu                    sync.Mutex
	begun, acked, durable [blocks]uint64
	seen                  [blocks * sectors]uint64 // by sector: what was read once
	at                    [blocks * sectors]int64  // where it lies on the raw disk
}

// New makes the files in a directory, durable, and finds each of their sectors on the raw disk. direct is O_DIRECT, or 0 where a
// directory does not know it.
func New(dir, raw string, direct int) (*Files, error) {
	f := &Files{raw: raw, stop: make(chan struct{})}
	for i, name := range []string{"past", "through"} {
		one := &file{number: i, past: i == 0}
		flags, path := unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, filepath.Join(dir, name)
		if one.past {
			flags |= direct
		}
		var err error
		if one.fd, err = unix.Open(path, flags, 0o600); err == nil {
			one.in, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|direct, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.files = append(f.files, one)
		b := aligned(largest)
		for at := 0; at < blocks; at += largest {
			if err := f.write(one, b, at); err != nil {
				return nil, err
			}
		}
		if err := one.flush(unix.Fsync); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Start begins to write, to read and to flush.
func (f *Files) Start() {
	for _, one := range f.files {
		for w := range writers {
			f.wg.Go(func() { f.writer(one, w) })
		}
		f.wg.Go(func() { f.reader(one) })
		f.wg.Go(func() { f.flusher(one) })
	}
}

// Close ends all that and tells what was wrong.
func (f *Files) Close() error {
	close(f.stop)
	f.wg.Wait()
	for _, one := range f.files {
		unix.Close(one.fd)
		unix.Close(one.in)
	}
	return f.wrong()
}

// aligned is memory for n blocks, as O_DIRECT wants it.
func aligned(n int) []byte {
	b := make([]byte, (n+1)*blockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (blockSize - 1)
	return b[skip : skip+n*blockSize]
}

// complain notes what must not be.
func (f *Files) complain(format string, a ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.bad) < 10 {
		f.bad = append(f.bad, fmt.Sprintf(format, a...))
	}
}

func (f *Files) wrong() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, s := range f.bad {
		errs = append(errs, errors.New(s))
	}
	return errors.Join(errs...)
}

// wait is false when the files are to be closed.
func (f *Files) wait(most time.Duration) bool {
	select {
	case <-f.stop:
		return false
	case <-time.After(time.Duration(rand.Int64N(int64(most)))):
		return true
	}
}

// writer writes again and again to its part of a file.
// Started by Start. Owns its part. Ends when the files are closed, or with an error.
func (f *Files) writer(one *file, w int) {
	const part = blocks / writers
	b := aligned(largest)
	for f.wait(2 * pause) {
		n := 1 + rand.IntN(largest)
		f.writing.RLock()
		err := f.write(one, b[:n*blockSize], w*part+rand.IntN(part-n+1))
		f.writing.RUnlock()
		if err != nil {
			f.complain("%v", err)
			return
		}
		f.writes.Add(1)
	}
}

// write writes some blocks and notes when that began and was acknowledged.
func (f *Files) write(one *file, b []byte, at int) error {
	change := one.last.Add(1)
	n := len(b) / blockSize
	for i := range n * sectors {
		history.Stamp(b[i*history.Sector:], uint64(at*sectors+i), history.MakeID(one.number, change))
	}
	one.note(&one.begun, at, n, change)
	off := int64(at) * blockSize
	if _, err := unix.Pwrite(one.fd, b, off); err != nil {
		return fmt.Errorf("file %d: write of %d blocks at %d: %w", one.number, n, at, err)
	}
	if !one.past {
		const out = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := unix.SyncFileRange(one.fd, off, int64(len(b)), out); err != nil {
			return fmt.Errorf("file %d: %d blocks at %d are pushed out: %w", one.number, n, at, err)
		}
	}
	one.note(&one.acked, at, n, change)
	return nil
}

func (one *file) note(what *[blocks]uint64, at, n int, change uint64) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for i := at; i < at+n; i++ {
		what[i] = change
	}
}

// flusher makes a file durable now and then.
// Started by Start. Ends when the files are closed, or with an error.
func (f *Files) flusher(one *file) {
	for f.wait(2 * flushPause) {
		if err := one.flush(unix.Fdatasync); err != nil {
			f.complain("%v", err)
			return
		}
		f.flushes.Add(1)
	}
}

// flush notes as durable what was acknowledged before it began.
func (one *file) flush(sync func(int) error) error {
	one.mu.Lock()
	acked := one.acked
	one.mu.Unlock()
	if err := sync(one.fd); err != nil {
		return fmt.Errorf("file %d: %w", one.number, os.NewSyscallError("sync", err))
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	one.durable = acked
	return nil
}

// reader reads a block here and there, also while the device recovers.
// Started by Start. Ends when the files are closed, or with an error.
func (f *Files) reader(one *file) {
	b := aligned(1)
	for f.wait(4 * pause) {
		at := rand.IntN(blocks)
		if err := f.read(one, b, at, false); err != nil {
			f.complain("%v", err)
			return
		}
		f.reads.Add(1)
	}
}
