package crypt

import (
	"sync"

	"dst/dataplane/mempool"

	"golang.org/x/sys/unix"
)

// secretSize is the size of every secret of a Key and of the handshake, in bytes.
const secretSize = 32

// vault is memory for the secrets that live as long as a configuration. It is
// not on the Go heap, which may be swapped out, dumped and copied: its pages are
// kept in memory if the process may do that, are in no core dump and in no
// forked child.
type vault struct {
	mu   sync.Mutex
	free []*[secretSize]byte // all zero
}

var secrets vault

// get is a place for one secret, all zero. Errors: ENOMEM.
func (v *vault) get() (*[secretSize]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.free) == 0 {
		page, err := mempool.Pages(mempool.PageSize)
		if err != nil {
			return nil, err
		}
		// An old kernel knows not all of these, and a poor process has no locked
		// memory: the secrets are as good, only less well hidden.
		_ = unix.Mlock(page)
		_ = unix.Madvise(page, unix.MADV_DONTDUMP)
		_ = unix.Madvise(page, unix.MADV_WIPEONFORK)
		for ; len(page) >= secretSize; page = page[secretSize:] {
			v.free = append(v.free, (*[secretSize]byte)(page))
		}
	}
	last := len(v.free) - 1
	s := v.free[last]
	v.free = v.free[:last]
	return s, nil
}

// put wipes s and takes it back.
func (v *vault) put(s *[secretSize]byte) {
	clear(s[:])
	v.mu.Lock()
	v.free = append(v.free, s)
	v.mu.Unlock()
}
