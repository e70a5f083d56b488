package mempool

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// PageSize is the unit and the alignment of payload memory, in bytes: the
// largest logical block of a disk and the unit of a node's max-pages. The
// machine's own page is this or a multiple of it.
const PageSize = 4096

// hugePage is the size of a huge page of most machines, in bytes. Whole ones are
// mapped ten times as fast as so many small ones, which every new session feels.
const hugePage = 2 << 20

// Pages maps n bytes (n > 0), rounded up to the machine's pages: zeroed, page
// aligned, present, outside of the Go heap, in huge pages where they fit and the
// system has some. For buffers that live as long as a connection; FreePages
// gives them back. Errors: EINVAL, ENOMEM.
func Pages(n int) ([]byte, error) {
	page := os.Getpagesize()
	if n <= 0 || n > maxInt-page {
		return nil, fmt.Errorf("map %d bytes: not a size: %w", n, unix.EINVAL)
	}
	n = (n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		if err = populate(b); err != nil {
			FreePages(b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("map %d KiB: the system is out of memory, or its limits are too low: %w", n>>10, err)
	}
	return b, nil
}

// populate makes b present.
func populate(b []byte) error {
	if len(b) >= hugePage {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a kernel without them has small ones
	}
	err := unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	if err != unix.EINVAL {
		return err
	}
	for i := 0; i < len(b); i += PageSize { // before Linux 5.14
		b[i] = 0
	}
	return nil
}

const maxInt = int(^uint(0) >> 1)

// FreePages unmaps what Pages returned. The slice may have been shortened but
// must start where it did. It panics on anything else.
func FreePages(b []byte) {
	if err := unix.Munmap(b[:cap(b)]); err != nil {
		panic("mempool: FreePages of what is not from Pages: " + err.Error())
	}
}

// lockedPages is Pages, kept in memory if the process may do that.
func lockedPages(n int) (b []byte, locked bool, err error) {
	if b, err = Pages(n); err != nil {
		return nil, false, err
	}
	// Without CAP_IPC_LOCK and beyond RLIMIT_MEMLOCK this fails: the memory is
	// as good, only not safe from swap, and the daemon tells so (Locked).
	return b, unix.Mlock(b) == nil, nil
}
