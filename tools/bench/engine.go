package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"
)

// depthMax bounds the requests in flight: their heads fit any socket's buffer, so that the client never waits to send while the
// server waits for it to receive.
const depthMax = 1024

// receiveSize is the engine's receive buffer, bytes.
const receiveSize = 1 << 20

// job is what an engine is to do.
type job struct {
	shape
	gen   int    // of what is written, or of what is expected
	area  uint64 // offsets are below it, bytes
	count uint64 // so many requests; 0: until the clock says so
	check bool   // compare what is read
	clock *clock // may be nil if count is not 0
}

// clock tells when a timed job begins to count and ends, and is told what happened between.
type clock struct {
	warm, time time.Duration
	begin, end func() error // called at the first and the last moment that counts
	latency    histogram
	elapsed    time.Duration
}

// slot is a request in flight; its index is the cookie.
type slot struct {
	sent   time.Duration // since the job began
	offset uint64
	busy   bool
}

// engine keeps requests of one job in flight on one connection. Not for concurrent use.
type engine struct {
	c *client
	p pattern

	job    job
	random *rand.Rand
	next   uint64 // offset of the next sequential request
	issued uint64
	slots  []slot
	free   []int
	heads  []byte
	queue  [][]byte // what the next write sends
	in     []byte
	held   int // bytes of in that are the beginning of a reply
	// The reply whose data is being received: its slot, and how much of it is still to come.
	slot, left int
}

func newEngine(c *client, p pattern) *engine {
	return &engine{c: c, p: p, in: make([]byte, receiveSize), random: rand.New(rand.NewPCG(1, 2))}
}

// run carries out a job; afterwards nothing is in flight. After an error the connection is of no use.
func (e *engine) run(j job) error {
	if j.depth < 1 || j.depth > depthMax || j.block < 1 || j.block > blockMax || uint64(j.block) > min(j.area, e.c.size) {
		return fmt.Errorf("%v below %d: %w", j.shape, j.area, unix.EINVAL)
	}
	e.job, e.next, e.issued = j, 0, 0
	e.slots = make([]slot, j.depth)
	e.heads = make([]byte, j.depth*requestSize)
	e.free = e.free[:0]
	for i := range j.depth {
		e.free = append(e.free, i)
	}
	start := time.Now()
	watch := stopwatch{clock: j.clock}
	for {
		now := time.Since(start)
		over, err := watch.look(now)
		if err != nil {
			return err
		}
		if !over {
			e.refill(now)
			if err := e.send(); err != nil {
				return err
			}
		}
		if len(e.free) == j.depth {
			return nil
		}
		n, err := e.c.read(e.in[e.held:])
		if err != nil {
			return err
		}
		var count *histogram
		if watch.counts {
			count = &j.clock.latency
		}
		if err := e.parse(e.in[:e.held+n], time.Since(start), count); err != nil {
			return err
		}
	}
}

// stopwatch is the state of a clock.
type stopwatch struct {
	*clock
	counts, over bool
	began        time.Duration
}

// look tells whether no more requests are to be issued.
func (w *stopwatch) look(now time.Duration) (over bool, err error) {
	switch {
	case w.clock == nil || w.over:
	case !w.counts && now >= w.warm:
		w.counts, w.began = true, now
		err = w.begin()
	case w.counts && now >= w.began+w.time:
		w.counts, w.over = false, true
		w.elapsed = now - w.began
		err = w.end()
	}
	return w.over, err
}

// refill queues requests until as many as the job wants are in flight.
func (e *engine) refill(now time.Duration) {
	j := &e.job
	for len(e.free) > 0 && (j.count == 0 || e.issued < j.count) {
		i := e.free[len(e.free)-1]
		e.free = e.free[:len(e.free)-1]
		s := &e.slots[i]
		s.sent, s.offset, s.busy = now, e.offset(), true
		r := request{protocol.TRANSMISSION_TYPE_REQUEST_READ, uint64(i), s.offset, uint32(j.block)}
		head := e.heads[i*requestSize:][:requestSize]
		e.queue = append(e.queue, head)
		if j.op == "write" {
			r.cmd = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
			e.queue = append(e.queue, e.p.at(s.offset, j.gen, j.block))
		}
		r.put(head)
		e.issued++
	}
}

// offset is where the next request goes.
func (e *engine) offset() uint64 {
	block := uint64(e.job.block)
	blocks := e.job.area / block
	if e.job.random {
		return e.random.Uint64N(blocks) * block
	}
	at := e.next % blocks * block
	e.next++
	return at
}

// send writes what is queued, at once.
func (e *engine) send() error {
	err := e.c.write(e.queue)
	clear(e.queue)
	e.queue = e.queue[:0]
	return err
}

// parse takes all replies in b, which begins where the engine's buffer does, and keeps what is left of it.
func (e *engine) parse(b []byte, now time.Duration, count *histogram) error {
	for {
		if e.left > 0 {
			n := min(e.left, len(b))
			if err := e.data(b[:n]); err != nil {
				return err
			}
			b = b[n:]
			if e.left -= n; e.left > 0 {
				break
			}
			e.done(now, count)
		}
		if len(b) < replySize {
			break
		}
		if err := e.reply(b[:replySize]); err != nil {
			return err
		}
		b = b[replySize:]
		if e.left == 0 {
			e.done(now, count)
		}
	}
	e.held = copy(e.in, b)
	return nil
}

// reply takes the head of a simple reply.
func (e *engine) reply(b []byte) error {
	be := binary.BigEndian
	magic, errno, cookie := be.Uint32(b), be.Uint32(b[4:]), be.Uint64(b[8:])
	switch {
	case magic != protocol.TRANSMISSION_MAGIC_REPLY:
		return fmt.Errorf("the server sent no reply where one was due: %w", unix.EPROTO)
	case cookie >= uint64(len(e.slots)) || !e.slots[cookie].busy:
		return fmt.Errorf("the server replied to a request that is not in flight (%d): %w", cookie, unix.EPROTO)
	case errno != 0:
		return fmt.Errorf("a %s of %d bytes at %d failed: %w", e.job.op, e.job.block, e.slots[cookie].offset, unix.Errno(errno))
	}
	e.slot = int(cookie)
	if e.job.op == "read" {
		e.left = e.job.block
	}
	return nil
}

// data takes the next bytes of a read's reply.
func (e *engine) data(b []byte) error {
	if !e.job.check {
		return nil
	}
	offset := e.slots[e.slot].offset
	want := e.p.at(offset, e.job.gen, e.job.block)[e.job.block-e.left:]
	if !bytes.Equal(b, want[:len(b)]) {
		return fmt.Errorf("a read of %d bytes at %d brought what was not written there: %w", e.job.block, offset, unix.EBADMSG)
	}
	return nil
}

// done ends the request whose reply is complete.
func (e *engine) done(now time.Duration, count *histogram) {
	s := &e.slots[e.slot]
	s.busy = false
	e.free = append(e.free, e.slot)
	if count != nil {
		count.add(now - s.sent)
	}
}
