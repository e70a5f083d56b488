package main

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// direction of bytes on a wire.
type direction int

const (
	up   direction = iota // client to export
	down                  // export to client
)

// end is one end of a wire. Neither method is called after the end was closed.
type end interface {
	receive(b []byte)
	gone(err error) // nothing more will come
}

// wire is one connection: a stream of bytes each way, which arrive in order
// and late, until it is cut. What was sent before an end was closed still
// arrives, however late.
type wire struct {
	w     *world
	pipes [2]pipe
}

// pipe is one direction of a wire.
type pipe struct {
	queue  []segment
	last   time.Duration // when the newest of it arrives
	passed int           // bytes that have arrived
	hole   time.Duration // nothing passes until then
	limit  int           // the wire is cut when so many have; 0 = never
	to     end           // nil: closed
	shut   bool          // nothing more can be sent
}

// segment is bytes on their way, or, with err, the end of the stream.
type segment struct {
	b   []byte
	at  time.Duration
	err error
}

func newWire(w *world) *wire {
	c := &wire{w: w}
	if every := w.plan.set.cutEvery; every > 0 && !w.calm() {
		c.pipes[w.under(2)].limit = 1 + w.under(2*every)
	}
	return c
}

// send puts b, which is the wire's from now on, on its way.
func (c *wire) send(d direction, b []byte) { c.enqueue(d, segment{b: b}) }

func (c *wire) enqueue(d direction, s segment) {
	p := &c.pipes[d]
	if p.shut {
		return
	}
	p.shut = s.err != nil
	s.at = max(p.last, c.w.now+c.w.latency())
	p.last = s.at
	p.queue = append(p.queue, s)
	c.w.after(s.at-c.w.now, func() { c.arrive(d) })
}

// arrive delivers what is due.
func (c *wire) arrive(d direction) {
	p := &c.pipes[d]
	if len(p.queue) == 0 || p.queue[0].at > c.w.now {
		return
	}
	if hole := max(c.w.holes[d], p.hole); hole > c.w.now { // later, if the ends still wait for it
		c.w.after(hole-c.w.now+c.w.latency(), func() { c.arrive(d) })
		return
	}
	s := p.queue[0]
	p.queue = p.queue[1:]
	switch {
	case p.to == nil && s.err == nil: // data for who has closed
		if !c.pipes[1-d].shut && c.pipes[1-d].to != nil {
			c.enqueue(1-d, segment{err: unix.ECONNRESET})
		}
	case p.to == nil:
	case s.err != nil:
		to := p.to
		p.to = nil
		to.gone(s.err)
	default:
		c.deliver(p, s.b)
	}
	if len(p.queue) > 0 && p.queue[0].at <= c.w.now {
		c.arrive(d)
	}
}

func (c *wire) deliver(p *pipe, b []byte) {
	cut := p.limit > 0 && p.passed+len(b) >= p.limit && !c.w.calm()
	if cut {
		b = b[:p.limit-p.passed]
	}
	if c.w.flips > 0 && len(b) > 0 {
		c.w.flips--
		i := c.w.under(8 * len(b))
		b[i/8] ^= 1 << (i % 8)
	}
	p.passed += len(b)
	if len(b) > 0 {
		p.to.receive(b)
	}
	if cut {
		p.limit = 0
		c.cut()
	}
}

// close ends the connection from the receiver's side of d: it hears nothing
// more, and what it has sent arrives, then the end.
func (c *wire) close(d direction) {
	c.pipes[d].to = nil
	c.enqueue(1-d, segment{err: io.EOF})
}

// cut breaks both directions somewhere in what is on its way; both ends hear
// of it after that.
func (c *wire) cut() {
	for d := range c.pipes {
		c.crop(direction(d))
		c.enqueue(direction(d), segment{err: unix.ECONNRESET})
	}
}

// crop lets only a part of what is on its way arrive.
func (c *wire) crop(d direction) {
	p := &c.pipes[d]
	n := 0
	for _, s := range p.queue {
		n += len(s.b)
	}
	left := c.w.under(n + 1)
	for i := range p.queue {
		s := &p.queue[i]
		if s.err != nil || left == 0 {
			p.queue = p.queue[:i]
			p.shut = false
			break
		}
		s.b = s.b[:min(left, len(s.b))]
		left -= len(s.b)
	}
}

// vanish is the loss of the host that sends in direction d: what it had sent
// may arrive, it hears nothing, and nobody is told.
func (c *wire) vanish(d direction) {
	c.crop(d)
	c.pipes[d].shut = true
	c.pipes[1-d].to = nil
}
