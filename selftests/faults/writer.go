package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"dst/selftests/faults/history"
)

const (
	largest = 128 // sectors of a request
	redial  = 5 * time.Millisecond
)

// load is writers at the socket of a remote, and what they have seen.
type load struct {
	h           *history.History
	sock, name  string
	size        uint64 // sectors
	depth       int
	gap         time.Duration // between bursts, on average
	stop        chan struct{}
	wg          sync.WaitGroup
	writers     []*writer
	answers     atomic.Uint64
	errs        atomic.Uint64 // answers that were errors
	mu          sync.Mutex
	firstErrors []string
}

// writer is one NBD client that comes back whenever its connection ends.
type writer struct {
	l      *load
	number int
	rnd    *rand.Rand
	n      uint64 // changes so far

	sessions atomic.Uint64 // connections that have had an answer
	answered atomic.Int64  // when the newest one had its first, Unix ns
}

// slot is one request in flight.
type slot struct {
	op   *history.Op
	kind uint16
	data []byte
}

// newLoad is writers of a device that is all zeroes: it is made so.
func newLoad(sock, name string, writers, depth int, gap time.Duration, seed uint64) (*load, error) {
	c, err := dialNBD(sock, name)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	if err := c.erase(); err != nil {
		return nil, err
	}
	l := &load{sock: sock, name: name, size: c.size / history.Sector, depth: depth, gap: gap, stop: make(chan struct{})}
	l.h = history.New(l.size)
	for i := range writers {
		l.writers = append(l.writers, &writer{l: l, number: i, rnd: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	return l, nil
}

func (l *load) start() {
	for _, w := range l.writers {
		l.wg.Go(w.run)
	}
}

// end lets what is in flight end; false if it does not within a time.
func (l *load) end(limit time.Duration) bool {
	close(l.stop)
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// run is a client, through all its connections.
// Started by load.start. Owns its connections. Ends when the load is stopped and all is answered.
func (w *writer) run() {
	for !w.l.stopped() {
		c, err := dialNBD(w.l.sock, w.l.name)
		if err != nil {
			time.Sleep(redial)
			continue
		}
		w.session(c)
	}
}

// session is one connection: a sender and a receiver with depth slots between them.
func (w *writer) session(c *nbd) {
	slots := make([]slot, w.l.depth)
	free, dead := make(chan int, w.l.depth), make(chan struct{})
	for i := range slots {
		slots[i].data = make([]byte, largest*history.Sector)
		free <- i
	}
	go func() { defer close(dead); w.receive(c, slots, free) }()
	if w.send(c, slots, free, dead) {
		for range slots { // all of them back: all is answered
			select {
			case <-free:
			case <-dead:
			}
		}
		_ = c.send(0, nbdDisc, 0, 0, 0, nil)
		_ = c.out.Flush()
	}
	c.conn.Close()
	<-dead
	for i := range slots {
		if slots[i].op != nil {
			w.conclude(&slots[i], history.Unknown)
		}
	}
}

// send sends bursts until the connection ends, or, which is true, the load is stopped.
func (w *writer) send(c *nbd, slots []slot, free <-chan int, dead <-chan struct{}) bool {
	for {
		for range 16 + w.rnd.IntN(80) {
			var i int
			select {
			case i = <-free:
			default:
				if c.out.Flush() != nil {
					return false
				}
				select {
				case i = <-free:
				case <-dead:
					return false
				}
			}
			if w.l.stopped() {
				return w.giveBack(slots, i, c)
			}
			if w.request(c, &slots[i], uint64(i)) != nil {
				return false
			}
		}
		if c.out.Flush() != nil {
			return false
		}
		select {
		case <-time.After(time.Duration(w.rnd.Int64N(2*int64(w.l.gap) + 1))):
		case <-w.l.stop:
		case <-dead:
			return false
		}
	}
}

// giveBack ends sending, with slot i free and in hand: a last flush takes it.
func (w *writer) giveBack(slots []slot, i int, c *nbd) bool {
	s := &slots[i]
	s.kind, s.op = nbdFlush, w.l.h.Begin("flush", false, 0, 0, 0)
	return c.send(0, nbdFlush, uint64(i), 0, 0, nil) == nil && c.out.Flush() == nil
}

// request makes up a request and queues it.
func (w *writer) request(c *nbd, s *slot, cookie uint64) error {
	h, r := w.l.h, w.rnd
	n := min(uint64(1)<<r.IntN(8), largest)
	lba := r.Uint64N(w.l.size - n + 1)
	if r.IntN(3) == 0 { // many meet there
		lba = r.Uint64N(256)
	}
	var flags uint16
	data := []byte(nil)
	switch k := r.IntN(100); {
	case k < 45:
		w.n++
		id := history.MakeID(w.number, w.n)
		data = s.data[:n*history.Sector]
		for i := range n {
			history.Stamp(data[i*history.Sector:], lba+i, id)
		}
		name := "write"
		if r.IntN(12) == 0 {
			flags, name = nbdFUA, "FUA write"
		}
		s.kind, s.op = nbdWrite, h.Begin(name, true, id, lba, n)
	case k < 80:
		s.kind, s.op = nbdRead, h.Begin("read", false, 0, lba, n)
	case k < 90:
		if r.IntN(2) == 0 {
			flags = nbdNoHole
		}
		s.kind, s.op = nbdZeroes, h.Begin("zero", true, 0, lba, n)
	case k < 96: // on a file that is a hole: zeroes
		s.kind, s.op = nbdTrim, h.Begin("trim", true, 0, lba, n)
	default:
		s.kind, s.op, lba, n = nbdFlush, h.Begin("flush", false, 0, 0, 0), 0, 0
	}
	return c.send(flags, s.kind, cookie, lba*history.Sector, uint32(n*history.Sector), data)
}

// receive takes answers until the connection ends.
func (w *writer) receive(c *nbd, slots []slot, free chan<- int) {
	first := true
	for {
		cookie, errno, err := c.receive()
		if err != nil {
			return
		}
		if cookie >= uint64(len(slots)) || slots[cookie].op == nil {
			w.l.h.Complain(fmt.Sprintf("an answer to nothing (cookie %d)", cookie))
			return
		}
		s := &slots[cookie]
		if s.kind == nbdRead && errno == 0 {
			if _, err := io.ReadFull(c.in, s.data[:s.op.N*history.Sector]); err != nil {
				return
			}
		}
		w.l.answers.Add(1)
		if first {
			first = false
			w.answered.Store(time.Now().UnixNano())
			w.sessions.Add(1)
		}
		outcome := history.Done
		if errno != 0 {
			outcome = history.Failed
			w.l.failed(fmt.Sprintf("writer %d: %s of %d sectors at %d: %v", w.number, s.op.Kind, s.op.N, s.op.LBA, errno))
		}
		w.conclude(s, outcome)
		free <- int(cookie)
	}
}

// conclude tells the history what came of a request.
func (w *writer) conclude(s *slot, o history.Outcome) {
	switch s.kind {
	case nbdRead:
		w.l.h.Found(s.op, o, s.data)
	case nbdFlush:
		w.l.h.Flushed(s.op, o)
	default:
		w.l.h.Changed(s.op, o)
	}
	s.op = nil
}

// failed notes an answer that is an error.
func (l *load) failed(what string) {
	l.errs.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.firstErrors) < 10 {
		l.firstErrors = append(l.firstErrors, what)
	}
}

// readAll reads the whole device and lets the history judge it.
func (l *load) readAll() error {
	c, err := dialNBD(l.sock, l.name)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	_ = c.conn.SetDeadline(time.Now().Add(time.Minute))
	b := make([]byte, largest*history.Sector)
	for lba := uint64(0); lba < l.size; lba += largest {
		n := min(largest, l.size-lba)
		op := l.h.Begin("last read", false, 0, lba, n)
		if err := c.send(0, nbdRead, lba, lba*history.Sector, uint32(n*history.Sector), nil); err != nil {
			return err
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		_, errno, err := c.receive()
		switch {
		case err != nil:
			return err
		case errno != 0:
			return errno
		}
		if _, err := io.ReadFull(c.in, b[:n*history.Sector]); err != nil {
			return err
		}
		l.h.Found(op, history.Done, b)
	}
	return nil
}
