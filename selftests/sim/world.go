package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"dst/abi"
)

const (
	calmTime  = 15 * time.Second // of virtual time: from here on nothing more is done to the system
	aliveTime = 30 * time.Second // after that everything has to be answered
	storeName = 'A'
)

// world is one run: everything that is simulated, and the one goroutine's
// state.
type world struct {
	clock
	plan *plan
	harm harm
	rng  *rand.Rand
	log  io.Writer // nil: nothing is told

	disk, home *disk // the store that is there, and the right one
	server     *server
	exportOff  bool // its host is off: it does not even refuse
	devs       []*device
	former     []*device     // that others have taken the place of
	rival      *device       // wants the place
	heard      time.Duration // when the export last heard of the device,
	lost       time.Duration // or lost its link
	gone       bool          // that was later
	wires      []*wire
	holes      [2]time.Duration // nothing passes until then
	flips      int
	exportSkew time.Duration
	clientSkew time.Duration
	attached   []*device // all that there ever were
	drawn      uint64
	welcomes   int

	history *history
	begun   int  // steps
	flying  int  // requests of users that they wait for
	blocked bool // they would go on if they could
	reads   bool // the last reads are about to begin
	stage   stage
	calmed  uint64        // events before that
	quiet   bool          // calm
	limit   time.Duration // by then all has to be answered
	errors  int           // injected into the store
	mayFail bool          // a device may fail
	armed   []bool        // faults that have been triggered
	late    bool          // harm lateCommit: the process dies at the next chance
	resent  time.Duration // scripts: how long the kernel takes to send again
	bad     error         // what is wrong
}

type stage uint8

const (
	stageSteps  stage = iota
	stageRead         // all sectors, in the end
	stageLost         // both hosts are lost, then all sectors are read again
	stageFormer       // those that have lost their place hear of it
	stageOver
	stageScript // a script says what follows
)

func newWorld(p *plan, h harm, log io.Writer) *world {
	w := &world{plan: p, harm: h, log: log, rng: rand.New(rand.NewPCG(p.seed, 2)), history: newHistory(&p.set),
		armed: make([]bool, len(p.faults)), limit: calmTime + aliveTime}
	w.disk = newDisk(w, storeName, p.set.sectors)
	w.home = w.disk
	w.mayFail = p.set.failAfter > 0
	w.server = startServer(w)
	w.devs = []*device{newDevice(w)}
	if p.set.shared {
		w.devs = append(w.devs, newDevice(w))
	}
	for _, d := range w.devs {
		d.start()
	}
	return w
}

// run is the whole of a plan: what was wrong, or nil.
func (w *world) run() (bad error) {
	defer func() {
		if p := recover(); p != nil {
			if bad = fmt.Errorf("panic: %v", p); w.log != nil {
				panic(p)
			}
		}
	}()
	defer func() {
		for _, d := range w.attached {
			d.heap.free()
		}
	}()
	w.after(calmTime, w.becalm)
	w.trigger()
	w.think()
	for w.bad == nil && w.stage != stageOver && w.step() {
		if len(w.plan.faults) > 0 && w.plan.faults[0].event != 0 {
			w.trigger()
		}
		if w.now > w.limit {
			w.stuck()
		}
	}
	return w.bad
}

func (w *world) stuck() {
	for _, d := range w.devs {
		for _, a := range d.open {
			w.blame("stuck: %v is not answered %v after the last fault", a, aliveTime)
			return
		}
	}
	w.blame("stuck")
}

// blame ends the run.
func (w *world) blame(format string, args ...any) {
	if w.bad == nil {
		w.bad = fmt.Errorf(format, args...)
		w.trace("WRONG: %v", w.bad)
	}
}

func (w *world) trace(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, "%12v %5d  %s\n", w.now, w.passed, fmt.Sprintf(format, args...))
	}
}

// settled tells whether all devices are there and know their store.
func (w *world) settled() bool {
	return !slices.ContainsFunc(w.devs, func(d *device) bool { return d.dead || !d.known })
}

// calm tells whether nothing is done to the system any more.
func (w *world) calm() bool { return w.quiet }

// becalm ends all faults.
func (w *world) becalm() {
	if w.quiet {
		return
	}
	w.quiet, w.calmed = true, w.passed
	if w.rival != nil && w.rival.proc != nil {
		w.rival.proc.kill(false)
	}
	w.holes, w.flips = [2]time.Duration{}, 0
	d := w.disk
	d.stalled, d.full, d.failing, d.rotten = 0, 0, 0, 0
	w.limit = w.now + aliveTime
	w.trace("calm")
}

// Chance.

func (w *world) under(n int) int {
	if n <= 1 {
		return 0
	}
	return w.rng.IntN(n)
}

func (w *world) under64(n int64) int64 {
	if n <= 1 {
		return 0
	}
	return w.rng.Int64N(n)
}

// chance is a time of about mean, now and then ten times as long.
func (w *world) chance(mean time.Duration) time.Duration {
	if w.plan.set.exact {
		return mean
	}
	if w.under(16) == 0 {
		mean *= 10
	}
	return time.Duration(w.under64(int64(2 * mean)))
}

func (w *world) latency() time.Duration { return w.chance(w.plan.set.net) }

// hiccup is the time that a goroutine takes to be run.
func (w *world) hiccup() time.Duration {
	if w.plan.set.exact || w.under(4) != 0 {
		return 0
	}
	return time.Duration(w.under64(int64(w.plan.set.disk)))
}

// check looks for what was not given back.
func (w *world) check() {
	for _, d := range w.devs {
		c := d.proc
		if c == nil {
			continue
		}
		held := 0
		for _, e := range c.log.Kept() {
			held += pagesOf(e.N)
		}
		out := 0
		for _, n := range d.heap.out {
			out += max(n, 0)
		}
		if n := c.reserve.InUse(); n != 0 || out != held {
			w.blame("at the end %d elements are out, %d pages where the log has %d", n, out, held)
		}
	}
}

// opened is a client that the export begins to serve.
func (w *world) opened(id abi.ID) {
	for _, d := range w.former {
		if d.id == id {
			d.told = d.taken
		} else if d.taken = d.taken || w.devs[0].id == id; d.taken {
			w.trace("client %x has lost its place", d.id[:2])
		}
	}
}

// welcomed is a link that came up.
func (w *world) welcomed(d *device) {
	if d == w.rival {
		return
	}
	if d.told {
		w.blame("client %x goes on although another has had its place", d.id[:2])
	}
	w.welcomes++
	d.known = true
	for _, o := range w.former {
		for _, a := range o.open {
			w.history.fence(a)
		}
	}
	w.trigger()
}

// failed is a device that gave up. The administrator removes it, sees to it
// that the right store is there, and attaches anew.
func (w *world) failed(d *device, why string) {
	if !w.mayFail && w.errors < 3 {
		w.blame("client %x failed without need: %s", d.id[:2], why)
		return
	}
	if w.stage == stageFormer {
		w.learn()
		return
	}
	if w.disk != w.home {
		for i := range w.disk.sectors {
			if w.disk.sectors[i].mark() > 0 {
				w.blame("client %x wrote to a store that is not its own", d.id[:2])
			}
		}
	}
	if slices.Contains(w.devs, d) {
		d.dead = true
		w.after(10*time.Millisecond, func() {
			if d.proc != nil {
				d.proc.kill(false)
				d.start() // the next daemon knows of it
			}
			if d.proc != nil {
				d.proc.kill(false)
			}
			w.replace(d)
		})
	}
}

// replace attaches a new device where d was.
func (w *world) replace(d *device) {
	i := slices.Index(w.devs, d)
	if i < 0 || w.stage == stageFormer {
		return
	}
	if w.disk != w.home {
		w.killExport(false, time.Millisecond)
		w.disk = w.home
	}
	d.dead = true
	w.abandon(d)
	w.devs[i] = newDevice(w)
	w.devs[i].steal = len(w.former) > 0 // who may still be there
	w.devs[i].start()
	w.resume()
}

// abandon ends the requests of d that nobody waits for any more.
func (w *world) abandon(d *device) {
	all := d.open
	d.open = nil
	for _, a := range all {
		if a.lost = true; !w.plan.set.shared { // there nobody waits for what it had sent
			w.history.fail(a)
		}
		w.release(a)
	}
}

// uncommitted is the harm of lateCommit: the process dies after the users were
// told and before the log was written.
func (w *world) uncommitted(c *client, before []byte, slot int) {
	if c.dead || !w.late && (w.stage == stageScript || w.under(64) != 0) || w.calm() {
		return
	}
	w.late = false
	copy(c.dev.mem, before)
	clear(c.dev.mem[64+16*slot:][:16]) // it is not on its way any more
	c.kill(false)
	w.restart(c.dev, time.Millisecond)
}

// lie changes a WELCOME for those harms that do not look at it.
func (w *world) lie(c *client, m *abi.Welcome) {
	if w.harm.is(anyStore) {
		m.StoreID = w.home.id
	}
	if w.harm.is(anyTenure) {
		if c.dev.tenure != (abi.ID{}) {
			m.Tenure = c.dev.tenure
		}
		c.dev.tenure = m.Tenure
	}
}
