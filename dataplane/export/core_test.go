package export

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

var epoch0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// seeded gives the same bytes for the same seed.
type seeded struct{ *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

func testCore(change func(*CoreConfig)) *Core {
	c := CoreConfig{Name: "vol0", Keepalive: time.Second, Rand: seeded{rand.New(rand.NewPCG(1, 2))}, Tenure: abi.ID{7}}
	if change != nil {
		change(&c)
	}
	return NewCore(c)
}

// come is a HELLO that must get a seat.
func come(t *testing.T, c *Core, id byte, epoch uint64, mode abi.Perm) *Seat {
	t.Helper()
	h := helloOf(id, epoch, mode)
	s, r := c.Hello(&h, abi.PermRW, nil)
	if r != nil {
		t.Fatal(r)
	}
	return s
}

// settled is a HELLO that must be granted at once.
func settled(t *testing.T, c *Core, id byte, epoch uint64, mode abi.Perm) *Seat {
	t.Helper()
	s := come(t, c, id, epoch, mode)
	wantVerdict(t, c, s, epoch0, Granted)
	install(c, s)
	c.Actions()
	return s
}

// install gives a granted client its tenure.
func install(c *Core, s *Seat) (tenure abi.ID, changed bool) {
	tenure, last, changed := c.Propose(s)
	c.Install(s, tenure, last)
	return tenure, changed
}

func wantVerdict(t *testing.T, c *Core, s *Seat, now time.Time, v Verdict) *abi.Refuse {
	t.Helper()
	got, r, _ := c.Poll(s, now)
	want(t, "verdict", got, v)
	return r
}

func write(off, n uint64) *Op { return &Op{Kind: KindWrite, Off: off, Len: n} }

// did tells whether the core wanted that done, and forgets what else it wanted.
func did(c *Core, kind ActionKind, s *Seat) bool {
	return slices.ContainsFunc(c.Actions(), func(a Action) bool { return a.Kind == kind && a.Seat == s })
}

func TestFenceWaitsForRunningChanges(t *testing.T) {
	c := testCore(nil)
	old := settled(t, c, 1, 1, abi.PermRW)
	running, parked := write(0, 4096), write(512, 512)
	want(t, "first", c.Begin(old, running), Now)
	want(t, "overlapping", c.Begin(old, parked), Later)
	young := come(t, c, 1, 2, abi.PermRW)
	wantVerdict(t, c, young, epoch0, Draining)
	want(t, "old one cut", did(c, Cut, old), true)
	want(t, "old one", old.Fenced(), true)
	want(t, "late request", c.Begin(old, write(8192, 512)), Never)
	wantVerdict(t, c, young, epoch0, Draining)
	want(t, "End", c.End(running, 0, false), Never)
	want(t, "its answer", running.Reply(), ReplyNone)
	op, turn := c.Next()
	want(t, "parked one comes out", op, parked)
	want(t, "but does not run", turn, Never)
	want(t, "woken", did(c, Wake, young), true)
	wantVerdict(t, c, young, epoch0, Granted)
}

func TestUnfencedRunsOn(t *testing.T) {
	c := testCore(nil)
	c.unfenced = true
	old := settled(t, c, 1, 1, abi.PermRW)
	running := write(0, 4096)
	want(t, "first", c.Begin(old, running), Now)
	wantVerdict(t, c, come(t, c, 1, 2, abi.PermRW), epoch0, Granted)
}

func TestOldEpochsAreStale(t *testing.T) {
	c := testCore(nil)
	settled(t, c, 1, 5, abi.PermRW)
	for _, epoch := range []uint64{1, 4, 5} {
		h := helloOf(1, epoch, abi.PermRW)
		_, r := c.Hello(&h, abi.PermRW, nil)
		if r == nil || r.Code != abi.RefuseStale || r.Errno != unix.ESTALE {
			t.Errorf("epoch %d: %v", epoch, r)
		}
	}
	first, second := come(t, c, 1, 6, abi.PermRW), come(t, c, 1, 7, abi.PermRW)
	if r := wantVerdict(t, c, first, epoch0, Refused); r.Code != abi.RefuseStale {
		t.Error(r)
	}
	wantVerdict(t, c, second, epoch0, Granted)
	c.Leave(second)
	h := helloOf(1, 7, abi.PermRW)
	if _, r := c.Hello(&h, abi.PermRW, nil); r == nil {
		t.Error("an epoch was forgotten when its session ended")
	}
}

func TestEpochsAreBounded(t *testing.T) {
	c := testCore(nil)
	settled(t, c, 1, 9, abi.PermRead)
	for i := range 3 * maxEpochs {
		h := helloOf(2, 1, abi.PermRead)
		h.ClientID[5], h.ClientID[6] = byte(i>>8), byte(i)
		s, r := c.Hello(&h, abi.PermRead, nil)
		if r != nil {
			t.Fatal(r)
		}
		c.Leave(s)
	}
	want(t, "epochs remembered", len(c.known), maxEpochs)
	want(t, "epoch of the one with a seat", c.newest(abi.ID{1}), 9)
}

func TestSeatsAreBounded(t *testing.T) {
	c := testCore(nil)
	for i := range maxSeats + 1 {
		h := helloOf(2, 1, abi.PermRead)
		h.ClientID[5], h.ClientID[6] = byte(i>>8), byte(i)
		_, r := c.Hello(&h, abi.PermRead, nil)
		if (r != nil) != (i == maxSeats) {
			t.Fatalf("seat %d: %v", i, r)
		}
	}
}

// TestReadersKeepNobodyOut: whoever fills all seats, the holder comes back to its
// place, and others to their seats.
func TestReadersKeepNobodyOut(t *testing.T) {
	c := testCore(nil)
	settled(t, c, 1, 1, abi.PermRW)
	reader := func(i int, epoch uint64) (*Seat, *abi.Refuse) {
		h := helloOf(9, epoch, abi.PermRead)
		h.ClientID[5], h.ClientID[6] = byte(i>>8), byte(i)
		return c.Hello(&h, abi.PermRead, nil)
	}
	for i := range maxSeats - 1 {
		s, _ := reader(i, 1)
		wantVerdict(t, c, s, epoch0, Granted)
	}
	holder := settled(t, c, 1, 2, abi.PermRW) // its link broke, unnoticed here
	c.Leave(holder)                           // or not
	late, r := reader(maxSeats, 1)
	if r != nil {
		t.Fatal(r)
	}
	wantVerdict(t, c, late, epoch0, Granted)
	settled(t, c, 1, 3, abi.PermRW)
	for i := range 3 * maxSeats {
		s, r := reader(i%(maxSeats-1), uint64(i+2))
		if r != nil {
			t.Fatal(r)
		}
		wantVerdict(t, c, s, epoch0, Granted)
		settled(t, c, 1, uint64(i+4), abi.PermRW)
	}
	want(t, "seats", len(c.seats), maxSeats+1)
	if _, r := reader(2*maxSeats, 1); r == nil || r.Code != abi.RefuseLimit {
		t.Errorf("somebody new: %v", r)
	}
}

func TestHolderKeepsItsPlaceWhenItLives(t *testing.T) {
	c := testCore(nil)
	holder := settled(t, c, 1, 1, abi.PermRW)
	other := come(t, c, 2, 1, abi.PermRW)
	wantVerdict(t, c, other, epoch0, Asking)
	want(t, "holder asked", did(c, Ask, holder), true)
	wantVerdict(t, c, other, epoch0.Add(1999*time.Millisecond), Asking)
	want(t, "asked again", did(c, Ask, holder), false)
	c.Alive(holder)
	want(t, "woken", did(c, Wake, other), true)
	if r := wantVerdict(t, c, other, epoch0.Add(3*time.Second), Refused); r.Code != abi.RefuseBusy || r.Errno != unix.EBUSY {
		t.Error(r)
	}
	want(t, "holder", c.Holder(), holder)
}

func TestSilentHolderLosesItsPlace(t *testing.T) {
	c := testCore(nil)
	holder := settled(t, c, 1, 1, abi.PermRW)
	op := write(0, 512)
	c.Begin(holder, op)
	other := come(t, c, 2, 1, abi.PermRW)
	wantVerdict(t, c, other, epoch0, Asking)
	wantVerdict(t, c, other, epoch0.Add(2*time.Second), Draining)
	want(t, "cut", did(c, Cut, holder), true)
	c.End(op, 0, false)
	wantVerdict(t, c, other, epoch0.Add(2*time.Second), Granted)
	want(t, "holder", c.Holder(), other)
}

func TestStealDoesNotAsk(t *testing.T) {
	c := testCore(nil)
	holder := settled(t, c, 1, 1, abi.PermRW)
	h := helloOf(2, 1, abi.PermRW)
	h.Steal = true
	s, _ := c.Hello(&h, abi.PermRW, nil)
	wantVerdict(t, c, s, epoch0, Granted)
	want(t, "cut", did(c, Cut, holder), true)
}

func TestReadersDisturbNobody(t *testing.T) {
	c := testCore(nil)
	holder := settled(t, c, 1, 1, abi.PermRW)
	reader := settled(t, c, 2, 1, abi.PermRead)
	want(t, "mode", reader.Perm, abi.PermRead)
	op := write(0, 512)
	want(t, "WRITE of a reader", c.Begin(reader, op), Never)
	want(t, "its reply", op.Reply(), ReplyError)
	want(t, "its errno", op.Err, unix.EPERM)
	want(t, "holder", c.Holder(), holder)
}

func TestSharedHasSeveralWriters(t *testing.T) {
	c := testCore(func(c *CoreConfig) { c.Shared = true })
	a, b := settled(t, c, 1, 1, abi.PermRW), settled(t, c, 2, 1, abi.PermRW)
	x, y := write(0, 1024), write(512, 1024)
	want(t, "first", c.Begin(a, x), Now)
	want(t, "overlapping of another", c.Begin(b, y), Later)
	want(t, "written, not durable", c.End(x, 0, false), Later)
	op, turn := c.Next()
	want(t, "flush", op.Kind, KindSync)
	want(t, "flush", turn, Now)
	want(t, "over", c.Synced(0), x)
	want(t, "answer", x.Reply(), ReplyDone)
	op, _ = c.Next()
	want(t, "the other's turn before the answer", op, nil)
	c.Settle(x)
	op, _ = c.Next()
	want(t, "the other's turn", op, y)
}

// TestAbsentHolderKeepsItsPlace: who has only lost its link is waited for.
func TestAbsentHolderKeepsItsPlace(t *testing.T) {
	late := epoch0.Add(absence)
	for _, keepalive := range []time.Duration{time.Second, absence, time.Hour} {
		c := testCore(func(c *CoreConfig) { c.Keepalive = keepalive })
		holder := settled(t, c, 1, 1, abi.PermRW)
		install(c, holder)
		c.Leave(holder)
		rival, reader := come(t, c, 2, 1, abi.PermRW), come(t, c, 3, 1, abi.PermRead)
		wantVerdict(t, c, reader, epoch0, Granted)
		wantVerdict(t, c, rival, epoch0, Asking)
		if _, _, at := c.Poll(rival, epoch0); at != epoch0.Add(min(max(absence, 2*keepalive), time.Minute)) {
			t.Errorf("keepalive %v: until %v", keepalive, at)
		}
		back := come(t, c, 1, 2, abi.PermRW)
		wantVerdict(t, c, back, late, Granted)
		c.Alive(back)
		wantVerdict(t, c, rival, late, Asking) // for the holder that is there now
		c.Leave(back)
		wantVerdict(t, c, rival, late, Asking)
		again := come(t, c, 1, 3, abi.PermRW)
		wantVerdict(t, c, again, late, Granted)
		c.Leave(again)
		later := late.Add(2 * absence)
		wantVerdict(t, c, rival, later, Asking) // each absence anew
		wantVerdict(t, c, rival, later.Add(time.Minute), Granted)
	}
}

func TestNobodyWaitsForOneThatWillNotComeBack(t *testing.T) {
	restarted := testCore(func(c *CoreConfig) { c.Last = abi.ID{1} })
	wantVerdict(t, restarted, come(t, restarted, 2, 1, abi.PermRW), epoch0, Asking)
	for what, end := range map[string]func(c *Core, s *Seat){
		"it said so":   func(c *Core, s *Seat) { c.Bye(s) },
		"it may not":   func(c *Core, s *Seat) { c.Permit(s, 0) },
		"it never had": func(c *Core, s *Seat) { c.last = abi.ID{9}; c.Leave(s) },
	} {
		c := testCore(nil)
		s := settled(t, c, 1, 1, abi.PermRW)
		install(c, s)
		end(c, s)
		if v, _, _ := c.Poll(come(t, c, 2, 1, abi.PermRW), epoch0); v != Granted {
			t.Errorf("%s: verdict %v", what, v)
		}
	}
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	install(c, s)
	c.Leave(s)
	h := helloOf(2, 1, abi.PermRW)
	h.Steal = true
	thief, _ := c.Hello(&h, abi.PermRW, nil)
	wantVerdict(t, c, thief, epoch0, Granted)
}

func TestTenureChangesWithTheWriter(t *testing.T) {
	c := testCore(func(c *CoreConfig) { c.Last = abi.ID{1} })
	install := func(id byte, epoch uint64, mode abi.Perm) (abi.ID, bool) {
		s := come(t, c, id, epoch, mode)
		wantVerdict(t, c, s, epoch0, Granted)
		tenure, changed := install(c, s)
		c.Bye(s)
		return tenure, changed
	}
	tenure, changed := install(1, 1, abi.PermRW)
	want(t, "same client after a restart", tenure, abi.ID{7})
	want(t, "changed", changed, false)
	tenure, _ = install(2, 1, abi.PermRead)
	want(t, "a reader", tenure, abi.ID{7})
	tenure, changed = install(2, 2, abi.PermRW)
	want(t, "changed", changed, true)
	again, changed := install(2, 3, abi.PermRW)
	want(t, "same writer", again, tenure)
	want(t, "changed", changed, false)
	back, _ := install(1, 2, abi.PermRW)
	if back == tenure || back == (abi.ID{7}) {
		t.Error("a tenure came again")
	}
	c.cfg.Shared = true
	_, changed = install(1, 3, abi.PermRW)
	want(t, "changed by sharing", changed, true)
	_, changed = install(2, 9, abi.PermRW)
	want(t, "changed while shared", changed, false)
	c.cfg.Shared = false
	_, changed = install(2, 10, abi.PermRW)
	want(t, "changed after sharing", changed, true)
}

func TestFailedWriteChangesTheVerifier(t *testing.T) {
	c := testCore(nil)
	s, reader := settled(t, c, 1, 1, abi.PermRW), settled(t, c, 2, 1, abi.PermRead)
	old := c.Verifier()
	bad, good := write(0, 512), write(512, 512)
	c.Begin(s, bad)
	c.Begin(s, good)
	want(t, "End", c.End(bad, unix.EIO, false), Never)
	want(t, "reply", bad.Reply(), ReplyError)
	want(t, "errno", bad.Err, unix.EIO)
	if c.Verifier() == old || bad.Verifier() != c.Verifier() {
		t.Error("the answer does not carry a new verifier")
	}
	acts := c.Actions()
	for _, who := range []*Seat{s, reader} {
		i := slices.IndexFunc(acts, func(a Action) bool { return a.Kind == Cut && a.Seat == who })
		if i < 0 || acts[i].Parting != (who == s) || !errors.Is(acts[i].Why, unix.EIO) {
			t.Errorf("actions %+v", acts)
		}
	}
	c.End(good, 0, false)
	want(t, "a good one of the cut session", good.Reply(), ReplyNone)
	young := settled(t, c, 1, 2, abi.PermRW)
	want(t, "verifier of the next session", young.Verifier, c.Verifier())
}

func TestLackOfRoomCostsNobodyElse(t *testing.T) {
	c := testCore(nil)
	s, reader := settled(t, c, 1, 1, abi.PermRW), settled(t, c, 2, 1, abi.PermRead)
	old := c.Verifier()
	bad, next := write(0, 512), write(0, 1024)
	c.Begin(s, bad)
	want(t, "what overlaps", c.Begin(s, next), Later)
	want(t, "End", c.End(bad, unix.ENOSPC, false), Never)
	want(t, "reply", bad.Reply(), ReplyError)
	want(t, "errno", bad.Err, unix.ENOSPC)
	want(t, "verifier of the answer", bad.Verifier(), old)
	want(t, "verifier", c.Verifier(), old)
	want(t, "both are served", s.Open() && reader.Open() && !c.Active(), true)
	if op, turn := c.Next(); op != next || turn != Now {
		t.Error("what waited for it does not run")
	}
	c.End(next, 0, false)
	flush := &Op{Kind: KindFlush}
	c.Begin(s, flush)
	c.Next()
	c.Synced(unix.ENOSPC)
	if c.Verifier() == old || s.Open() {
		t.Error("a flush that found no room is a failure")
	}
}

// TestLackOfRoomOfAnEarlierWrite: where a write may be told of what an earlier,
// acknowledged one did not find, that is a failure as any other.
func TestLackOfRoomOfAnEarlierWrite(t *testing.T) {
	c := testCore(func(c *CoreConfig) { c.Late = true })
	s := settled(t, c, 1, 1, abi.PermRW)
	old, bad := c.Verifier(), write(0, 512)
	c.Begin(s, bad)
	want(t, "End", c.End(bad, unix.ENOSPC, false), Never)
	want(t, "reply", bad.Reply(), ReplyError)
	if c.Verifier() == old || bad.Verifier() == old || s.Open() {
		t.Error("nobody hears that acknowledged bytes are lost")
	}
}

func TestFailedFlushIsTold(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	old := c.Verifier()
	flush, fua := &Op{Kind: KindFlush}, &Op{Kind: KindWrite, Len: 512, Durable: true}
	want(t, "FLUSH", c.Begin(s, flush), Later)
	want(t, "FUA", c.Begin(s, fua), Now)
	want(t, "written", c.End(fua, 0, false), Later)
	if op, _ := c.Next(); op.Kind != KindSync {
		t.Fatal(op.Kind)
	}
	if op, _ := c.Next(); op != nil {
		t.Fatal("two flushes of the store at a time")
	}
	late := &Op{Kind: KindFlush}
	c.Begin(s, late)
	replies := map[*Op]Reply{}
	for op := c.Synced(unix.EIO); op != nil; op = op.Follow() {
		c.Settle(op)
		replies[op] = op.Reply()
	}
	if len(replies) != 2 || replies[flush] != ReplyError || flush.Verifier() == old || replies[fua] != ReplyError || fua.Verifier() == old || fua.Err != unix.EIO {
		t.Errorf("replies %v, errno %v", replies, fua.Err)
	}
	if op, _ := c.Next(); op.Kind != KindSync {
		t.Fatal(op.Kind)
	}
	want(t, "the late one", c.Synced(0), late)
	want(t, "its answer", late.Reply(), ReplyNone)
}

func TestFlushCoversOnlyWhatWasBefore(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	a, b := &Op{Kind: KindFlush}, &Op{Kind: KindFlush}
	c.Begin(s, a)
	c.Next()
	c.Begin(s, b) // while the store flushes for a
	want(t, "over", c.Synced(0), a)
	want(t, "more", a.Follow(), nil)
	op, _ := c.Next()
	want(t, "another", op.Kind, KindSync)
	want(t, "over", c.Synced(0), b)
}

func TestUnflushed(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	ack := func() {
		op := write(0, 512)
		c.Begin(s, op)
		c.End(op, 0, false)
	}
	ack()
	c.Begin(s, &Op{Kind: KindFlush})
	c.Next()
	ack() // while the store flushes
	want(t, "unflushed", c.Unflushed(), 2)
	c.Synced(0)
	want(t, "unflushed", c.Unflushed(), 1)
}

func TestBarrier(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	op := &Op{Kind: KindWrite, Len: 512, Flush: true, Durable: true}
	want(t, "Begin", c.Begin(s, op), Later)
	sync, _ := c.Next()
	want(t, "flush before", sync.Kind, KindSync)
	want(t, "over", c.Synced(0), nil)
	got, turn := c.Next()
	want(t, "then it", got, op)
	want(t, "then it", turn, Now)
	want(t, "End", c.End(op, 0, false), Later)
	sync, _ = c.Next()
	want(t, "flush behind", sync.Kind, KindSync)
	want(t, "over", c.Synced(0), op)
	want(t, "answer", op.Reply(), ReplyDone)
}

func TestPermitTakesRights(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	running, parked := write(0, 512), write(0, 512)
	c.Begin(s, running)
	c.Begin(s, parked)
	c.Permit(s, abi.PermRead)
	want(t, "holder", c.Holder(), nil)
	other := come(t, c, 2, 1, abi.PermRW)
	wantVerdict(t, c, other, epoch0, Draining)
	c.End(running, 0, false)
	want(t, "what ran is answered", running.Reply(), ReplyDone)
	wantVerdict(t, c, other, epoch0, Granted)
	op, turn := c.Next()
	want(t, "parked one", op, parked)
	want(t, "must not run any more", turn, Never)
	want(t, "errno", op.Err, unix.EPERM)
	c.Actions()
	c.Permit(s, 0)
	want(t, "cut", did(c, Cut, s), true)
	waiting := come(t, c, 2, 2, abi.PermRW)
	c.Permit(waiting, 0)
	if r := wantVerdict(t, c, waiting, epoch0, Refused); r.Code != abi.RefuseNoAccess {
		t.Error(r)
	}
}

// TestStoppedChangeIsNoFailure: one that did not go on for lack of the right is
// answered so, lets others run, and says nothing of the store.
func TestStoppedChangeIsNoFailure(t *testing.T) {
	c := testCore(func(c *CoreConfig) { c.Stable = true })
	s := settled(t, c, 1, 1, abi.PermRW)
	long, parked := &Op{Kind: KindZero, Len: 1 << 30}, write(0, 512)
	c.Begin(s, long)
	c.Begin(s, parked)
	want(t, "goes on", c.Proceed(long), true)
	c.Permit(s, abi.PermRead)
	want(t, "goes on", c.Proceed(long), false)
	want(t, "End", c.End(long, 0, false), Never)
	if long.Reply() != ReplyError || long.Err != unix.EPERM || long.Verifier() != c.Verifier() || !s.Open() || c.Unflushed() != 0 {
		t.Errorf("%v %v", long.Reply(), long.Err)
	}
	if op, turn := c.Next(); op != parked || turn != Never || op.Err != unix.EPERM {
		t.Error("what waited for it is not answered")
	}
	s = settled(t, c, 1, 2, abi.PermRW)
	c.Begin(s, long)
	young := come(t, c, 1, 3, abi.PermRW)
	wantVerdict(t, c, young, epoch0, Draining)
	want(t, "behind the fence", c.Proceed(long), false)
	c.End(long, 0, false)
	want(t, "answer", long.Reply(), ReplyNone)
	wantVerdict(t, c, young, epoch0, Granted)
}

func TestShutdown(t *testing.T) {
	c := testCore(nil)
	s := settled(t, c, 1, 1, abi.PermRW)
	waiting := come(t, c, 2, 1, abi.PermRW)
	wantVerdict(t, c, waiting, epoch0, Asking)
	c.Actions()
	c.Shutdown()
	want(t, "cut", did(c, Cut, s), true)
	if r := wantVerdict(t, c, waiting, epoch0, Refused); r.Code != abi.RefuseShutdown {
		t.Error(r)
	}
}

// TestOrder lets random clients send random changes to a store that does them
// in random order, with cuts, and checks what must hold at every step.
func TestOrder(t *testing.T) {
	for seed := range uint64(2000) {
		if fault := orderRun(rand.New(rand.NewPCG(seed, 1)), seed%2 == 0); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
	}
}

type arrived struct {
	op          *Op
	n           int
	seat        *Seat
	run, over   bool
	startedDead bool
}

func orderRun(r *rand.Rand, shared bool) string {
	c := NewCore(CoreConfig{Shared: shared, Keepalive: time.Second, Rand: seeded{r}})
	seats, epochs := []*Seat{}, uint64(0)
	join := func(id byte) {
		epochs++
		h := helloOf(id, epochs, abi.PermRW)
		s, _ := c.Hello(&h, abi.PermRW, nil)
		if v, _, _ := c.Poll(s, epoch0); v == Granted {
			seats = append(seats, s)
		} else {
			c.Leave(s)
		}
	}
	join(1)
	if shared {
		join(2)
	}
	var all []*arrived
	var running []*Op
	syncs := 0
	find := func(op *Op) *arrived { return op.Owner.(*arrived) }
	fault := ""
	start := func(op *Op) {
		if op.Kind == KindSync {
			if syncs++; syncs > 1 {
				fault = "two flushes at a time"
			}
			return
		}
		x := find(op)
		if x.run || x.over {
			fault = "an op ran twice"
		}
		x.run, x.startedDead = true, !x.seat.Open()
		for _, o := range all[:x.n] {
			if !o.over && o.op.Kind != KindFlush && o.op.overlaps(op) {
				fault = "an op overtook one that it overlaps"
			}
		}
		running = append(running, op)
	}
	finish := func(op *Op) {
		x := find(op)
		if x.over {
			fault = "an op was over twice"
		}
		x.over = true
	}
	drain := func() {
		for {
			op, turn := c.Next()
			if op == nil {
				return
			}
			if turn == Now {
				start(op)
			} else {
				finish(op)
			}
		}
	}
	left := 60
	for step := 0; fault == "" && step < 4000; step++ {
		switch k := r.IntN(10); {
		case k < 4 && left > 0 && len(seats) > 0:
			left--
			op := &Op{Kind: Kind(r.IntN(4)) + KindWrite, Off: uint64(r.IntN(8)), Len: uint64(1 + r.IntN(4)),
				Durable: r.IntN(4) == 0, Flush: r.IntN(8) == 0}
			if op.Kind == KindFlush {
				op.Off, op.Len, op.Flush = 1<<40, 0, false
			}
			x := &arrived{op: op, n: len(all), seat: seats[r.IntN(len(seats))]}
			op.Owner = x
			all = append(all, x)
			switch c.Begin(x.seat, op) {
			case Now:
				start(op)
			case Never:
				finish(op)
			}
		case k < 8 && len(running) > 0:
			i := r.IntN(len(running))
			op := running[i]
			running = slices.Delete(running, i, i+1)
			errno := unix.Errno(0)
			if r.IntN(100) == 0 {
				errno = unix.EIO
			}
			if c.End(op, errno, false) == Never {
				finish(op)
			}
		case k == 8 && syncs > 0:
			syncs--
			for op := c.Synced(0); op != nil; op = op.Follow() {
				c.Settle(op)
				finish(op)
			}
		case k == 9 && r.IntN(20) == 0 || len(seats) == 0:
			for _, s := range seats {
				if r.IntN(2) == 0 {
					c.Leave(s)
				}
			}
			seats = slices.DeleteFunc(seats, func(s *Seat) bool { return !s.Open() })
			join(byte(1 + r.IntN(2)))
		}
		drain()
	}
	for _, x := range all {
		if !x.over {
			fault += "an op was forgotten; "
		}
		if x.startedDead {
			fault += "an op of a fenced session started; "
		}
	}
	if c.first != nil || c.latest != nil || c.syncing {
		fault += "something is left behind"
	}
	return fault
}
