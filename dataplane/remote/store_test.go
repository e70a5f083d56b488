package remote

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"dst/abi"
)

const (
	sectors = 64 // of the model's device
	sector  = abi.SectorSize
)

// cell is what a sector holds: the number of the change that wrote it (0 for
// zeroes) and when that was executed.
type cell struct{ value, at uint64 }

// store is the model's export: it executes what it is sent late and in its own
// order, answers late, loses connections at the worst points, restarts, and
// promises exactly what the contract makes it promise.
type store struct {
	*peer
	fence    bool // as the contract says; without it the model must find ghosts
	stable   bool // every answer is STABLE
	restarts int  // how many are left

	mu      sync.Mutex
	rng     *rand.Rand
	session int // the newest connection
	running int // changes that are being executed
	clock   uint64
	cells   [sectors]cell
	durable [sectors]cell
	pending map[int]cell // answered since and not flushed, newest of each sector
	bad     error        // the first promise that the node broke
	calm    bool         // no more trouble
}

// chance is true once in n times.
func (s *store) chance(n int) bool { return s.under(n) == 0 }

// under is random and below n.
func (s *store) under(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// pause lasts up to 20 ms, seldom half a second.
func (s *store) pause() {
	d := time.Duration(s.under(20)) * time.Millisecond
	if s.chance(50) {
		d = 500 * time.Millisecond
	}
	time.Sleep(d)
}

func (s *store) blame(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad == nil {
		s.bad = fmt.Errorf(format, args...)
	}
}

// channel is one connection of the store.
type channel struct {
	*line
	n        int
	mute     bool              // a black hole: nothing arrives any more, either way
	inFlight map[uint64]extent // changes that are not answered
}

// extent is a range of sectors.
type extent struct{ from, to uint64 }

// serve is a peer.play.
func (s *store) serve(l *line) bool {
	c := &channel{line: l, inFlight: map[uint64]extent{}}
	hello, err := s.meet(l)
	if err != nil {
		return true
	}
	if s.admit(c) != nil {
		return true
	}
	s.peer.mu.Lock()
	w := s.welcome
	s.peer.mu.Unlock()
	w.Epoch = hello.Epoch
	w.Depth = uint32(1 + s.under(16))
	if l.send(abi.Header{Cmd: abi.MsgWelcome}, w.Append(nil), crc) != nil {
		return true
	}
	for {
		h, data, err := l.recv(digestNow())
		switch {
		case err != nil:
			return true
		case h.Cmd == abi.MsgPing:
			_ = l.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil, digestNow())
		case h.Cmd == abi.MsgBye:
			return true
		case h.Cmd != abi.MsgPong:
			s.arrive(c, h, data)
		}
		if s.trouble(100) {
			s.mu.Lock()
			c.mute = true
			s.mu.Unlock()
			_, _ = io.Copy(io.Discard, l)
			return true
		}
	}
}

// admit is the fence: what the old connection has not started is dropped, what
// it has started is waited for.
func (s *store) admit(c *channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session++
	c.n = s.session
	for s.fence && s.running > 0 {
		s.mu.Unlock()
		err := c.send(abi.Header{Cmd: abi.MsgDraining}, nil, crc)
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// trouble is whether something bad happens now, once in n times.
func (s *store) trouble(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.calm && s.rng.IntN(n) == 0
}

// arrive takes a request in and does it later.
func (s *store) arrive(c *channel, h abi.Header, data []byte) {
	n := uint64(len(data))
	if h.Cmd != abi.MsgIO || h.RW == 0 {
		n = uint64(h.Size)
	}
	r := extent{h.Sector, h.Sector + n/sector}
	change := h.Cmd != abi.MsgFlush && (h.Cmd != abi.MsgIO || h.RW != 0)
	var covered map[int]cell
	s.mu.Lock()
	if change {
		for id, o := range c.inFlight {
			if o.from < r.to && r.from < o.to && s.bad == nil {
				s.bad = fmt.Errorf("request %x changes %v while %x changes %v", h.ID, r, id, o)
			}
		}
		c.inFlight[h.ID] = r
	}
	if h.Cmd == abi.MsgFlush {
		covered = make(map[int]cell, len(s.pending))
		for i, x := range s.pending {
			covered[i] = x
		}
	}
	s.mu.Unlock()
	s.serving.Go(func() {
		s.pause()
		if s.trouble(60) {
			c.Close()
		}
		answer, ok := s.execute(c, &h, r, data, covered)
		if !ok {
			return
		}
		if s.trouble(60) {
			c.Close()
		}
		s.pause()
		s.reply(c, &h, r, answer, change)
	})
}

// execute does the request unless a newer connection has fenced it off.
func (s *store) execute(c *channel, h *abi.Header, r extent, data []byte, covered map[int]cell) (answer []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fence && c.n != s.session {
		return nil, false
	}
	switch {
	case h.Cmd == abi.MsgFlush:
		for i, x := range covered {
			s.harden(i, x)
		}
	case h.Cmd == abi.MsgIO && h.RW == 0:
		for i := r.from; i < r.to; i++ {
			answer = append(answer, stamp(s.cells[i].value, i)...)
		}
	default:
		s.change(h, r, data)
	}
	return answer, true
}

// change writes, in two steps with a pause between them. READs see it from now
// on, also what is made durable only before its answer. Called with the lock.
func (s *store) change(h *abi.Header, r extent, data []byte) {
	s.running++
	half := r.from + (r.to-r.from)/2
	for i := r.from; i < r.to; i++ {
		if i == half {
			s.mu.Unlock()
			s.pause()
			s.mu.Lock()
		}
		s.clock++
		x := cell{at: s.clock}
		if h.Cmd == abi.MsgIO {
			x.value = value(data[(i-r.from)*sector:])
		}
		s.cells[i] = x
	}
	s.running--
}

// harden makes x durable unless something newer is. Called with the lock.
func (s *store) harden(i int, x cell) {
	if x.at > s.durable[i].at {
		s.durable[i] = x
	}
	if p := s.pending[i]; p.at <= x.at {
		delete(s.pending, i)
	}
}

// reply answers, or does half of it. What was asked for with FUA is durable now.
func (s *store) reply(c *channel, h *abi.Header, r extent, answer []byte, change bool) {
	s.mu.Lock()
	if c.mute || c.n != s.session {
		s.mu.Unlock()
		return
	}
	delete(c.inFlight, h.ID)
	for i := r.from; change && i < r.to; i++ {
		s.pending[int(i)] = s.cells[i]
		if h.Flags&abi.FlagFUA != 0 || s.stable {
			s.harden(int(i), s.cells[i])
		}
	}
	a := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, CSize: csizeNow(), Size: csizeNow() + uint32(len(answer))}
	if s.stable {
		a.Reserved = abi.Stable
	}
	s.mu.Unlock()
	s.peer.mu.Lock()
	a.SetVerifier(s.welcome.Verifier)
	s.peer.mu.Unlock()
	b := frame(a, answer, digestNow())
	if s.trouble(60) {
		_, _ = c.Write(b[:s.under(len(b))])
		c.Close()
		return
	}
	_, _ = c.Write(b)
	if h.Cmd == abi.MsgFlush && s.trouble(3) || s.trouble(40) {
		s.restart(c)
	}
}

// restart is the export's host crashing: what was not durable is lost, and the
// verifier tells.
func (s *store) restart(c *channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restarts == 0 || s.running > 0 || c.n != s.session {
		return
	}
	s.restarts--
	s.session++ // nobody's: what was on its way is lost
	s.cells = s.durable
	clear(s.pending)
	s.peer.set(func(p *peer) { p.welcome.Verifier[8]++ })
	c.Close()
}

// stamp is the content of sector i after the change number v; zeroes for 0.
func stamp(v, i uint64) []byte {
	b := make([]byte, sector)
	if v == 0 {
		return b
	}
	for at := 0; at < sector; at += 16 {
		putPair(b[at:], v, i)
	}
	return b
}

// filled is the content of the change v of length sectors from from.
func filled(v, from, length uint64) (b []byte) {
	for i := range length {
		b = append(b, stamp(v, from+i)...)
	}
	return b
}
