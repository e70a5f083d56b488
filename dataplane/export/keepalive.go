package export

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/mempool"
)

// missed is after how many keepalive intervals without life a peer is dead.
const missed = 3

// pingFrame is the one PING of ours that can be on its way.
type pingFrame struct {
	frame conn.Frame
	busy  atomic.Bool
	id    uint64 // owned by whoever made it busy
}

// Sent is conn.Sender's.
func (p *pingFrame) Sent(*conn.Frame, error) { p.busy.Store(false) }

// sendPing sends a PING unless one is on its way.
func (s *session) sendPing() {
	p := &s.ping
	if !p.busy.CompareAndSwap(false, true) {
		return
	}
	p.id++
	size := uint32(s.digest.Size())
	h := abi.Header{Cmd: abi.MsgPing, ID: p.id, Size: size, CSize: size}
	f := &p.frame
	f.Owner, f.Head = p, f.Room[:abi.HeaderSize+s.digest.Size()]
	h.Put(f.Head)
	s.digest.Seal(f.Head, nil)
	if !s.out.Push(f) {
		p.busy.Store(false)
		return
	}
	s.out.Flush()
}

// ask finds out whether the client lives, for another who wants its place.
// Who is not being read, because its requests wait for the store or for
// memory, cannot show it, and counts as alive; whose session has ended does not:
// it is about to leave.
func (s *session) ask() {
	switch {
	case s.dead.Load():
		return
	case s.blind():
		s.node.alive(s)
		return
	}
	s.before.Store(s.in.Frames())
	s.asked.Store(true)
	s.sendPing()
}

// lives tells whether a client that was asked has shown life since, or could not:
// parts of a large request on a slow line are life too.
func (s *session) lives() bool {
	return s.blind() || s.asked.Load() && s.in.Frames() != s.before.Load()
}

// blind tells whether the client could not be heard now.
func (s *session) blind() bool { return !s.live.Load() || !s.reading.Load() }

// keep watches over a session and clears up behind it.
// Started as the rest of the handshake's goroutine (Ports.greet). Owns the
// pulse. Ends when the last element of the session is back.
func (s *session) keep() {
	interval := s.interval()
	ticker, tidy := time.NewTicker(interval/conn.Looks), time.NewTicker(tidyTime)
	defer ticker.Stop()
	defer tidy.Stop()
	var parting <-chan time.Time
	var p conn.Pulse
	for open := true; open; {
		select {
		case <-s.stop:
			open = false
		case <-s.wake:
			if s.dead.Load() && parting == nil {
				parting = time.After(partingTime)
			}
			if d := s.interval(); d != interval {
				interval, p = d, conn.Pulse{}
				ticker.Reset(d / conn.Looks)
				s.sendPing()
			}
		case <-parting:
			s.end(errParted)
		case <-ticker.C:
			s.look(&p, interval)
		case <-tidy.C:
			s.crew.trim()
			s.arena.Trim()
		}
	}
	s.close()
}

// tidyTime is how often a session gives back what it has not needed since:
// a worker, and memory that it was lent.
const tidyTime = time.Second

// interval is how long the client hears nothing at most: what its WELCOME said,
// or less if that was configured since.
func (s *session) interval() time.Duration { return min(s.promised, s.node.interval()) }

// partingTime is how long a client may stay that was told of an error of the
// store: enough for that answer to arrive, and no keepalive of an hour can make
// the end of the export wait for it.
const partingTime = time.Second

// errParted is a client that was told of an error of the store and stayed.
var errParted = errors.New("the store failed")

// look sends a PING when one is due, and breaks the connection of a client that
// shows no life although it is listened to, or that takes nothing although there
// is something for it.
func (s *session) look(p *conn.Pulse, interval time.Duration) {
	if err := s.out.Err(); err != nil {
		s.end(err)
		return
	}
	ping, pending := p.Look(s.out.Progress(), s.in.Frames()), s.out.Pending()
	if !s.reading.Load() {
		p.Silent = 0
	}
	dead := p.Silent
	switch {
	case pending:
		dead = max(dead, p.Idle)
	case ping:
		s.sendPing()
	}
	s.impatient(time.Duration(dead) * interval / conn.Looks)
}

// impatient ends a session whose client has been dead for that long.
func (s *session) impatient(dead time.Duration) {
	patience := missed * max(s.node.interval(), time.Duration(s.hello.Keepalive)*time.Millisecond)
	if dead >= patience {
		s.end(fmt.Errorf("no sign of life for %v: %w", patience, unix.ETIMEDOUT))
	}
}

// close gives back all that the session has. Its place is free at once for
// whoever waits, but for the changes that the store is still doing.
func (s *session) close() {
	n := s.node
	n.leave(s, errors.Is(s.why, errBye))
	s.out.Close()
	s.crew.close()
	for range s.reserve.Len() {
		s.reserve.Get(nil) // the last one comes back when the store is done
	}
	s.release()
	n.ended(s)
	n.forget(s)
}

// provide reserves the session's memory. Errors: ENOMEM.
func (s *session) provide() (err error) {
	n := s.node
	if err = n.env.Budget.Reserve(s.buffers()); err != nil {
		return err
	}
	guaranteed := max(arenaGuaranteed, int(s.maxSize))
	if secure, ok := s.stream.(*conn.Secure); ok {
		err = secure.Ready()
	}
	if err == nil {
		s.buffer, err = mempool.Pages(inBuffer)
	}
	if err == nil {
		s.arena, err = mempool.NewArena(n.env.Budget, guaranteed, max(guaranteed, int(n.cfg.Arena)), int(s.maxSize))
	}
	if err != nil {
		s.release()
		return fmt.Errorf("memory of a session: %w", err)
	}
	// One more than may be in flight is at the reader, one answers a PING.
	s.reserve = mempool.New(int(s.depth)+2, func(_ int, r *request) {
		r.s, r.Owner, r.frame.Owner = s, r, r
	})
	s.in, s.out = conn.NewIn(s.stream, s.buffer), conn.NewOut(s.stream)
	s.crew.work = s.serve
	s.crew.setLimit(n.workers())
	s.live.Store(true)
	return nil
}

// release gives the memory back.
func (s *session) release() {
	if s.arena != nil {
		_ = s.arena.Close() // munmap of what was mapped
	}
	if s.buffer != nil {
		mempool.FreePages(s.buffer)
	}
	s.node.env.Budget.Release(s.buffers())
}

// buffers is the bytes of memory that a session has besides its arena.
func (s *session) buffers() int64 {
	if s.who.proven() {
		return inBuffer + secureBuffers
	}
	return inBuffer
}
