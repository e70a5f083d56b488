package export

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// closeTime is how long Close waits for requests that the store is doing.
const closeTime = 5 * time.Second

// Node is an export. Its methods may be called by any goroutine.
type Node struct {
	cfg      Config
	env      Env
	log      zerolog.Logger
	disk     *Disk
	stable   bool // every change is durable before its answer
	born     time.Time
	ports    []*port
	threads  int // under Ports.mu: most for the crypto of one client, as SetThreads has them
	count    counts
	refusals refusals

	keepalive atomic.Int64 // ns
	crews     atomic.Int32 // most workers of a session
	digest    atomic.Uint32
	toldFull  atomic.Int64 // when it was told that there is no room, as now

	mu       sync.Mutex // guards all below, the core too
	core     *Core
	rules    rules
	keys     []*crypt.Key // without any it is served in clear
	sessions []*session
	readOnly bool
	size     uint64 // bytes that new sessions are offered
	state    abi.State
	since    time.Time
	reason   string
	history  []transition

	saving  sync.Mutex // held while a tenure is made durable; before mu
	unsaved bool       // under saving: the durable tenure may be another than the core's

	wg sync.WaitGroup // clients after their HELLO, and who goes on for them; Add under mu or by one of them
}

// New opens and locks the store, binds the addresses and listens; nobody is
// served before Start. On an error nothing is left behind. Errors: those of
// Open and conn.Listen, and EINVAL or ERANGE for the Config.
func New(c Config, env Env) (*Node, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	open := env.Open
	if open == nil {
		open = Open
	}
	disk, err := open(&c)
	if err != nil {
		return nil, err
	}
	n := newNode(c, env, disk)
	for i, a := range c.Listen {
		at, err := env.Ports.bind(n, a)
		if err != nil {
			n.unbind()
			_ = disk.Store.Close() // nothing was written
			return nil, abi.BlameNth(abi.AttrNodeAddress, i, err)
		}
		n.ports = append(n.ports, at)
	}
	return n, nil
}

// newNode is an export that can be reached nowhere yet.
func newNode(c Config, env Env, disk *Disk) *Node {
	n := &Node{cfg: c, env: env, disk: disk, born: time.Now(),
		log:      env.Log.With().Str("export", c.Name).Logger(),
		stable:   c.Flags&(abi.NodeFlagShared|abi.NodeFlagWritethrough) != 0,
		readOnly: c.Flags&abi.NodeFlagReadOnly != 0 || disk.Geometry.ReadOnly,
		size:     disk.Geometry.Size,
		keys:     slices.Clone(c.Keys),
	}
	n.keepalive.Store(int64(c.Keepalive))
	n.crews.Store(int32(c.Workers))
	n.digest.Store(uint32(c.Digest))
	n.core = NewCore(CoreConfig{Name: c.Name, Shared: c.Flags&abi.NodeFlagShared != 0, Stable: n.stable, Late: disk.Geometry.Late,
		Keepalive: c.Keepalive, Rand: rand.Reader, Tenure: disk.Identity.Tenure, Last: disk.Identity.Last})
	n.enterState(abi.StateConfigured, "")
	return n
}

func (n *Node) unbind() {
	for _, at := range n.ports {
		n.env.Ports.unbind(n, at)
	}
}

// Start serves the clients that the rules allow. Started already: nothing to
// do. Errors: EINVAL without a rule, and if another export at one of the addresses
// has keys and this one none, or the other way round; EACCES without a key where
// one is required; ESHUTDOWN.
func (n *Node) Start() error {
	agreement := &n.env.Ports.agreement
	agreement.Lock()
	defer agreement.Unlock()
	_, keyed := n.secure()
	if err := n.agrees(keyed); err != nil {
		return err
	}
	return n.serve()
}

func (n *Node) serve() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.state == abi.StateClosed:
		return unix.ESHUTDOWN
	case n.state == abi.StateServing:
		return nil
	case !n.rules.allowAnybody() && !n.cfg.Remembered:
		return fmt.Errorf("export %s has no security rule that allows anybody anything: add one first: %w", n.cfg.Name, unix.EINVAL)
	case n.cfg.RequireCrypto && len(n.keys) == 0:
		return fmt.Errorf("export %s requires crypto and has no key: give it one with `dstctl crypto set %s`: %w", n.cfg.Name, n.cfg.Name, unix.EACCES)
	}
	n.enterState(abi.StateServing, "")
	return nil
}

// Close ends the export: EBUSY naming the read-write client, unless force. It
// returns within some seconds: what the store does not finish by then keeps it
// open and locked until it does.
func (n *Node) Close(force bool) error {
	n.mu.Lock()
	if n.state == abi.StateClosed {
		n.mu.Unlock()
		return nil
	}
	if h := n.core.Holder(); h != nil && !force {
		s := h.Owner.(*session)
		n.mu.Unlock()
		return fmt.Errorf("export %s is in use read-write by %v (client %v): detach it there, or force: %w",
			n.cfg.Name, s.who, h.ID, unix.EBUSY)
	}
	n.enterState(abi.StateClosed, "")
	n.core.Shutdown()
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
	n.unbind()

	done := make(chan error, 1)
	// Started here. Owns the store. Ends when the last request has.
	go func() {
		n.wg.Wait()
		done <- n.disk.Store.Close()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(closeTime):
		n.log.Warn().Msg("the store does not finish its requests: it stays open and locked until it does")
		return nil
	}
}

// Set changes what may change while clients are served; nil stays. Errors: EROFS
// if a store that was opened read-only shall be written.
func (n *Node) Set(keepalive *time.Duration, workers *uint32, readOnly *bool) error {
	if readOnly != nil && !*readOnly && n.disk.Geometry.ReadOnly {
		return fmt.Errorf("export %s was opened read-only: remove it and add it without: %w", n.cfg.Name, unix.EROFS)
	}
	if keepalive != nil && *keepalive > 0 {
		n.keepalive.Store(int64(*keepalive))
		n.mu.Lock()
		n.core.cfg.Keepalive = *keepalive
		for _, s := range n.sessions {
			s.rouse() // it may sleep for an hour
		}
		n.mu.Unlock()
	}
	if readOnly != nil {
		n.permit(func() { n.readOnly = *readOnly })
	}
	if workers != nil && *workers > 0 {
		n.crews.Store(int32(min(*workers, 1024)))
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.sessions {
			s.crew.setLimit(int(*workers))
		}
	}
	return nil
}

// SetDigest changes the digest of sessions to come.
func (n *Node) SetDigest(d crypt.Digest) { n.digest.Store(uint32(d)) }

// Size is what is offered, in bytes.
func (n *Node) Size() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.size
}

// Addrs is where the export listens, with the ports that the kernel chose.
func (n *Node) Addrs() (all []abi.Addr) {
	for _, at := range n.ports {
		all = append(all, at.listener.Addr())
	}
	return all
}

func (n *Node) interval() time.Duration { return time.Duration(n.keepalive.Load()) }
func (n *Node) workers() int            { return int(n.crews.Load()) }

// now is the age of the node in ns, never 0.
func (n *Node) now() int64 { return int64(time.Since(n.born)) | 1 }

// enter counts a client in; false if the export is not serving.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != abi.StateServing {
		return false
	}
	n.wg.Add(1)
	return true
}

// seat asks the core for a seat of s.
func (n *Node) seat(s *session) error {
	n.mu.Lock()
	seat, refusal := n.core.Hello(&s.hello, n.allowLocked(s.who), s)
	if refusal == nil {
		s.seat, s.born = seat, time.Now()
		n.sessions = append(n.sessions, s)
	}
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
	if refusal != nil {
		return refusal
	}
	return nil
}

// poll asks the core whether s has its place now.
func (n *Node) poll(s *session) (v Verdict, refusal *abi.Refuse, at time.Time) {
	n.mu.Lock()
	if o := s.seat.Asked(); o != nil && o.Owner.(*session).lives() {
		n.core.Alive(o)
	}
	v, refusal, at = n.core.Poll(s.seat, time.Now())
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
	return v, refusal, at
}

// open sends the WELCOME, unless the place was lost meanwhile.
func (n *Node) open(s *session) error {
	n.mu.Lock()
	open := s.seat.Open()
	w := s.welcomeOf(n.core.tenure)
	n.mu.Unlock()
	if !open {
		return errLost
	}
	if err := tell(s.stream, abi.MsgWelcome, w.Append); err != nil {
		return err
	}
	if err := s.stream.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	n.count.connects.Add(1)
	n.log.Info().Stringer("client", s.who).Stringer("id", s.hello.ClientID).Stringer("key", s.who.key).Uint64("epoch", w.Epoch).
		Stringer("mode", w.Mode).Msg("client served")
	n.notify(abi.EventKindSession, "a client is served "+w.Mode.String(), s.who.addr)
	return nil
}

// alive is a sign of life of s, which was asked for.
func (n *Node) alive(s *session) {
	n.mu.Lock()
	n.core.Alive(s.seat)
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
}

// actions takes what the core wants done; mu is held. Nothing is allocated if
// there is none.
func (n *Node) actions() []Action {
	if !n.core.Active() {
		return nil
	}
	return n.core.Actions()
}

// carryOut does what the core wants done; mu is not held.
func (n *Node) carryOut(acts []Action) {
	for _, a := range acts {
		s := a.Seat.Owner.(*session)
		switch a.Kind {
		case Cut:
			n.log.Info().Stringer("client", s.who).AnErr("why", a.Why).Msg("client cut off")
			s.cut(a.Why, a.Parting)
		case Ask:
			s.ask()
		case Wake:
			s.rouse()
		}
	}
}
