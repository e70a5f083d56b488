package genl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what clients can make the server hold.
const (
	maxLines    = 64      // ports with requests in work
	maxQueued   = 256     // requests of one port
	maxQueuedSz = 1 << 20 // bytes of them
)

// How a client that does not read is waited for.
const (
	firstWait = 50 * time.Microsecond // then doubled
	maxWait   = 20 * time.Millisecond
	patience  = 5 * time.Second // for one datagram
)

// job is one admitted request.
type job struct {
	head   header
	family *Family
	op     Op
	msg    []byte // the whole message; a copy once it is queued
	port   uint32
	cred   unix.Ucred
}

// line is the queue of one port. It exists, with its goroutine, as long as
// there are requests in it. Guarded by Server.mu, but for deaf.
type line struct {
	jobs    []*job
	bytes   int
	dumping bool // a dump is queued or running
	deaf    bool // did not read the last answer: no more waiting until it does; the goroutine's own
}

// enqueue puts j behind the other requests of its port.
// Errors: EBUSY beyond a bound, or if a dump of this port is not finished; ESHUTDOWN.
func (s *Server) enqueue(j *job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lines[j.port]
	switch {
	case s.closed:
		return fmt.Errorf("the daemon is stopping: %w", unix.ESHUTDOWN)
	case !ok && len(s.lines) >= maxLines:
		return fmt.Errorf("%d clients have requests in work, try again: %w", maxLines, unix.EBUSY)
	case ok && isDump(j.head) && l.dumping:
		return fmt.Errorf("the last dump of this socket is not finished: %w", unix.EBUSY)
	case ok && (len(l.jobs) >= maxQueued || l.bytes+len(j.msg) > maxQueuedSz):
		return fmt.Errorf("too many requests of this socket are waiting, read the answers first: %w", unix.EBUSY)
	}
	if !ok {
		l = &line{}
		s.lines[j.port] = l
		s.wg.Add(1)
		go s.work(j.port, l)
	}
	j.msg = bytes.Clone(j.msg)
	l.jobs = append(l.jobs, j)
	l.bytes += len(j.msg)
	l.dumping = l.dumping || isDump(j.head)
	s.requests.Add(1)
	return nil
}

// next takes the oldest request of l; without one it removes l and returns nil.
func (s *Server) next(port uint32, l *line) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.jobs) == 0 {
		delete(s.lines, port)
		return nil
	}
	j := l.jobs[0]
	l.jobs[0] = nil
	l.jobs = l.jobs[1:]
	l.bytes -= len(j.msg)
	return j
}

// work handles the requests of one port.
// Started by enqueue for the first request of a port. Owns the line's turn.
// Ends when the line is empty.
func (s *Server) work(port uint32, l *line) {
	defer s.wg.Done()
	for j := s.next(port, l); j != nil; j = s.next(port, l) {
		s.handle(l, j)
		clear(j.msg)
	}
}

// handle answers one request.
func (s *Server) handle(l *line, j *job) {
	ctx, cancel := context.WithTimeout(s.ctx, j.family.Limit)
	defer cancel()
	r := &Request{
		Cmd: j.msg[headerLen], Dump: isDump(j.head), Raw: j.msg[attrsAt:],
		Cred: j.cred, Port: j.port, Seq: j.head.seq, ctx: ctx,
	}
	if r.Dump {
		s.dump(l, j, r)
		return
	}
	out := &reply{j: j}
	r.out = out
	if e := r.refusal(s.do(j, r)); e != nil {
		_ = s.send(s.ctx, l, j.port, ack(j.head, j.port, e))
		return
	}
	for _, b := range out.sent {
		_ = s.send(s.ctx, l, j.port, b)
	}
	if j.head.flag&unix.NLM_F_ACK != 0 {
		_ = s.send(s.ctx, l, j.port, ack(j.head, j.port, nil))
	}
}

// do decodes the request wholly and then runs its handler.
func (s *Server) do(j *job, r *Request) (err error) {
	if s.ctx.Err() != nil {
		return fmt.Errorf("the daemon is stopping: %w", unix.ESHUTDOWN)
	}
	if r.Attrs, err = j.op.Policy.Parse(j.msg, attrsAt); err != nil {
		return err
	}
	for _, t := range j.op.Need {
		if !r.Attrs.Has(t) {
			return j.op.Policy.missing(t)
		}
	}
	return j.op.Do(r)
}

// reply keeps the answers of a Do until its handler has succeeded.
type reply struct {
	j    *job
	sent [][]byte
}

func (a *reply) add(attrs []byte) error {
	a.sent = append(a.sent, a.j.answer(nil, 0, attrs))
	return nil
}

// answer appends a message of the family that answers j.
func (j *job) answer(b []byte, flag uint16, attrs []byte) []byte {
	cmd := j.op.Reply
	if cmd == 0 {
		cmd = j.msg[headerLen]
	}
	h := header{typ: j.head.typ, flag: flag, seq: j.head.seq, port: j.port}
	return appendGeneric(b, h, cmd, j.family.Version, attrs)
}

// send sends b to a client, waiting while its receive buffer is full: at most
// patience, until ctx ends, and not at all for one that has been waited for in
// vain. Errors: EAGAIN if it does not read, ECONNREFUSED if it is gone.
func (s *Server) send(ctx context.Context, l *line, port uint32, b []byte) error {
	var waited time.Duration
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := s.conn.Send(port, b)
		if !errors.Is(err, unix.EAGAIN) {
			l.deaf = err != nil
			return err
		}
		if l.deaf || waited >= patience {
			l.deaf = true
			return err
		}
		select {
		case <-time.After(wait):
			waited += wait
		case <-ctx.Done():
			l.deaf = true
			return err
		}
	}
}
