package export

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// Limits of clients that have not been welcomed yet.
const (
	halfOpenEach = 16 // from one address
	halfOpenAll  = 256
)

// acceptPause is how long a port waits after an accept that failed oddly.
const acceptPause = 50 * time.Millisecond

// Ports is the listening sockets of a daemon. Exports may share one: the name
// in HELLO selects. Its methods may be called by any goroutine.
type Ports struct {
	log zerolog.Logger
	mu  struct {
		sync.Mutex
		ports  map[abi.Addr]*port
		half   map[string]int         // half-open connections by caller.place
		open   map[conn.Stream]*knock // all of them, and those that are on their way out
		knocks int                    // half-open connections
		closed bool
	}
	wg sync.WaitGroup // accept loops and handshakes

	// agreement is held while an export begins to be served, or gets or loses its
	// keys; before mu.
	agreement sync.Mutex

	// doors is held while an address is bound or given up, which may wait for
	// others on the host: only one at a time, and no handshake waits with it. Before
	// mu.
	doors sync.Mutex
}

// port is one listening socket.
type port struct {
	ports    *Ports
	listener *conn.Listener
	pool     *crypt.Pool // which node a client wants shows only in its channel
	nodes    []*Node     // under Ports.mu; replaced, never changed
}

// NewPorts makes an empty set.
func NewPorts(log zerolog.Logger) *Ports {
	p := &Ports{log: log}
	p.mu.ports = make(map[abi.Addr]*port)
	p.mu.half = make(map[string]int)
	p.mu.open = make(map[conn.Stream]*knock)
	return p
}

// bind makes n reachable at a. Errors: those of conn.Listen; ESHUTDOWN.
func (p *Ports) bind(n *Node, a abi.Addr) (*port, error) {
	p.doors.Lock()
	defer p.doors.Unlock()
	if at, err := p.join(n, a); at != nil || err != nil {
		return at, err
	}
	l, err := conn.Listen(a)
	if err != nil {
		return nil, err
	}
	at := &port{ports: p, listener: l, pool: crypt.NewPool(0), nodes: []*Node{n}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.ports[l.Addr()] = at
	p.wg.Go(at.accept)
	return at, nil
}

// join makes n reachable at a if that is a port already; doors is held.
func (p *Ports) join(n *Node, a abi.Addr) (*port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, unix.ESHUTDOWN
	}
	at := p.mu.ports[a]
	if at != nil {
		at.nodes = append(slices.Clone(at.nodes), n)
		at.limit()
	}
	return at, nil
}

// unbind ends that; the last export of a port closes it.
func (p *Ports) unbind(n *Node, at *port) {
	p.doors.Lock()
	defer p.doors.Unlock()
	if !p.part(n, at) {
		return
	}
	_ = at.listener.Close() // a socket path that somebody removed is no loss
	at.pool.Close()         // a session that is being closed does its work alone
}

// part takes n from a port and tells whether it was the last one; doors is held.
func (p *Ports) part(n *Node, at *port) (last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at.nodes = slices.DeleteFunc(slices.Clone(at.nodes), func(o *Node) bool { return o == n })
	at.limit()
	if last = len(at.nodes) == 0; last && p.mu.ports[at.listener.Addr()] == at {
		delete(p.mu.ports, at.listener.Addr())
	}
	return last
}

// SetThreads is how many threads at most seal or open large payloads for one
// client, 0 = one less than there are processors. Exports that share an address share
// them, and the largest number counts.
func (n *Node) SetThreads(threads int) {
	p := n.env.Ports
	p.mu.Lock()
	defer p.mu.Unlock()
	n.threads = threads
	for _, at := range n.ports {
		at.limit()
	}
}

// limit tells the port's pool what its exports want; Ports.mu is held.
func (at *port) limit() {
	most := 1
	for _, n := range at.nodes {
		if n.threads == 0 {
			most = 0
			break
		}
		most = max(most, n.threads)
	}
	at.pool.SetLimit(most)
}

// Close ends listening and all handshakes. Close the exports first.
func (p *Ports) Close() {
	p.doors.Lock()
	p.mu.Lock()
	p.mu.closed = true
	ports := slices.Collect(maps.Values(p.mu.ports))
	clear(p.mu.ports)
	for st := range p.mu.open {
		_ = st.Close()
	}
	p.mu.Unlock()
	for _, at := range ports {
		_ = at.listener.Close()
	}
	p.doors.Unlock()
	p.wg.Wait()
}

// accept takes connections.
// Started by bind. Owns nothing but what it accepts, until greet has it. Ends
// when the listener is closed.
func (at *port) accept() {
	for {
		sock, peer, err := at.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			at.ports.log.Error().Err(err).Stringer("address", at.listener.Addr()).Msg("cannot accept")
			time.Sleep(acceptPause)
			continue
		}
		who := caller{addr: peer}
		if peer.Family() == unix.AF_UNIX {
			if cred, err := sock.Cred(); err == nil {
				who.uid, who.cred = cred.Uid, true
			}
		}
		at.receive(sock, who)
	}
}

// Why a connection is closed without a byte.
var (
	errStranger = fmt.Errorf("no security rule allows this address: add one if it should be served: %w", unix.EACCES)
	errOver     = fmt.Errorf("the daemon stops: %w", unix.ESHUTDOWN)
	errCrowded  = fmt.Errorf("too many connections that have not said who they are: %w", unix.EUSERS)
)

// receive starts the handshake of a client whose address is known to one of the
// exports here; others are closed without a byte, and without delay.
func (at *port) receive(st conn.Stream, who caller) {
	nodes := at.exports()
	known := slices.ContainsFunc(nodes, func(n *Node) bool { return n.admits(who) })
	if !known || !at.ports.enter(st, who) {
		err := errStranger
		if known {
			err = errOver
		}
		turnAway(st, who, err, nodes...)
		return
	}
	go at.greet(st, who)
}

func (at *port) exports() []*Node {
	at.ports.mu.Lock()
	defer at.ports.mu.Unlock()
	return at.nodes
}

// knock is a half-open connection.
type knock struct {
	place string // caller.place
	out   bool   // it had to make room
}

// enter counts a half-open connection; false if there will be no more. Where
// there are too many, one of those that have not said who they are makes room:
// of this address, or of the one that has most. Which one is chance, so that
// somebody who fills all places can not keep out who needs one for moments.
func (p *Ports) enter(st conn.Stream, who caller) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	place := who.place()
	switch {
	case p.mu.half[place] >= halfOpenEach:
		p.oust(place)
	case p.mu.knocks >= halfOpenAll:
		p.oust(p.crowd())
	}
	p.mu.half[place]++
	p.mu.knocks++
	p.mu.open[st] = &knock{place: place}
	p.wg.Add(1)
	return true
}

// crowd is a place that has most half-open connections; p.mu is held.
func (p *Ports) crowd() (most string) {
	n := 0
	for place, here := range p.mu.half {
		if here > n {
			most, n = place, here
		}
	}
	return most
}

// oust closes a half-open connection of a place; p.mu is held.
func (p *Ports) oust(place string) {
	for st, k := range p.mu.open {
		if k.place == place && !k.out {
			k.out = true
			p.settle(k)
			_ = st.Close()
			return
		}
	}
}

// ousted tells whether st had to make room.
func (p *Ports) ousted(st conn.Stream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.mu.open[st]
	return k != nil && k.out
}

// settle takes k out of the count; p.mu is held.
func (p *Ports) settle(k *knock) {
	p.mu.knocks--
	if p.mu.half[k.place]--; p.mu.half[k.place] == 0 {
		delete(p.mu.half, k.place)
	}
}

// leave is the end of a handshake, good or bad. It may be called again.
func (p *Ports) leave(st conn.Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.mu.open[st]
	if k == nil {
		return
	}
	delete(p.mu.open, st)
	if !k.out {
		p.settle(k)
	}
	p.wg.Done()
}

// pick is the export that a HELLO names; an empty name means the only one here.
func (at *port) pick(name string) *Node {
	nodes := at.exports()
	if name == "" && len(nodes) == 1 {
		return nodes[0]
	}
	for _, n := range nodes {
		if n.cfg.Name == name {
			return n
		}
	}
	return nil
}
