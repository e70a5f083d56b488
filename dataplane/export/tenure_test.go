package export

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
)

// stolen is a HELLO that waits for nobody's permission.
func stolen(id byte) abi.Hello {
	h := helloOf(id, 1, abi.PermRW)
	h.Steal = true
	return h
}

// noted keeps what an export makes durable of its tenures.
type noted struct {
	sync.Mutex
	tenure, last abi.ID
	err          error
}

func (n *noted) save(tenure, last abi.ID) error {
	n.Lock()
	defer n.Unlock()
	n.tenure, n.last = tenure, last // and an error after it: the worst case
	return n.err
}

func (n *noted) fail(err error) {
	n.Lock()
	defer n.Unlock()
	n.err = err
}

// is tells whether that is durable.
func (n *noted) is(tenure abi.ID, last byte) bool {
	n.Lock()
	defer n.Unlock()
	return n.tenure == tenure && n.last == (abi.ID{last})
}

// TestTenureStaysIfItCannotBeNoted: a rival that was refused, because the export
// could not note it, costs the holder nothing.
func TestTenureStaysIfItCannotBeNoted(t *testing.T) {
	var n noted
	_, disk := memDisk(1 << 20)
	disk.Identity.Save = n.save
	w := newWorld(t, Config{}, disk)
	a := w.client(helloOf(1, 1, abi.PermRW))
	tenure := a.welcome.Tenure
	n.fail(unix.EMFILE)
	var refused *abi.Refuse
	if err := w.dial().greet(stolen(2)); !errors.As(err, &refused) || refused.Errno != unix.EMFILE {
		t.Fatalf("rival: %v", err)
	}
	a.gone()
	a = w.client(helloOf(1, 2, abi.PermRW)) // while nothing can be noted, too
	want(t, "tenure", a.welcome.Tenure, tenure)
	n.fail(nil)
	a = w.client(helloOf(1, 3, abi.PermRW))
	want(t, "tenure", a.welcome.Tenure, tenure)
	if !n.is(tenure, 1) {
		t.Error("what is durable is still the rival's")
	}
	if b := w.client(stolen(3)); b.welcome.Tenure == tenure || !n.is(b.welcome.Tenure, 3) {
		t.Error("a rival that is served has no tenure of its own")
	}
}

// TestTenureStaysIfTheRivalHasHungUp: also, if it hangs up while it is noted.
func TestTenureStaysIfTheRivalHasHungUp(t *testing.T) {
	for _, late := range []bool{false, true} {
		var n noted
		var saves atomic.Int32
		var hangUp func()
		m, disk := memDisk(1 << 20)
		disk.Identity.Save = func(tenure, last abi.ID) error {
			if last == (abi.ID{2}) {
				saves.Add(1)
				hangUp()
			}
			return n.save(tenure, last)
		}
		w := newWorld(t, Config{}, disk)
		begun, release := held(m)
		a := w.client(helloOf(1, 1, abi.PermRW))
		tenure := a.welcome.Tenure
		b := w.dial()
		hangUp = func() {
			_ = b.st.Close()
			w.mu.Lock()
			s := w.sessions[len(w.sessions)-1]
			w.mu.Unlock()
			eventually(t, "its end is heard", func() bool { return conn.Gone(s.stream) })
		}
		if err := a.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
			t.Fatal(err)
		}
		<-begun
		if err := b.say(stolen(2)); err != nil {
			t.Fatal(err)
		}
		a.gone() // the rival waits for its last write
		if !late {
			hangUp()
		}
		close(release)
		eventually(t, "all are gone", func() bool { return len(w.Status().Sessions) == 0 })
		if (saves.Load() == 1) != late || !n.is(tenure, 1) {
			t.Errorf("late %v: noted %d times, and what is durable may be another tenure", late, saves.Load())
		}
		a = w.client(helloOf(1, 2, abi.PermRW))
		want(t, "tenure", a.welcome.Tenure, tenure)
	}
}

// TestOnlyTheWelcomedTakeTheTenure: who had the place and lost it again before its
// WELCOME changes nothing, nor does the holder lose its right to come back first.
func TestOnlyTheWelcomedTakeTheTenure(t *testing.T) {
	for what, end := range map[string]func(c *Core, s *Seat){
		"it left":     func(c *Core, s *Seat) { c.Leave(s) },
		"it was cut":  func(c *Core, s *Seat) { c.Recall(unix.ESTALE) },
		"it went on":  func(c *Core, s *Seat) { c.Poll(come(t, c, 2, 2, abi.PermRW), epoch0) },
		"it was told": func(c *Core, s *Seat) { c.Bye(s) },
	} {
		c := testCore(nil)
		holder := settled(t, c, 1, 1, abi.PermRW)
		tenure, last := c.Tenure()
		if what == "it left" {
			c.Leave(holder) // else it is silent when it is asked
		}
		rival := come(t, c, 2, 1, abi.PermRW)
		wantVerdict(t, c, rival, epoch0, Asking)
		wantVerdict(t, c, rival, epoch0.Add(absence), Granted)
		newer, who, changed := c.Propose(rival)
		want(t, "changed", changed, true)
		end(c, rival)
		if c.Install(rival, newer, who) {
			t.Errorf("%s: installed", what)
		}
		if now, of := c.Tenure(); now != tenure || of != last {
			t.Errorf("%s: the tenure is another one", what)
		}
		want(t, what+": waits for the holder", c.awaits(come(t, c, 3, 1, abi.PermRW), epoch0), true)
	}
}
