package remote

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestDamagedPage: a page with a wrong bit is refused, or the bit says nothing;
// a size of block of 0 would end the daemon.
func TestDamagedPage(t *testing.T) {
	page := make([]byte, SavedSize)
	s := Saved{ClientID: abi.ID{1}, Epoch: 7, Known: true, StoreID: abi.ID{2}, Tenure: abi.ID{3}, Verifier: abi.Verifier{4}, Era: 5,
		Shape: Info{Size: 1 << 20, BlockMin: 512, BlockPref: 4096, MaxSize: 1 << 20, Features: 3}}
	for range 3 {
		s.Epoch++
		s.store(page)
	}
	refused := 0
	for bit := range 8 * SavedSize {
		if bit/8 == offDirty {
			continue
		}
		page[bit/8] ^= 1 << (bit % 8)
		switch got, _, err := load(page); {
		case errors.Is(err, unix.EUCLEAN):
			refused++
		case err != nil || got != s && bit/64 != offTurn/8: // the other slot is whole, too
			t.Errorf("bit %d: %+v, %v", bit, got, err)
		}
		page[bit/8] ^= 1 << (bit % 8)
	}
	if refused < 8*slotSize {
		t.Errorf("only %d bits are looked after", refused)
	}
}
