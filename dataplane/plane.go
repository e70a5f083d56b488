package dataplane

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/export"
	"dst/dataplane/mempool"
	"dst/dataplane/nbd"
)

// Config is what a Plane is made from.
type Config struct {
	Version  string
	RunDir   string // on tmpfs: what must outlive the daemon but not the host
	StateDir string // what must outlive the host: store ids
	DevDir   string // links to the kernel devices
	Budget   int64  // bytes of payload memory of all nodes; 0 = an eighth of RAM
	Log      zerolog.Logger
	Notify   func(abi.Event) // may be called from any goroutine, must not block
}

// node is what the Plane knows of a node, remote or export. A node's methods
// are called with its place held, see Plane.hold.
type node interface {
	start() error // checked and made, but of a remote nothing goes on before launch
	launch()      // a started remote may connect now; more than once is no error
	set(*abi.Node) error
	crypto(*cryptoChange) error
	rule(abi.Rule, bool) error // add or remove
	remove(force bool) error   // EBUSY naming who, unless force
	stop()                     // end of the daemon: what must stay, stays
	config() *abi.Node         // as given, with the rules in Status: what Restore needs
	get() *abi.Node            // as it is
	stats() *abi.Counters
}

// place is a name that is taken. Its lock orders what is done to the node
// behind it; slow work on one node never holds up another.
type place struct {
	sync.Mutex
	node    node  // nil: being added, or removed
	unsaved error // why the next daemon would not know what was changed
}

// Plane is all nodes of a daemon, by name: the one door for the control plane.
// Its methods may be called from any goroutine. Every error carries an errno
// and a sentence.
type Plane struct {
	cfg     Config
	run     *runDir
	budget  *mempool.Budget
	ports   *export.Ports
	started time.Time

	driving    sync.Mutex // held while the driver is opened
	driver     *nbd.Driver
	openDriver func(zerolog.Logger) (*nbd.Driver, error) // nbd.OpenDriver, but for tests

	lookout lookout

	mu      sync.Mutex // guards what follows, never held across work
	places  map[string]*place
	sockets map[string]string // path of a front's socket: its node
}

// New makes the Plane of an empty daemon: directories are made and checked.
// Restore brings back what an earlier daemon of this boot had.
func New(c Config) (*Plane, error) {
	if c.Budget == 0 {
		c.Budget = defaultBudget()
	}
	if err := makeOpenDir(c.DevDir); err != nil {
		return nil, fmt.Errorf("directory %s: %w", c.DevDir, err)
	}
	for _, dir := range []string{c.StateDir, c.DevDir} {
		if err := makeDir(dir); err != nil {
			return nil, err
		}
	}
	run, err := openRunDir(c.RunDir)
	if err != nil {
		return nil, err
	}
	return &Plane{cfg: c, run: run, budget: mempool.NewBudget(c.Budget), ports: export.NewPorts(c.Log), openDriver: nbd.OpenDriver,
		started: time.Now(), places: make(map[string]*place), sockets: make(map[string]string)}, nil
}

// AddRemote adds a remote node; nobody is contacted.
func (p *Plane) AddRemote(n *abi.Node) error {
	if err := checkPeers(n.Addrs); err != nil {
		return err
	}
	return p.add(n, abi.KindRemote)
}

// AddExport adds an export: its store is open and its addresses are bound when
// it returns, and nobody is served.
func (p *Plane) AddExport(n *abi.Node) error { return p.add(n, abi.KindExport) }

func (p *Plane) add(n *abi.Node, kind abi.Kind) error {
	n.Kind = kind
	started := n.Flags&abi.NodeFlagStarted != 0
	if started && kind == abi.KindExport {
		return wrong(abi.AttrNodeFlags, "export %q has no security rule yet, so nobody could use it: add it, then a rule, then start it", n.Name)
	}
	if err := p.reserve(n); err != nil {
		return err
	}
	if started {
		if err := p.Start(n.Name); err != nil {
			return p.undo(n.Name, err)
		}
	}
	return nil
}

// reserve takes the name, makes the node and remembers it. Who asks for the
// name meanwhile finds no node and does not wait: opening a store may take long.
func (p *Plane) reserve(n *abi.Node) error {
	if err := abi.ValidName(n.Name); err != nil {
		return abi.Blame(abi.AttrNodeName, err)
	}
	at := new(place)
	p.mu.Lock()
	if p.places[n.Name] != nil {
		p.mu.Unlock()
		return abi.Blame(abi.AttrNodeName, fmt.Errorf("node %q exists: choose another name or remove it first: %w", n.Name, unix.EEXIST))
	}
	p.places[n.Name] = at
	p.mu.Unlock()
	p.run.erase(n.Name) // a new node has no past
	made, err := p.make(n)
	if err == nil {
		if err = p.run.save(made.config()); err != nil {
			_ = made.remove(true)
		}
	}
	if err != nil {
		p.forget(n.Name)
		return err
	}
	at.Lock()
	defer at.Unlock()
	at.node = made
	p.cfg.Notify(abi.Event{Kind: abi.EventKindAdd, Name: n.Name, State: abi.StateConfigured})
	return nil
}

// undo removes a node whose "start" failed: a failed request leaves nothing.
func (p *Plane) undo(name string, cause error) error {
	if err := p.Del(name, true); err != nil {
		return fmt.Errorf("%w (and removing it again: %v)", cause, err)
	}
	return cause
}

func (p *Plane) make(n *abi.Node) (node, error) {
	if n.Kind == abi.KindRemote {
		return p.newRemote(n)
	}
	return p.newExport(n)
}

// forget gives a name back and erases what the run directory has of it.
func (p *Plane) forget(name string) {
	p.run.erase(name)
	p.mu.Lock()
	delete(p.places, name)
	p.mu.Unlock()
}

// hold calls f with the place of name held.
func (p *Plane) hold(name string, f func(at *place) error) error {
	p.mu.Lock()
	at := p.places[name]
	p.mu.Unlock()
	if at != nil {
		at.Lock()
		defer at.Unlock()
		if at.node != nil {
			return f(at)
		}
	}
	return abi.Blame(abi.AttrNodeName, fmt.Errorf("there is no node %q: see dstctl show: %w", name, unix.ENODEV))
}

// Start starts a node; a started one is left alone. One that was lost when the
// daemon started is made again first.
func (p *Plane) Start(name string) error {
	return p.change(name, abi.EventKindStart, func(at *place) error {
		if lost, ok := at.node.(*lostNode); ok {
			made, err := p.remake(&lost.conf, true)
			if err != nil {
				lost.why = err
				return abi.Blame(abi.AttrNodeName, err)
			}
			at.node = made
		}
		return at.node.start()
	})
}

// Steal starts a remote that takes the read-write place at its export from a
// client that lives; started already, it does so with its next connection.
func (p *Plane) Steal(name string) error {
	return p.change(name, abi.EventKindStart, func(at *place) error {
		r, ok := at.node.(*remoteNode)
		if !ok {
			return abi.Blame(abi.AttrNodeFlags, fmt.Errorf("node %q is no remote that could take a place: leave steal out: %w", name, unix.EOPNOTSUPP))
		}
		return r.steal()
	})
}

// Set changes the given values of a node.
func (p *Plane) Set(n *abi.Node) error {
	if err := checkSet(n); err != nil {
		return err
	}
	return p.change(n.Name, abi.EventKindChange, func(at *place) error { return at.node.set(n) })
}

// Crypto changes digest or keys of a node, live. The files that c names are read
// first, so that all is decided before anything changes; c is the caller's to wipe.
func (p *Plane) Crypto(c *abi.Crypto) error {
	ch, err := readCrypto(c)
	defer func() { ch.wipe() }()
	if err != nil {
		return err
	}
	return p.change(c.Name, abi.EventKindChange, func(at *place) error { return at.node.crypto(ch) })
}

// AddRule adds a security rule to an export; an equal one gets r's permission.
func (p *Plane) AddRule(name string, r abi.Rule) error {
	return p.change(name, abi.EventKindChange, func(at *place) error { return at.node.rule(r, true) })
}

// DelRule removes a security rule from an export.
func (p *Plane) DelRule(name string, r abi.Rule) error {
	return p.change(name, abi.EventKindChange, func(at *place) error { return at.node.rule(r, false) })
}

// change does f to the node and, if it was done, remembers and tells it. What is
// started goes on after that: nobody hears of its life before its start.
func (p *Plane) change(name string, kind abi.EventKind, f func(at *place) error) error {
	return p.hold(name, func(at *place) error {
		if err := f(at); err != nil {
			return err
		}
		if kind == abi.EventKindStart {
			defer at.node.launch()
		}
		if err := p.remember(name, at); err != nil {
			return err
		}
		n := at.node.get()
		p.cfg.Notify(abi.Event{Kind: kind, Name: name, State: n.Status.State, Reason: n.Status.Reason})
		return nil
	})
}

// Del removes a node. EBUSY, naming who, while it is in use, unless force,
// which ends in bounded time.
func (p *Plane) Del(name string, force bool) error {
	return p.hold(name, func(at *place) error {
		if err := at.node.remove(force); err != nil {
			return err
		}
		at.node = nil
		p.forget(name)
		p.cfg.Notify(abi.Event{Kind: abi.EventKindDel, Name: name, State: abi.StateClosed})
		return nil
	})
}

// claim takes the path of a front's socket for a node; "" needs no claim.
func (p *Plane) claim(path, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.sockets[path]; other != "" {
		return fmt.Errorf("socket %s belongs to node %q: choose another path: %w", path, other, unix.EADDRINUSE)
	}
	if path != "" {
		p.sockets[path] = name
	}
	return nil
}

func (p *Plane) release(path string) {
	p.mu.Lock()
	delete(p.sockets, path)
	p.mu.Unlock()
}

// Names are the names of all nodes, sorted.
func (p *Plane) Names() []string {
	p.mu.Lock()
	names := make([]string, 0, len(p.places))
	for name := range p.places {
		names = append(names, name)
	}
	p.mu.Unlock()
	slices.Sort(names)
	return names
}

// Get is a node's configuration and state.
func (p *Plane) Get(name string) (n *abi.Node, err error) {
	err = p.hold(name, func(at *place) error {
		n = at.node.get()
		n.Status.Warnings = at.warn(n.Status.Warnings)
		return nil
	})
	return n, err
}

// Stats are a node's counters.
func (p *Plane) Stats(name string) (c *abi.Counters, err error) {
	err = p.hold(name, func(at *place) error {
		c = at.node.stats()
		return nil
	})
	return c, err
}

// Restore makes the nodes that the run directory remembers, each on its own:
// one that cannot be made is logged, told and shown as lost, and blocks nothing.
func (p *Plane) Restore() {
	for _, n := range p.run.load(p.cfg.Log) {
		made, err := p.remake(n, n.Flags&abi.NodeFlagStarted != 0)
		if err != nil {
			made = &lostNode{plane: p, conf: *n, why: err, since: time.Now()}
			p.cfg.Log.Error().Err(err).Str("node", n.Name).Msg("node could not be restored")
			p.cfg.Notify(abi.Event{Kind: abi.EventKindError, Name: n.Name, State: abi.StateFailed, Reason: err.Error()})
		}
		p.mu.Lock()
		p.places[n.Name] = &place{node: made}
		p.mu.Unlock()
		made.launch()
	}
}

// remake makes a remembered node as it was, wholly or not at all; launch is the
// caller's.
func (p *Plane) remake(n *abi.Node, started bool) (node, error) {
	made, err := p.make(n)
	if err != nil {
		return nil, err
	}
	for _, r := range n.Status.Rules {
		if err == nil {
			err = made.rule(r, true)
		}
	}
	if err == nil && started {
		err = made.start()
	}
	if err != nil {
		made.stop()
		return nil, err
	}
	return made, nil
}

// Close ends the daemon's service. What the run directory remembers stays, for
// the next daemon.
func (p *Plane) Close() {
	var all sync.WaitGroup // side by side: one with a stuck disk holds up no other
	for _, name := range p.Names() {
		all.Go(func() {
			_ = p.hold(name, func(at *place) error {
				at.node.stop()
				at.node = nil
				return nil
			})
		})
	}
	all.Wait()
	if p.driver != nil {
		_ = p.driver.Close()
	}
	p.ports.Close()
	p.run.close()
}
