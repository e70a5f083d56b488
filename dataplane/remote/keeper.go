package remote

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// missedMax is how many keepalive intervals without a sign of life break a
// link.
const missedMax = 3

// keepaliveMax is the longest interval that a peer may announce and that
// anybody can configure.
const keepaliveMax = time.Hour

// control is a frame without payload that is sent again and again.
type control struct {
	conn.Frame
	busy atomic.Bool // it is queued
}

func (c *control) seal(h abi.Header, d crypt.Digest) {
	h.Size, h.CSize = uint32(d.Size()), uint32(d.Size())
	c.Head = c.Room[:abi.HeaderSize+d.Size()]
	h.Put(c.Head)
	d.Seal(c.Head, nil)
	c.Owner = c
}

// free reports whether the frame may be sealed: the last one has left.
func (c *control) free() bool { return !c.busy.Load() }

func (c *control) push(o *conn.Out) {
	c.busy.Store(true)
	if !o.Push(&c.Frame) {
		c.busy.Store(false)
	}
}

// Sent implements conn.Sender.
func (c *control) Sent(*conn.Frame, error) { c.busy.Store(false) }

// keep is the link's keepalive: it sends a PING when one is due and aborts a
// link without a sign of life, and one that has a request for too long. A peer
// that lives and takes nothing is an export whose workers and memory all wait
// for its disk: to break that link would throw its answers away, and the next
// link's as well, for as long as the disk is slow. It also gives payload memory
// back that was lent and is not needed, and flushes what is old. Started by
// serve; owns the ping frame; ends when done is closed.
func (l *link) keep(done <-chan struct{}) {
	interval, _ := l.interval()
	tick := time.NewTicker(interval / conn.Looks)
	defer tick.Stop()
	age := time.NewTicker(l.node.logTick())
	defer age.Stop()
	var p conn.Pulse
	l.node.quiet.Store(false)
	for look := 1; ; look++ {
		select {
		case <-done:
			return
		case <-age.C:
			l.flushOld()
			age.Reset(l.node.logTick())
			look--
			continue
		case <-tick.C:
		}
		d, own := l.interval()
		if d != interval {
			interval = d
			tick.Reset(d / conn.Looks)
			p.Silent = 0 // it was counted in other looks
		}
		if p.Look(l.out.Progress(), l.in.Frames()) {
			l.beat()
		}
		if look%conn.Looks == 0 {
			l.node.cfg.Memory.Arena.Trim()
		}
		patience := int(conn.Looks * missedMax * max(own, l.peerKA) / interval)
		l.node.quiet.Store(p.Silent >= patience/2) // one interval is as it should be
		switch {
		case p.Silent >= patience:
			l.abort(fmt.Errorf("no sign of life from the peer for %v: %w", time.Duration(p.Silent)*interval/conn.Looks, unix.ETIMEDOUT))
		case l.late():
			l.abort(fmt.Errorf("a request was not answered in time (request-timeout): %w", unix.ETIMEDOUT))
		}
	}
}

// beat sends a PING, unless it would only wait behind what the peer does not take.
func (l *link) beat() {
	if l.out.Pending() || !l.ping.free() {
		return
	}
	l.ping.seal(abi.Header{Cmd: abi.MsgPing}, l.digest)
	l.ping.push(l.out)
	l.out.Flush()
}

// flushOld flushes what nobody has flushed for too long.
func (l *link) flushOld() {
	n := l.node
	n.mu.Lock()
	n.core.Tick(time.Now(), n.knobs.logAge)
	n.mu.Unlock()
	l.out.Flush()
}

// logTick is how often the log's age is looked at, and that of ghosts.
func (n *Node) logTick() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return max(min(n.knobs.logAge/2, time.Second), 10*time.Millisecond)
}

// interval is how often the peer has to hear of this end, which is as often as
// this link's HELLO promised; and own how often this end wants to hear of it.
func (l *link) interval() (interval, own time.Duration) {
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	own = l.node.knobs.keepalive
	return min(own, l.promised), own
}

// late reports whether a request is on its way for longer than request-timeout.
func (l *link) late() bool {
	n := l.node
	n.mu.Lock()
	defer n.mu.Unlock()
	limit := n.knobs.requestTimeout
	return limit > 0 && n.core.Oldest(time.Now()) > limit
}
