package cutproxy

import (
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 64 << 10
	chunks    = 64 // held back at most in each direction: what a delay may keep on the way
)

// chunk is what one read gave, to be delivered not before due.
type chunk struct {
	buf []byte
	due time.Time
}

// side is one of the two connections of a link.
type side struct{ conn net.Conn }

// link is one connection through the proxy. side[Up] is who dialled, side[Down] the target, so that bytes of a direction d are
// read from side[d] and written to side[1-d]. Fields are guarded by Proxy.mu.
type link struct {
	p      *Proxy
	side   [2]side
	dead   bool // no byte passes any more
	silent bool // and nobody is told: the sockets stay open until the proxy is closed
	over   bool // the sockets are closed
}

// run dials the target and forwards both directions.
// Started by Proxy.admit. Owns the link. Ends when both directions ended, or the link was cut, or the proxy closed.
func (l *link) run() {
	defer l.p.wg.Done()
	if l.dial() {
		var wg sync.WaitGroup
		for _, dir := range []Dir{Up, Down} {
			queue := make(chan chunk, chunks)
			wg.Add(2)
			go func() { defer wg.Done(); l.read(dir, queue) }()
			go func() { defer wg.Done(); l.write(dir, queue) }()
		}
		wg.Wait()
	}
	l.p.mu.Lock()
	for l.silent && !l.p.closed {
		l.p.open.Wait()
	}
	l.drop()
	delete(l.p.links, l)
	l.p.mu.Unlock()
}

// dial connects the other side, as soon as no hole is in the way.
func (l *link) dial() bool {
	if !l.pass(Up, Down) {
		return false
	}
	c, err := net.Dial(l.p.target.Network(), l.p.target.String())
	if err != nil {
		return false
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.over {
		reset(c)
		return false
	}
	l.side[Down].conn = c
	if l.dead && !l.silent {
		closeWrite(c) // FIN came while it was being dialled
	}
	return !l.silent
}

// pass waits while there is a black hole in one of these directions; false if the link is dead.
func (l *link) pass(dirs ...Dir) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	hole := func(dir Dir) bool { return l.p.hole[dir] }
	for slices.ContainsFunc(dirs, hole) && !l.dead {
		l.p.open.Wait()
	}
	return !l.dead
}

// read takes bytes of a direction from its source until that ends, and queues them.
// Started by run. Owns the reading half of side[dir]. Ends at the end of the stream or when the link is dropped.
func (l *link) read(dir Dir, queue chan<- chunk) {
	defer close(queue)
	buf := make([]byte, chunkSize)
	for {
		n, err := l.side[dir].conn.Read(buf)
		l.p.mu.Lock()
		due, dead := time.Now().Add(l.p.delay), l.dead
		l.p.mu.Unlock()
		if n > 0 && !dead {
			queue <- chunk{append([]byte(nil), buf[:n]...), due}
		}
		if err != nil {
			return
		}
		if dead && !l.drain() {
			return
		}
	}
}

// drain tells whether bytes of a dead link are read and thrown away: after FIN, so that unread ones do not turn it into a reset.
func (l *link) drain() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return !l.silent && !l.over
}

// write delivers what is queued when it is due, and cuts where a cut is armed.
// Started by run. Owns the writing half of side[1-dir]. Ends when the queue is closed; what comes after a cut is thrown away.
func (l *link) write(dir Dir, queue <-chan chunk) {
	to := l.side[1-dir].conn
	for c := range queue {
		time.Sleep(time.Until(c.due))
		if !l.pass(dir) {
			continue
		}
		b, cut := l.p.take(dir, c.buf)
		n, err := to.Write(b)
		if cut != nil && cut.mode == RST {
			drained(to)
		}
		l.p.mu.Lock()
		l.p.stats.Bytes[dir] += uint64(n)
		switch {
		case cut != nil:
			l.end(cut.mode)
			close(cut.done)
		case err != nil:
			l.end(RST)
		}
		l.p.mu.Unlock()
	}
	l.p.mu.Lock()
	if !l.dead {
		closeWrite(to) // the source ended by itself: pass that on, the other direction may live
	}
	l.p.mu.Unlock()
}

// take returns how much of b may be delivered, damaged where that was ordered, and the cut to make afterwards, if any.
func (p *Proxy) take(dir Dir, b []byte) ([]byte, *event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut := p.cut[dir]
	switch {
	case cut == nil:
	case cut.left < uint64(len(b)) || cut.left == uint64(len(b)) && len(b) > 0:
		b = b[:cut.left]
		p.cut[dir] = nil
	default:
		cut.left -= uint64(len(b))
		cut = nil
	}
	if e := p.corrupt[dir]; e != nil {
		if e.left < uint64(len(b)) {
			b[e.left] ^= 1
			p.corrupt[dir] = nil
			close(e.done)
		} else {
			e.left -= uint64(len(b))
		}
	}
	return b, cut
}

// end cuts the link; false if it was dead already. Called with Proxy.mu held.
func (l *link) end(mode Mode) bool {
	if l.dead {
		return false
	}
	l.dead = true
	l.p.stats.Cuts++
	switch mode {
	case RST:
		l.drop()
	case FIN:
		for _, s := range l.side {
			closeWrite(s.conn)
		}
	case Silent:
		l.silent = true
		// Wakes the readers: they must not take, and so acknowledge to the far end's kernel, anything more.
		for _, s := range l.side {
			if s.conn != nil {
				_ = s.conn.SetDeadline(time.Unix(1, 0))
			}
		}
	}
	l.p.open.Broadcast()
	return true
}

// drop closes both sockets hard. Called with Proxy.mu held.
func (l *link) drop() {
	if l.over {
		return
	}
	l.over, l.dead = true, true
	for _, s := range l.side {
		reset(s.conn)
	}
	l.p.open.Broadcast()
}

// reset closes a connection so that the far end sees a reset, where the family has one.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	if c != nil {
		c.Close()
	}
}

// drained waits until the far end's kernel has acknowledged all that was written, for a reset throws the rest away and the cut
// would not be exact. A far end that does not read is not waited for longer than a second.
func drained(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		left := 0
		if raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || left == 0 {
			return
		}
	}
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
