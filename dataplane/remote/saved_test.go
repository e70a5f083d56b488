package remote

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

// TestDamagedPage: a page with a wrong bit is refused, or the bit says nothing;
// a size of block of 0 would end the daemon.
func TestDamagedPage(t *testing.T) {
	for _, why := range []string{"", "the peer now exports another store", strings.Repeat("ü", failedMax)} {
		damage(t, why)
	}
}

// damage is TestDamagedPage for a node that has failed because of why, "": that lives.
func damage(t *testing.T, why string) {
	page := make([]byte, SavedSize)
	s := Saved{ClientID: abi.ID{1}, Epoch: 7, Known: true, StoreID: abi.ID{2}, Tenure: abi.ID{3}, Verifier: abi.Verifier{4}, Era: 5,
		Shape: Info{Size: 1 << 20, BlockMin: 512, BlockPref: 4096, MaxSize: 1 << 20, Features: 3}}
	for range 3 {
		s.Epoch++
		s.store(page)
	}
	if why != "" {
		s.doom(page, why)
	}
	if s.Failed != why[:min(len(why), failedMax)] {
		t.Errorf("%q became %q", why, s.Failed)
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
	if refused < 8*(slotSize+len(s.Failed)) {
		t.Errorf("only %d bits are looked after", refused)
	}
}

// TestDamagedLogFailsTheNode: a log that somebody wrote to, under the living
// daemon, can not bring back what the export lost. That is said, and ends.
func TestDamagedLogFailsTheNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Write, 0, pattern('x', 512)); errno != 0 {
			t.Fatal(errno)
		}
		f, _ := files.Load(&b.page[0])
		if _, err := f.(*os.File).WriteAt(make([]byte, mempool.PageSize-64), 64); err != nil { // behind what OpenLog looks at
			t.Fatal(err)
		}
		p.set(func(p *peer) { p.welcome.Verifier[5]++; p.disk[0] = 0 }) // a crash
		p.cut()
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != unix.EIO {
			t.Fatal(errno)
		}
		b.state(t, abi.StateFailed)
		if s := b.node.Status(); !strings.Contains(s.Reason, "replay log") {
			t.Fatal(s.Reason)
		}
	})
}
