package remote

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// gate says what may be sent on the present link (failover: nothing of one
// phase is sent before the phase before it is answered).
type gate int

const (
	gateClosed gate = iota // no link, or no WELCOME yet
	gateReplay             // acknowledged changes that the export has lost
	gateResend             // unanswered changes of an earlier link
	gateOpen               // everything
)

// flushTries is how many flushes in a row the export may fail before this device
// does; and how many replays in a row it answers with an error.
const flushTries = 3

// Core is the link and recovery state machine of a remote node: what was sent,
// what must be sent again, what may be acknowledged, and when the promise is
// broken for good. It has no goroutine, clock or socket: its methods are
// called under the node's lock with an event and the time, and say what to do.
type Core struct {
	hello   abi.Hello // what each connection says, but for the epoch
	limit   uint64    // configured size, 0 = what the export offers
	send    func(*trans.Trans)
	table   *trans.Table
	page    []byte // where saved lies
	saved   Saved
	welcome abi.Welcome // of the present link
	info    *Info       // from the first WELCOME; of it only the size may change then, see grow and SetSize
	offered uint64      // size in the last WELCOME, 0 before one

	state   abi.State
	since   time.Time
	up      time.Time // when the present link's WELCOME came
	reason  string
	history []transition
	told    bool // the last entry of history was published

	gate      gate
	window    int       // most requests in flight
	sent      int       // in flight on the present link
	waiting   int       // filed and not sent
	resending int       // changes of earlier links, unanswered
	down      time.Time // since when whoever waits for the peer does so in vain; zero: nobody does

	log         *trans.Log
	reserve     *trans.Reserve
	digest      crypt.Digest
	replay      *trans.Replay
	half        int       // bytes in the log that are flushed without being asked
	orphaned    bool      // there are acknowledged changes that no log has
	ghosts      int       // ranges that an earlier daemon left in flight: not to be read before they are written again
	forsaken    bool      // nobody will write them again: a flush lays them
	undurable   time.Time // since when the log has something that no flush covers
	flushing    bool      // a flush of the core's own is filed
	wanted      bool      // somebody waits for what a flush frees, and none was filed since
	draining    bool      // the export says that it waits for what an earlier link had started
	flushFails  int
	replayFails int
	fatal       unix.Errno // failed or closed: what every request gets

	counters abi.Counters
	harms    harms
}

// NewCore is the core of a node that has not been started. Its page remembers
// the attachment, its log what only this host has. Fronts take transactions from
// reserve, which has OwnDepth of the node's own; send is called with those that
// are to be put on the present link, each of which has a hold for that (Drop).
// Errors: EUCLEAN for a damaged page.
func NewCore(cfg *Config, reserve *trans.Reserve, send func(*trans.Trans), now time.Time) (*Core, error) {
	page, log := cfg.Page, cfg.Memory.Log
	saved, dirty, err := load(page)
	if err != nil {
		return nil, err
	}
	if saved.ClientID == (abi.ID{}) {
		saved.ClientID = cfg.ClientID
		saved.store(page)
	}
	hello := abi.Hello{Export: cfg.Export, Mode: abi.PermRW, MaxSize: cfg.MaxSize, Depth: cfg.Depth,
		Digest: cfg.Digest.Name(), Keepalive: uint32(cfg.Keepalive.Milliseconds())}
	if cfg.ReadOnly {
		hello.Mode = abi.PermRead
	}
	c := &Core{hello: hello, limit: cfg.Size, send: send, table: trans.NewTable(reserve), page: page, saved: saved,
		log: log, reserve: reserve, digest: cfg.Digest, replay: log.Replay(saved.Era), orphaned: dirty&dirtyNoLog != 0 || dirty != 0 && log.Fresh(), half: cfg.Memory.Half(),
		history: make([]transition, 0, historyLen), since: now, state: abi.StateConfigured, told: true}
	if log.Len() > 0 {
		c.undurable = now
	}
	if c.orphaned {
		if page[offDirty] |= dirtyNoLog; dirty&dirtyReplay != 0 {
			c.saved.Verifier = abi.Verifier{} // not even in its present life the export has them
		}
	}
	c.ghosts, c.forsaken = log.Haunt(), !cfg.Resent
	if saved.Known {
		c.info = &saved.Shape
	}
	if saved.Failed != "" {
		log.Forget() // it may have been killed before that
		c.End(abi.StateFailed, unix.EIO, now, saved.Failed)
	}
	return c, nil
}

// Dial notes that a connection attempt starts.
func (c *Core) Dial(now time.Time, why string) {
	if c.down.IsZero() {
		c.down = now
	}
	c.set(abi.StateConnecting, now, why)
}

// Connected notes that the connection stands and gives the HELLO to send: its
// epoch is new and remembered before anybody sees it.
func (c *Core) Connected(now time.Time) abi.Hello {
	c.saved.Epoch++
	c.saved.store(c.page)
	c.set(abi.StateHandshake, now, "")
	h := c.hello
	h.ClientID, h.Epoch, h.Tenure = c.saved.ClientID, c.saved.Epoch, c.saved.Tenure
	return h
}

// Welcome judges what the export granted and remembers it. nil: Recover may
// follow. fatal: the promise cannot be kept, the caller must Fail with err.
// Otherwise the connection must be closed and tried again later.
func (c *Core) Welcome(w *abi.Welcome) (fatal bool, err error) {
	if w.Epoch != c.saved.Epoch {
		return false, fmt.Errorf("the export answered epoch %d where %d was said: %w", w.Epoch, c.saved.Epoch, unix.EPROTO)
	}
	if c.saved.Known {
		if err := c.compare(w); err != nil {
			return true, err
		}
	}
	if err := c.fits(w); err != nil {
		return false, err
	}
	if c.flushFails >= flushTries {
		return true, fmt.Errorf("the export failed %d flushes in a row: %w", c.flushFails, unix.EIO)
	}
	if c.replayFails >= flushTries {
		return true, fmt.Errorf("the export can not take back what it acknowledged and lost: %d times %w", c.replayFails, unix.EIO)
	}
	if err := c.log.Check(); err != nil {
		return true, fmt.Errorf("what was acknowledged and may be lost can not be written again, the host's copy of it is gone: %w", err)
	}
	c.adopt(w)
	c.hello.Steal, c.draining = false, false
	return false, nil
}

// Recover opens the link that Welcome accepted: what has to be sent again has
// been given to send when it returns.
func (c *Core) Recover(now time.Time) {
	c.counters.Connects++
	c.up = now
	c.set(abi.StateRecovery, now, "")
	c.gate = gateReplay
	c.replay = c.log.Replay(c.saved.Era)
	c.window = int(min(c.welcome.Depth, trans.DepthMax)) // more elements there are not
	c.resending = 0
	for t := c.table.First(); t != nil; t = t.Next() {
		if t.Resend && t.Op.Changes() {
			c.resending++
		}
	}
	c.pump(now)
}

// compare holds a later WELCOME against what is remembered: the same store,
// not smaller, nobody else's in between, and no acknowledged write lost.
func (c *Core) compare(w *abi.Welcome) error {
	s := &c.saved
	switch {
	case w.StoreID != s.StoreID:
		return fmt.Errorf("the peer now exports another store (%v, it was %v): %w", w.StoreID, s.StoreID, unix.EIO)
	case w.Size < s.Shape.Size:
		return fmt.Errorf("the export shrank to %d bytes, this device has %d: %w", w.Size, s.Shape.Size, unix.EIO)
	case s.Tenure != abi.ID{} && w.Tenure != s.Tenure && c.writes(w):
		return fmt.Errorf("another client had the read-write place in between: %w", unix.EIO)
	case w.Verifier != s.Verifier && c.orphaned:
		return fmt.Errorf("the export restarted or failed and lost acknowledged writes, and the replay log of this host is lost too: %w", unix.EIO)
	case w.Verifier != s.Verifier && s.Era == trans.EraMax:
		return fmt.Errorf("the export has lost its cache %d times: remove the node and add it again: %w", s.Era, unix.EOVERFLOW)
	}
	return nil
}

// writes tells whether w grants the read-write place. Who only reads has none that
// somebody could take.
func (c *Core) writes(w *abi.Welcome) bool { return c.hello.Mode&w.Mode&abi.PermWrite != 0 }

// fits refuses a link that could not carry what this device promised to its
// users when it first came up.
func (c *Core) fits(w *abi.Welcome) error {
	if c.info == nil {
		switch i := c.shape(w); {
		case i.Size == 0:
			return fmt.Errorf("the export offers %d bytes in blocks of %d, the device would have less than a block: give it a larger size: %w",
				w.Size, w.BlockMin, unix.EINVAL)
		case i.MaxSize == 0:
			return fmt.Errorf("requests of at most %d bytes are less than the export's block of %d: raise max-pages: %w",
				min(c.hello.MaxSize, w.MaxSize), w.BlockMin, unix.EINVAL)
		}
		return nil
	}
	switch {
	case w.MaxSize < c.info.MaxSize || w.BlockMin > c.info.BlockMin:
		return fmt.Errorf("the export now takes requests of at most %d bytes in blocks of %d, this device promised %d in %d: give the export its old max-pages: %w",
			w.MaxSize, w.BlockMin, c.info.MaxSize, c.info.BlockMin, unix.EINVAL)
	case w.Mode&abi.PermWrite == 0 && !c.info.ReadOnly:
		return fmt.Errorf("the export now grants reading only, this device promised writing: give the client its old rule: %w", unix.EROFS)
	case c.info.Features&promised&^w.Features != 0:
		return fmt.Errorf("the export no longer does all that this device promised (features %#x, they were %#x): %w",
			w.Features, c.info.Features, unix.EOPNOTSUPP)
	}
	return nil
}

// promised are the features that a device's users rely on once they know them.
const promised = abi.FeatureFlush | abi.FeatureFUA | abi.FeatureDiscard | abi.FeatureWriteZeroes

// shape is the device that w would make: sizes are whole blocks.
func (c *Core) shape(w *abi.Welcome) Info {
	largest := min(c.hello.MaxSize, w.MaxSize)
	return Info{
		Size:      fit(w.Size, c.limit, w.BlockMin),
		BlockMin:  w.BlockMin,
		BlockPref: max(w.BlockPref, w.BlockMin),
		MaxSize:   largest - largest%w.BlockMin,
		Features:  w.Features,
		ReadOnly:  !c.writes(w),
	}
}

// fit is the largest size of whole blocks within what is offered and the limit
// (0: none).
func fit(offered, limit uint64, block uint32) uint64 {
	if limit != 0 {
		offered = min(offered, limit)
	}
	return offered - offered%uint64(block)
}

// Fit is the size that the device would have with another limit. Before the
// first WELCOME of this daemon nothing larger than now is known to be there.
func (c *Core) Fit(limit uint64) uint64 {
	if c.info == nil {
		return 0
	}
	return fit(max(c.offered, c.info.Size), limit, c.info.BlockMin)
}

// SetSize sets the limit, and the device's size to what fits. Who makes it
// smaller has seen to it that nobody uses what ends.
func (c *Core) SetSize(limit uint64) {
	c.limit = limit
	if c.info != nil {
		c.reshape(c.Fit(limit))
	}
}

// reshape gives the device another size and remembers that. The Info that was
// handed out stays as it is.
func (c *Core) reshape(size uint64) {
	i := *c.info
	i.Size = size
	c.info, c.saved.Shape = &i, i
	c.saved.store(c.page)
}

// adopt makes w the present link's, and the first one the device's shape. A
// later one may make the device larger, never smaller.
func (c *Core) adopt(w *abi.Welcome) {
	c.welcome = *w
	c.welcome.Mode &= c.hello.Mode // what was not asked for is not used
	s := &c.saved
	if c.info == nil {
		s.Shape = c.shape(w)
		i := s.Shape
		c.info = &i
	}
	c.offered = w.Size
	if c.writes(w) {
		s.Tenure = w.Tenure
	}
	if w.Verifier != s.Verifier || s.Era == 0 {
		if s.Era++; c.log.Stale(s.Era) {
			c.page[offDirty] |= dirtyReplay // until pump has seen to it
		}
	}
	s.Known, s.StoreID, s.Verifier = true, w.StoreID, w.Verifier
	size := fit(w.Size, c.limit, c.info.BlockMin)
	c.reshape(max(size, c.info.Size))
}

// Broken notes that the link is gone: what it carried is unanswered. What the
// core itself had sent is forgotten: the next link works it out anew.
func (c *Core) Broken(now time.Time, why string) {
	for t := c.table.First(); t != nil; {
		own := t
		if t = t.Next(); own.Own() {
			c.table.Take(own)
			own.Drop()
		}
	}
	c.wanted, c.flushing, c.draining = c.wanted || c.flushing, false, false
	c.harms.broken(c)
	for t := c.table.First(); t != nil; t = t.Next() {
		if t.OnWire {
			t.OnWire, t.Resend = false, true
		}
	}
	if c.gate != gateClosed {
		c.counters.Breaks++
	}
	c.gate, c.sent, c.waiting = gateClosed, 0, c.table.Len()
	if c.down.IsZero() {
		c.down = now
	}
	c.set(abi.StateBroken, now, why)
}

// Pause notes that the next attempt waits.
func (c *Core) Pause(now time.Time) { c.set(abi.StatePause, now, c.reason) }

// Overdue reports whether the peer has been gone for longer than limit (0 =
// for ever). One that greets and answers nothing is as good as gone.
func (c *Core) Overdue(now time.Time, limit time.Duration) bool {
	return limit > 0 && !c.down.IsZero() && now.Sub(c.down) >= limit
}

// Failed tells whether the node has failed: also under an earlier daemon.
func (c *Core) Failed() bool { return c.state == abi.StateFailed }

// Fail ends the node's service for good: requests get EIO, also from later daemons,
// until the node is removed. What nobody will write again is forgotten: requests
// need its memory to be answered. The transactions returned are the caller's to
// complete. No link may be left.
func (c *Core) Fail(now time.Time, why string) []*trans.Trans {
	c.saved.doom(c.page, why)
	c.log.Forget()
	return c.End(abi.StateFailed, unix.EIO, now, why)
}

// End ends the node's service for this daemon: state is failed or closed, errno
// what requests get from now on. The transactions returned are the caller's to
// complete.
func (c *Core) End(s abi.State, errno unix.Errno, now time.Time, why string) []*trans.Trans {
	c.set(s, now, why)
	c.fatal, c.gate, c.sent, c.waiting = errno, gateClosed, 0, 0
	orphans := make([]*trans.Trans, 0, c.table.Len())
	for t := c.table.First(); t != nil; t = c.table.First() {
		c.table.Take(t)
		t.Err = errno
		if t.Promised {
			c.log.Unreserve()
		}
		if !t.Own() {
			c.counters.Errors++
		}
		orphans = append(orphans, t)
	}
	return orphans
}
