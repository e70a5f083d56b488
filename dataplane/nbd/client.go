package nbd

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dst/dataplane/conn"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

// drainMax is the largest payload of an invalid WRITE that is read and thrown
// away to keep the stream in step, in bytes; beyond it the client is closed.
const drainMax = 64 << 20

// client is one connection. It is the Front of its transactions.
type client struct {
	dev    *Device
	stream conn.Stream
	in     *conn.In
	out    *conn.Out
	pid    int32          // of the process at the other end, 0 if unknown
	stop   chan struct{}  // closed by close: no transaction is taken any more
	once   sync.Once      // for stop
	away   sync.WaitGroup // transactions that are not back in the reserve

	// The reader's own: what it owes since its last kick, and whether the
	// client said that it leaves.
	submitted, answered, left bool

	held    atomic.Int64  // memory of the transactions that are away, see weight
	waits   atomic.Uint64 // odd while the reader waits for the reserve
	payload atomic.Bool   // the reader waits for the rest of a WRITE
	seen    struct {      // watch's own: what it saw at its last look, and for how many
		moved, waits   uint64
		stuck, starved int
	}
}

func newClient(d *Device, stream conn.Stream, buf []byte) *client {
	return &client{dev: d, stream: stream, in: conn.NewIn(stream, buf), out: conn.NewOut(stream), stop: make(chan struct{})}
}

// run is the client's life, until nothing of it is left.
func (c *client) run() {
	h := haggler{s: c.stream, in: c.in, name: c.dev.Name, info: c.dev.Info}
	err := h.run()
	if err == nil {
		err = c.transmit()
	}
	c.end(err)
}

// end waits until nothing of the client is left. An end that the client
// announced (DISC) or that may be a half-close (nil) waits for the answers to
// leave; any other closes at once.
func (c *client) end(err error) {
	c.kick()
	if err != nil {
		c.close(err)
	}
	c.away.Wait()
	c.out.Close()
}

// close ends the connection; what is in flight comes back through Complete.
// Any goroutine may call it, any number of times.
func (c *client) close(why error) {
	c.once.Do(func() { close(c.stop) })
	c.out.Break(why)
}

// transmit reads requests until the client ends (nil) or can not be followed
// any further.
func (c *client) transmit() error {
	var r request
	for {
		if c.in.Buffered() < requestSize {
			c.kick()
		}
		b, err := c.in.Peek(requestSize)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		ok := r.parse(b)
		c.in.Skip(requestSize)
		switch {
		case !ok:
			return fmt.Errorf("the client sent no request where one was due: %w", unix.EPROTO)
		case r.cmd == cmdDisc:
			c.left = true
			return nil
		}
		if err := c.take(&r); err != nil {
			return err
		}
	}
}

// take hands one request to the device, or answers it if it is not valid.
func (c *client) take(r *request) error {
	info := c.dev.Info()
	op, flags, errno := r.check(&info)
	if errno != 0 {
		return c.refuse(r, errno)
	}
	t, err := c.get(op, r)
	if err != nil {
		return err
	}
	t.Flags, t.Offset = flags, r.offset
	if op == trans.Write {
		c.expect(int(r.length))
		err := c.in.ReadFull(t.Data)
		c.payload.Store(false)
		if err != nil {
			c.put(t)
			return err
		}
	}
	c.submitted = true
	c.dev.Submit(t)
	return nil
}

// refuse answers an invalid request and leaves the stream in step.
func (c *client) refuse(r *request, errno unix.Errno) error {
	if n := r.payload(); n > drainMax {
		return fmt.Errorf("the client sent an invalid WRITE of %d bytes: %w", n, unix.EPROTO)
	} else if n > 0 {
		c.expect(int(n))
		err := c.in.Discard(int64(n))
		c.payload.Store(false)
		if err != nil {
			return err
		}
	}
	// The answer takes an element as every answer does: nobody can have more
	// of them unread than the reserve has.
	t, err := c.get(trans.Flush, r)
	if err != nil {
		return err
	}
	t.Err = errno
	c.answered = true
	c.Complete(t)
	return nil
}

// expect prepares for reading n bytes behind a request, which may wait.
func (c *client) expect(n int) {
	if c.in.Buffered() < n {
		c.kick()
		c.payload.Store(true)
	}
}

// get takes a transaction for r; if it must wait, then with nothing owed.
func (c *client) get(op trans.Op, r *request) (*trans.Trans, error) {
	length := r.length
	if op == trans.Flush {
		length = 0
	}
	t := c.dev.Reserve.TryGet(op, length)
	if t == nil {
		c.kick()
		c.waits.Add(1)
		var ok bool
		t, ok = c.dev.Reserve.Get(op, length, c.stop)
		c.waits.Add(1)
		if !ok {
			return nil, net.ErrClosed
		}
	}
	c.away.Add(1)
	c.held.Add(weight(t))
	t.Front, t.Cookie = c, r.cookie
	return t, nil
}

// kick pays what the reader owes before it may wait: the device is told to
// send, the client gets the answers that the reader itself gave.
func (c *client) kick() {
	if c.submitted {
		c.submitted = false
		c.dev.Kick()
	}
	if c.answered {
		c.answered = false
		c.out.Flush()
	}
}

// Complete queues the answer to t (trans.Front).
func (c *client) Complete(t *trans.Trans) {
	a := &t.Answer
	putReply(a.Room[:], t.Cookie, t.Err)
	a.Head, a.Data = a.Room[:replySize], nil
	if t.Op == trans.Read && t.Err == 0 {
		a.Data = t.Data
	}
	a.Owner = (*answer)(t)
	if !c.out.Push(a) {
		c.put(t)
	}
}

// Flush sends the answers queued by Complete (trans.Front).
func (c *client) Flush() { c.out.Flush() }

// answer is a Trans as the owner of its answer's frame.
type answer trans.Trans

// Sent is called when the answer has left, or can not any more (conn.Sender).
func (a *answer) Sent(*conn.Frame, error) {
	t := (*trans.Trans)(a)
	t.Front.(*client).put(t)
}

// weight is what t takes from others, in bytes: a transaction without payload
// takes its element.
func weight(t *trans.Trans) int64 {
	if t.Op == trans.Read || t.Op == trans.Write { // whose payload may be somebody else's by now
		return int64(max(mempool.PageSize, t.Length))
	}
	return mempool.PageSize
}

// put gives t back to its reserve: the end of its road.
func (c *client) put(t *trans.Trans) {
	c.held.Add(-weight(t))
	c.dev.Reserve.Put(t)
	c.away.Done()
}

// look is watch's look at a client: for how many looks in a row it has owed the
// server to take answers or to send a payload and moved nothing, and for how
// many it has waited in one and the same wait for the reserve.
func (c *client) look() (stuck, starved int) {
	w := &c.seen
	moved, waits := c.out.Progress()+c.in.Frames(), c.waits.Load()
	if moved == w.moved && (c.payload.Load() || c.out.Pending()) {
		w.stuck++
	} else {
		w.stuck = 0
	}
	if waits == w.waits && waits&1 == 1 {
		w.starved++
	} else {
		w.starved = 0
	}
	w.moved, w.waits = moved, waits
	return w.stuck, w.starved
}

// starves tells whether h may wait for what c, which does not move, holds: not
// if they are of one process, which is stopped as a whole and goes on as one.
func (c *client) starves(h *client) bool { return h.pid == 0 || h.pid != c.pid }
