// Package cutproxy is a proxy for stream sockets that breaks connections on purpose, at an exact byte. Tests put it between a
// remote and an export and cut, stall, delay or damage what passes. It knows nothing of what it carries.
package cutproxy

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Dir is a direction through the proxy.
type Dir int

const (
	Up   Dir = iota // from who dialled the proxy to the target
	Down            // from the target back
)

// Mode is how a connection ends.
type Mode int

const (
	RST    Mode = iota // both ends see a reset (on Unix sockets an end of file: they have no reset)
	FIN                // both ends see an end of file after the last byte that passed
	Silent             // nothing passes any more and nobody is told, as when a cable is pulled for good
)

// Stats counts what happened since New.
type Stats struct {
	Accepted, Live int       // connections
	Bytes          [2]uint64 // delivered, by Dir
	Cuts           int
}

// Proxy listens at one address and forwards each connection to another. All methods may be called at any time by any goroutine.
type Proxy struct {
	ln     net.Listener
	target net.Addr
	wg     sync.WaitGroup

	mu      sync.Mutex
	open    *sync.Cond // the hole was closed, a link or the proxy ended
	links   map[*link]struct{}
	stats   Stats
	hole    [2]bool // by Dir
	refuse  bool
	closed  bool
	delay   time.Duration
	cut     [2]*event // armed by CutAfter
	corrupt [2]*event // armed by CorruptAt
}

// event happens when left more bytes have passed in its direction.
type event struct {
	left uint64
	mode Mode
	done chan struct{}
}

// New listens at an address and forwards to another, both as dstctl writes them: tcp:HOST:PORT or unix:PATH. Port 0 lets the
// kernel choose: see Addr. Nothing is dialled before somebody connects.
func New(listen, target string) (*Proxy, error) {
	la, err := resolve(listen)
	if err != nil {
		return nil, err
	}
	ta, err := resolve(target)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen(la.Network(), la.String())
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln, target: ta, links: map[*link]struct{}{}}
	p.open = sync.NewCond(&p.mu)
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

func resolve(addr string) (net.Addr, error) {
	family, rest, _ := strings.Cut(addr, ":")
	switch {
	case family == "tcp" && rest != "":
		return net.ResolveTCPAddr("tcp", rest)
	case family == "unix" && rest != "":
		return net.ResolveUnixAddr("unix", rest)
	}
	return nil, fmt.Errorf("address %q: want tcp:HOST:PORT or unix:PATH", addr)
}

// Addr is where the proxy listens, in the words of New.
func (p *Proxy) Addr() string {
	return p.ln.Addr().Network() + ":" + p.ln.Addr().String()
}

// CutAfter lets exactly n more bytes pass in a direction, over however many connections, and cuts the connection that carried the
// last of them. With n = 0 the next byte to arrive is not delivered. It replaces an earlier cut of that direction.
// The channel is closed when the cut was made, and never if it is replaced.
func (p *Proxy) CutAfter(dir Dir, n uint64, mode Mode) <-chan struct{} {
	e := &event{left: n, mode: mode, done: make(chan struct{})}
	p.mu.Lock()
	p.cut[dir] = e
	p.mu.Unlock()
	return e.done
}

// CutNow cuts all connections there are and returns how many.
func (p *Proxy) CutNow(mode Mode) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if l.end(mode) {
			n++
		}
	}
	return n
}

// CorruptAt inverts the lowest bit of the n-th byte from now (0 is the next) in a direction. The channel is closed when it was done.
func (p *Proxy) CorruptAt(dir Dir, n uint64) <-chan struct{} {
	e := &event{left: n, done: make(chan struct{})}
	p.mu.Lock()
	p.corrupt[dir] = e
	p.mu.Unlock()
	return e.done
}

// Blackhole stops all bytes, also those of new connections, which are accepted but not forwarded. When it is switched off
// everything goes on where it stood and no byte is missing.
func (p *Proxy) Blackhole(on bool) {
	p.BlackholeOf(Up, on)
	p.BlackholeOf(Down, on)
}

// BlackholeOf does so in one direction: what goes the other way still arrives. A new connection needs both.
func (p *Proxy) BlackholeOf(dir Dir, on bool) {
	p.mu.Lock()
	p.hole[dir] = on
	p.open.Broadcast()
	p.mu.Unlock()
}

// Refuse makes the proxy close new connections at once, as a host where nobody listens.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
}

// Delay holds back every byte for a time, in each direction; the throughput stays.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	p.delay = d
	p.mu.Unlock()
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Live = len(p.links)
	return s
}

// Close stops listening, resets all connections and returns when no goroutine of the proxy runs any more.
func (p *Proxy) Close() error {
	err := p.ln.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.drop()
	}
	p.open.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// accept takes connections.
// Started by New. Owns nothing. Ends when Close closes the listener.
func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.admit(c)
		}
	}
}

// admit makes a link of an accepted connection.
func (p *Proxy) admit(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refuse {
		reset(c)
		return
	}
	l := &link{p: p}
	l.side[0].conn = c
	p.links[l] = struct{}{}
	p.stats.Accepted++
	p.wg.Add(1)
	go l.run()
}
