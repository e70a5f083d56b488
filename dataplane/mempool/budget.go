package mempool

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Budget is the payload memory, in bytes, that all arenas of the daemon share.
// It counts; it owns no memory. All methods may be called by any goroutine.
type Budget struct {
	total int64
	used  atomic.Int64
}

// NewBudget is a budget of so many bytes, none of them used.
func NewBudget(bytes int64) *Budget { return &Budget{total: bytes} }

// Reserve takes n bytes or fails with ENOMEM and a sentence for the user.
func (b *Budget) Reserve(n int64) error {
	if b.take(n) {
		return nil
	}
	return fmt.Errorf("payload memory: %d KiB wanted, %d of %d KiB are free: raise the budget, or give nodes smaller arenas: %w",
		n>>10, (b.total-b.Used())>>10, b.total>>10, unix.ENOMEM)
}

// take is Reserve without the sentence, for the road that must not allocate.
func (b *Budget) take(n int64) bool {
	for {
		used := b.used.Load()
		if n < 0 || n > b.total-used {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// scarce tells whether more than half of it is taken: what is not in use then is
// better left to others.
func (b *Budget) scarce() bool { return b.used.Load() > b.total/2 }

// Release gives back n reserved bytes. It panics if so many are not reserved.
func (b *Budget) Release(n int64) {
	if n < 0 || b.used.Add(-n) < 0 {
		panic("mempool: Release without Reserve")
	}
}

// Total is the budget in bytes.
func (b *Budget) Total() int64 { return b.total }

// Used is the part of it that is reserved now, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }
