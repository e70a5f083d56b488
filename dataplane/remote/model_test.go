package remote

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

var (
	seeds     = flag.Int("seeds", 1000, "how many runs TestModel does")
	firstSeed = flag.Uint64("seed", 1, "the first of them")
)

func putPair(b []byte, v, i uint64) {
	binary.BigEndian.PutUint64(b, v)
	binary.BigEndian.PutUint64(b[8:], i)
}

func value(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// oracle knows what a device may show: for each sector the changes in the
// order of their submission, which is the order that overlapping ones take
// effect in, and how far they are known to have happened.
type oracle struct {
	*store
	node  *Node
	order sync.Mutex // submission is one step

	mu      sync.Mutex // guards what follows
	history [sectors][]uint64
	known   [sectors]int // this one has happened: acknowledged or read
	last    uint64
	jobs    map[*trans.Trans]*job
	failed  bool // a request got EIO
}

// job is a request of the model.
type job struct {
	from, n uint64
	index   []int // change: its place in each sector's history
	least   []int // READ: what each sector shows at least
	slot    chan struct{}
}

// submit files a random request.
func (o *oracle) submit(fua bool, slot chan struct{}) {
	kind, from := o.under(10), uint64(o.under(sectors))
	n := min(uint64(1+o.under(8)), sectors-from)
	op := [10]trans.Op{trans.Write, trans.Write, trans.Write, trans.Write, trans.Read, trans.Read, trans.Read,
		trans.Flush, trans.Discard, trans.Zero}[kind]
	length := uint32(n * sector)
	if op == trans.Flush {
		from, n, length = 0, 0, 0
	}
	t, _ := o.node.Reserve().Get(op, length, nil)
	t.Front, t.Offset = o, from*sector
	if op.Changes() && (fua || kind == 0) {
		t.Flags = abi.FlagFUA
	}
	o.order.Lock()
	o.enter(t, &job{from: from, n: n, slot: slot})
	o.node.Submit(t)
	o.order.Unlock()
	o.node.Kick()
}

// enter writes t into the history.
func (o *oracle) enter(t *trans.Trans, j *job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.jobs[t] = j
	if t.Op.Changes() {
		v := uint64(0)
		if t.Op == trans.Write {
			o.last++
			v = o.last
			copy(t.Data, filled(v, j.from, j.n))
		}
		for i := j.from; i < j.from+j.n; i++ {
			j.index = append(j.index, len(o.history[i]))
			o.history[i] = append(o.history[i], v)
		}
		return
	}
	for i := j.from; i < j.from+j.n; i++ {
		j.least = append(j.least, o.known[i])
	}
}

// Complete implements trans.Front.
func (o *oracle) Complete(t *trans.Trans) {
	o.mu.Lock()
	j := o.jobs[t]
	delete(o.jobs, t)
	switch {
	case j == nil:
		o.blame("a request came back twice")
	case t.Err != 0:
		o.failed = true
		if t.Err != unix.EIO {
			o.blame("a %v got %v", t.Op, t.Err)
		}
	case t.Op.Changes():
		for k, at := range j.index {
			o.known[j.from+uint64(k)] = max(o.known[j.from+uint64(k)], at)
		}
	case t.Op == trans.Read:
		o.judge(j, t.Data)
	}
	o.mu.Unlock()
	o.node.Reserve().Put(t)
	j.slot <- struct{}{}
}

// Flush implements trans.Front.
func (o *oracle) Flush() {}

// judge holds what a READ brought against the history: nothing older than what
// was known when it was submitted, nothing that was never written.
func (o *oracle) judge(j *job, data []byte) {
	for k, least := range j.least {
		i := j.from + uint64(k)
		got := data[k*sector:][:sector]
		at := slices.Index(o.history[i][least:], value(got))
		if at < 0 || !bytes.Equal(got, stamp(value(got), i)) {
			o.blame("sector %d shows change %d; of %v it was at %d", i, value(got), o.history[i], least)
			return
		}
		o.known[i] = max(o.known[i], least+at)
	}
}

// run is one seed's life: what was wrong with it, and how many changes the node
// had to write again because the export had lost them. without takes the fence
// out.
func run(t *testing.T, seed uint64, without bool) (replayed uint64, bad error) {
	bubble(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := &store{peer: newPeer(), rng: rng, fence: !without, pending: map[int]cell{}, stable: seed%8 == 1}
		fua := seed%4 == 2
		if seed%4 != 3 {
			s.restarts = rng.IntN(3)
		}
		s.welcome.Size = sectors * sector
		s.play = s.serve
		b := assemble(t, s.peer, make([]byte, SavedSize), nil)
		o := &oracle{store: s, node: b.node, jobs: map[*trans.Trans]*job{}}
		for i := range o.history {
			o.history[i] = []uint64{0}
		}
		b.node.Start()
		synctest.Wait() // the device has a shape
		var users sync.WaitGroup
		for range 3 {
			users.Go(func() {
				slot := make(chan struct{}, 4)
				for range cap(slot) {
					slot <- struct{}{}
				}
				for range 20 {
					<-slot
					o.submit(fua, slot)
					if s.chance(3) {
						s.pause()
					}
				}
				for range cap(slot) {
					<-slot
				}
			})
		}
		users.Wait()
		bad = o.end(b)
		replayed = b.node.Counters().Replayed
		if bad == nil && replayed > 0 && (fua || s.stable) {
			bad = fmt.Errorf("%d changes were written again that were durable", replayed)
		}
		if n := b.node.Reserve().InUse(); n != 0 && bad == nil {
			bad = fmt.Errorf("%d requests did not come back", n)
		}
		b.node.Close()
	})
	return replayed, bad
}

// end compares what the disk has with the history's last words.
func (o *oracle) end(b *bench) error {
	time.Sleep(10 * time.Second) // what the fence did not stop haunts now
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	status := b.node.Status()
	switch {
	case o.bad != nil:
		return o.bad
	case o.failed || status.State == abi.StateFailed:
		return fmt.Errorf("the node failed: %s", status.Reason)
	}
	for i, x := range o.cells {
		if want := o.history[i][len(o.history[i])-1]; x.value != want {
			return fmt.Errorf("at the end sector %d has change %d, not %d: %v", i, x.value, want, o.history[i])
		}
	}
	return nil
}

// TestModel runs users, a node and an export that is as bad as it may be,
// thousands of times: no acknowledged change is lost or undone, no READ shows
// what it must not, the node never fails.
func TestModel(t *testing.T) {
	lives, changes := 0, uint64(0)
	seeds := *seeds
	if spoken != nil {
		seeds /= 16 // the channel changes nothing of what is tried here
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(seeds); seed++ {
		replayed, bad := run(t, seed, false)
		if bad != nil {
			t.Fatalf("seed %d (-seed %d -seeds 1; goroutines are not replayed exactly): %v", seed, seed, bad)
		}
		if changes += replayed; replayed > 0 {
			lives++
		}
	}
	t.Logf("%d runs, in %d of them the export lost %d changes in all, which were written again", seeds, lives, changes)
	if seeds >= 1000 && lives < seeds/20 {
		t.Errorf("the export lost something in %d of %d runs: the model tests less than it should", lives, seeds)
	}
}

// TestModelFindsGhosts: without the export's fence the same runs find writes
// that come back, so the model is no formality.
func TestModelFindsGhosts(t *testing.T) {
	for seed := uint64(1); seed <= 2000; seed++ {
		if _, bad := run(t, seed, true); bad != nil {
			t.Logf("seed %d: %v", seed, bad)
			return
		}
	}
	t.Fatal("2000 runs without a fence, and no ghost")
}
