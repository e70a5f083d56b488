package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/remote"
	"dst/dataplane/trans"
)

// maxSize is the largest request in bytes: more than one record of a log has to
// be written again in pieces.
const maxSize = 4096

// device is one attachment: what a client's host remembers of it while daemons
// come and go.
type device struct {
	w      *world
	id     abi.ID
	page   []byte
	mem    []byte // of the log
	heap   *heap
	proc   *client // nil: no daemon runs
	steal  bool
	dead   bool   // its host is lost, or it was removed
	known  bool   // it has been served
	taken  bool   // another has had its place since
	told   bool   // and it hears so
	failed bool   // its users were told EIO for good
	open   []*ask // of users, unanswered
	tenure abi.ID // that it was granted, for the harm of not comparing it
}

// newDevice attaches a device for the first time.
func newDevice(w *world) *device {
	set := &w.plan.set
	d := &device{w: w, id: abi.ID{byte(len(w.attached) + 1), 0xC}, page: make([]byte, remote.SavedSize),
		mem: make([]byte, trans.LogSize(set.depth+remote.OwnDepth, set.records)), heap: newHeap(set.pages)}
	w.attached = append(w.attached, d)
	return d
}

// client is one process of the client's daemon: the shell of a shipped
// remote.Core, and the front between it and the users.
type client struct {
	w       *world
	dev     *device
	core    *remote.Core
	log     *trans.Log
	reserve *trans.Reserve
	link    *link
	retry   remote.Retry
	queue   []*ask // waits for an element, first in first out
	filed   []*ask // by element
	skew    time.Duration
	retries bool
	dead    bool
}

// start is a new process for the device.
func (d *device) start() {
	set := &d.w.plan.set
	c := &client{w: d.w, dev: d, skew: d.w.clientSkew}
	var err error
	if c.log, err = trans.OpenLog(d.mem, set.depth+remote.OwnDepth, set.records, d.id); err != nil {
		d.w.blame("the log of a device is damaged: %v", err)
		return
	}
	d.heap.restart(c.log.Kept())
	d.heap.freed = c.room
	c.log.Adopt(d.heap)
	c.reserve = trans.NewReserve(set.depth, remote.OwnDepth, d.heap)
	c.filed = make([]*ask, c.reserve.Depth())
	c.core, err = remote.NewCore(&remote.Config{Export: "x", MaxSize: maxSize, Depth: uint32(set.depth), Keepalive: set.keepalive,
		Digest: digest, Page: d.page, Memory: trans.NewMemory(c.log, set.pages*4096), ClientID: d.id,
		Resent: set.resent && !d.w.harm.is(noGhosts)}, c.reserve, c.push, c.now())
	if err != nil {
		d.w.blame("the page of a device is damaged: %v", err)
		return
	}
	harmRemote(c.core, c.log, d.w.harm)
	d.proc = c
	if c.core.Failed() != d.failed {
		d.w.blame("a device that has failed for good serves again, or one fails that has not")
	}
	if !d.failed {
		c.dial()
	}
}

func (c *client) now() time.Time { return epoch.Add(c.w.now + c.skew) }

// room is called when payload memory is given back.
func (c *client) room() {
	if len(c.queue) == 0 || c.retries || c.dead {
		return
	}
	c.retries = true
	c.w.after(0, func() {
		if c.retries = false; !c.dead {
			c.take()
		}
	})
}

// submit takes a request of a user.
func (c *client) submit(a *ask) {
	c.queue = append(c.queue, a)
	c.take()
}

// take files the requests for which there is room, in their order.
func (c *client) take() {
	for len(c.queue) > 0 {
		a := c.queue[0]
		length := uint32(a.n * sectorSize)
		t := c.reserve.TryGet(a.op, length)
		if t == nil {
			if c.reserve.InUse() < c.w.plan.set.depth {
				c.dev.heap.waiting = true
				c.core.Relieve(c.now())
				c.kick()
			}
			return
		}
		c.dev.heap.waiting = false
		c.queue = c.queue[1:]
		t.Front, t.Flags, t.Offset = c, a.flags, uint64(a.from*sectorSize)
		if a.op == trans.Write {
			for i, v := range a.values {
				stamp(t.Data[i*sectorSize:][:sectorSize], v, storeName, a.from+i)
			}
		}
		c.filed[t.Slot()] = a
		t.Seal(digest)
		if !c.core.Submit(t, c.now()) {
			c.Complete(t)
		}
		c.kick()
	}
}

// Complete implements trans.Front: the kernel is told.
func (c *client) Complete(t *trans.Trans) {
	a := c.filed[t.Slot()]
	c.filed[t.Slot()] = nil
	c.w.answered(a, t.Err, t.Data)
	c.reserve.Put(t)
	c.room()
}

// Flush implements trans.Front.
func (c *client) Flush() {}

// fail ends the device's service for good.
func (c *client) fail(why string) {
	c.w.trace("client %x: failed: %s", c.dev.id[:2], why)
	c.dev.failed = true
	for _, t := range c.core.Fail(c.now(), why) {
		t.Drop()
	}
	c.room()
	c.w.failed(c.dev, why)
}

// kill ends the process: what it had written to its socket is sent by its host
// unless that is lost too.
func (c *client) kill(host bool) {
	c.dead = true
	c.dev.proc = nil
	if l := c.link; l != nil {
		l.closed = true
		switch {
		case l.wire == nil:
		case host:
			l.wire.vanish(up)
		default:
			if d := c.w.under(2); d == 0 {
				l.wire.crop(up) // some of it may still have been in the process
			}
			l.wire.close(down)
		}
	}
}

// dial begins a connection attempt.
func (c *client) dial() {
	if c.dead {
		return
	}
	w := c.w
	c.core.Dial(c.now(), "")
	l := &link{client: c, began: w.now}
	c.link = l
	w.after(w.latency(), func() {
		switch {
		case l.closed:
		case w.holes[up] > w.now || w.holes[down] > w.now || w.exportOff:
			l.expect(dialTimeout-w.plan.set.net, "no connection")
		case w.server == nil:
			l.broken(fmt.Errorf("no connection: %w", unix.ECONNREFUSED))
		default:
			l.connected()
		}
	})
}

// push is the core's send.
func (c *client) push(t *trans.Trans) {
	if l := c.link; l == nil || !l.attached || l.closed {
		t.Drop()
	} else {
		l.frames = append(l.frames, t)
	}
}

// kick lets what was pushed leave.
func (c *client) kick() {
	if l := c.link; l != nil && l.attached && !l.leaving && len(l.frames) > 0 {
		l.leaving = true
		c.w.after(c.w.hiccup(), l.leave)
	}
}
