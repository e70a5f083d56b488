package genl

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// dumpSize is what a datagram of a dump is filled up to, in bytes: what every
// client's buffer has room for. A larger row goes alone.
const dumpSize = 8192

// rows is the answer of a Dump: the datagram being filled.
type rows struct {
	s    *Server
	ctx  context.Context
	l    *line
	j    *job
	buf  []byte
	sent bool  // a datagram has left
	lost error // why the reader was given up
}

// dump runs a Dump. A refusal is NLMSG_ERROR while nothing has left, and is
// told in NLMSG_DONE after that. A dump is not acknowledged: DONE says it all.
func (s *Server) dump(l *line, j *job, r *Request) {
	w := &rows{s: s, ctx: r.ctx, l: l, j: j}
	r.out = w
	err := s.doDump(j, r)
	if err == nil {
		err = w.lost
	}
	e := r.refusal(err)
	if e != nil && !w.sent {
		w.buf = ack(j.head, j.port, e)
	} else {
		w.buf = appendDone(w.buf, j.head, j.port, e)
	}
	// Before the end is sent: a client that has read it may ask for the next one.
	s.mu.Lock()
	l.dumping = false
	s.mu.Unlock()
	_ = s.send(s.ctx, l, j.port, w.buf)
}

func (s *Server) doDump(j *job, r *Request) (err error) {
	if s.ctx.Err() != nil {
		return fmt.Errorf("the daemon is stopping: %w", unix.ESHUTDOWN)
	}
	if r.Attrs, err = j.op.DumpPolicy.Parse(j.msg, attrsAt); err != nil {
		return err
	}
	return j.op.Dump(r)
}

func (w *rows) add(attrs []byte) error {
	if len(w.buf) > 0 && len(w.buf)+attrsAt+len(attrs) > dumpSize {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = w.j.answer(w.buf, unix.NLM_F_MULTI, attrs)
	return nil
}

// flush sends what is filled. Once the reader was given up nothing is tried again.
func (w *rows) flush() error {
	if w.lost == nil {
		w.lost = w.s.send(w.ctx, w.l, w.j.port, w.buf)
	}
	if w.lost != nil {
		return fmt.Errorf("the reader of the dump was given up: %w", w.lost)
	}
	w.buf, w.sent = w.buf[:0], true
	return nil
}
