package main

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

const dialTimeout = time.Second

// link is one connection of a client, from its dialling to its end.
type link struct {
	client   *client
	wire     *wire // nil until it stands
	began    time.Duration
	greeting abi.Hello
	in       []byte
	phase    linkPhase
	attached bool // the core's: requests may be sent
	wasUp    bool
	closed   bool
	frames   []*trans.Trans // pushed
	leaving  bool           // they are about to be written
	waits    int            // generation of the deadline
	heard    bool
	sent     bool
	silent   int
}

type linkPhase uint8

const (
	linkDial linkPhase = iota
	linkMark
	linkHello
	linkUp
)

// connected is the connection that stands: the handshake begins.
func (l *link) connected() {
	c := l.client
	l.wire = newWire(c.w)
	l.wire.pipes[down].to = l
	c.w.wires = append(c.w.wires, l.wire)
	c.w.server.accept(l.wire)
	l.phase = linkMark
	b := make([]byte, abi.HeaderSize)
	h := abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello, ID: uint64(c.w.now) | 1}
	h.Put(b)
	l.greeting = c.core.Connected(c.now())
	l.wire.send(up, b)
	l.expect(handshakeTime, "the peer says nothing")
}

// expect breaks the link if nothing comes for d.
func (l *link) expect(d time.Duration, why string) {
	l.waits++
	waits := l.waits
	l.client.w.after(d, func() {
		if !l.closed && l.waits == waits && l.phase != linkUp {
			l.broken(fmt.Errorf("%s: %w", why, unix.ETIMEDOUT))
		}
	})
}

// receive implements end.
func (l *link) receive(b []byte) {
	l.heard = true
	l.in = append(l.in, b...)
	for !l.closed {
		took, err := l.parse()
		if err != nil {
			l.broken(err)
			return
		}
		if took == 0 {
			return
		}
		l.in = l.in[took:]
	}
}

// gone implements end.
func (l *link) gone(err error) { l.broken(fmt.Errorf("the connection ended: %w", err)) }

func (l *link) parse() (int, error) {
	if l.phase == linkMark {
		return l.marked()
	}
	size := abi.HeaderSize + digest.Size()
	if len(l.in) < size {
		return 0, nil
	}
	var h abi.Header
	h.Parse(l.in)
	if err := h.Check(uint32(digest.Size()), maxSize); err != nil {
		return 0, err
	}
	total := size + int(h.Payload())
	if l.phase == linkUp && h.Cmd == abi.MsgIOResponse {
		return l.answer(&h, size, total)
	}
	if len(l.in) < total {
		return 0, nil
	}
	head, data := l.in[:size], l.in[size:total]
	if err := digest.Check(head, data); err != nil {
		return 0, err
	}
	if l.phase == linkHello {
		l.expect(handshakeTime, "the peer says nothing")
		return total, l.greeted(&h, data)
	}
	switch h.Cmd {
	case abi.MsgPing:
		l.say(frame(&abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil))
	case abi.MsgPong:
	default:
		return 0, unix.EPROTO
	}
	return total, nil
}

func (l *link) marked() (int, error) {
	if len(l.in) < abi.HeaderSize {
		return 0, nil
	}
	var h abi.Header
	h.Parse(l.in)
	if err := h.Check(0, 0); err != nil || h.Cmd != abi.MsgCFG || h.Flags != abi.MarkWelcome {
		return 0, unix.EPROTO
	}
	l.phase = linkHello
	l.greeting.Steal = l.client.dev.steal
	l.say(frame(&abi.Header{Cmd: abi.MsgHello}, l.greeting.Append(nil)))
	l.expect(handshakeTime, "the peer says nothing")
	return abi.HeaderSize, nil
}

// greeted takes what the export answers to HELLO.
func (l *link) greeted(h *abi.Header, attrs []byte) error {
	switch h.Cmd {
	case abi.MsgDraining:
		return nil
	case abi.MsgRefuse:
		var r abi.Refuse
		if err := r.Parse(attrs); err != nil {
			return err
		}
		if r.Code == abi.RefuseStale {
			l.client.w.blame("client %x: its newest connection is refused as an old one", l.client.dev.id[:2])
		}
		return &r
	case abi.MsgWelcome:
	default:
		return unix.EPROTO
	}
	var w abi.Welcome
	if err := w.Parse(attrs); err != nil {
		return err
	}
	c := l.client
	c.w.lie(c, &w)
	fatal, err := c.core.Welcome(&w)
	if fatal {
		l.shut()
		c.fail(err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	c.w.trace("client %x: epoch %d, verifier %.8x", c.dev.id[:2], w.Epoch, w.Verifier[:2])
	c.dev.steal = false
	l.phase, l.attached, l.wasUp = linkUp, true, true
	c.w.welcomed(c.dev)
	if l.closed {
		return nil
	}
	c.core.Recover(c.now())
	c.kick()
	l.keep()
	l.age()
	return nil
}

// answer completes what h answers.
func (l *link) answer(h *abi.Header, size, total int) (int, error) {
	c := l.client
	t, err := c.core.Expect(h)
	if err != nil {
		if c.w.harm.is(resendLive) && len(l.in) >= total { // the original took it for a late one
			return total, nil
		}
		return 0, err
	}
	if t.Op == trans.Read && len(l.in) > size { // what has come goes to its place at once
		copy(t.Data, l.in[size:min(total, len(l.in))])
	}
	if len(l.in) < total {
		return 0, nil
	}
	if err := digest.Check(l.in[:size], l.in[size:total]); err != nil {
		return 0, err
	}
	if c.w.harm.is(trimAtReply) && t.Op == trans.Flush {
		t.Mark = c.log.Tail()
	}
	var before []byte
	if c.w.harm.is(lateCommit) {
		before = append(before, c.dev.mem...)
	}
	slot := t.Slot()
	err = c.core.Done(t, h, c.now())
	t.Drop()
	if before != nil {
		c.w.uncommitted(c, before, slot)
	}
	c.kick()
	return total, err
}

// say sends a frame that is not a request.
func (l *link) say(b []byte) { l.wire.send(up, b) }

// leave writes what was pushed; then the senders' holds end.
func (l *link) leave() {
	l.leaving = false
	if l.closed {
		return
	}
	frames := l.frames
	l.frames = nil
	l.sent = true
	for _, t := range frames {
		b := append(append(make([]byte, 0, len(t.Request.Head)+len(t.Request.Data)), t.Request.Head...), t.Request.Data...)
		l.wire.send(up, b)
		if l.client.w.harm.is(resendLive) {
			l.again(t, t.ID, b)
		}
	}
	for _, t := range frames {
		t.Drop()
	}
}

// again is what the original of 2008 did: it sent an unanswered request once
// more on the same connection.
func (l *link) again(t *trans.Trans, id uint64, b []byte) {
	l.client.w.after(time.Duration(l.client.w.under64(int64(4*l.client.w.plan.set.disk))), func() {
		if !l.closed && l.attached && t.ID == id && t.OnWire {
			l.wire.send(up, append([]byte(nil), b...))
		}
	})
}

// shut closes the connection from this side; the senders' holds end.
func (l *link) shut() {
	l.closed, l.attached = true, false
	if l.wire != nil {
		l.wire.close(down)
	}
	for _, t := range l.frames {
		t.Drop()
	}
	l.frames = nil
}

// broken is the end of the link; the next attempt follows after a pause.
func (l *link) broken(err error) {
	if l.closed {
		return
	}
	c := l.client
	w := c.w
	if err == nil {
		err = io.EOF
	}
	w.trace("client %x: %v", c.dev.id[:2], err)
	l.shut()
	c.core.Broken(c.now(), err.Error())
	if limit := w.plan.set.failAfter; c.core.Overdue(c.now(), limit) {
		c.fail("the peer was gone for too long")
		return
	}
	c.core.Pause(c.now())
	wait := c.retry.Wait(l.wasUp, w.now-l.began, func(d time.Duration) time.Duration { return time.Duration(w.under64(int64(d))) })
	w.after(wait, c.dial)
}

// keep is the keepalive of a link that is up.
func (l *link) keep() {
	c := l.client
	set := &c.w.plan.set
	c.w.after(set.keepalive, func() {
		if l.closed {
			return
		}
		if l.silent++; l.heard {
			l.silent = 0
		}
		if !l.sent {
			l.say(frame(&abi.Header{Cmd: abi.MsgPing, ID: 1}, nil))
		}
		l.heard, l.sent = false, false
		switch {
		case l.silent >= missed:
			l.broken(fmt.Errorf("no sign of life: %w", unix.ETIMEDOUT))
		case set.request > 0 && c.core.Oldest(c.now()) > set.request:
			l.broken(fmt.Errorf("a request is not answered: %w", unix.ETIMEDOUT))
		default:
			l.keep()
		}
	})
}

// age flushes what nobody has flushed for too long.
func (l *link) age() {
	c := l.client
	age := c.w.plan.set.logAge
	c.w.after(max(age/2, 10*time.Millisecond), func() {
		if !l.closed {
			c.core.Tick(c.now(), age)
			c.kick()
			l.age()
		}
	})
}
