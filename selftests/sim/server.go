package main

import (
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/export"
)

// server is one process of the export's daemon: the shell of a shipped
// export.Core. What the daemon does with goroutines and locks it does with
// events.
type server struct {
	w        *world
	core     *export.Core
	disk     *disk
	sessions []*session
	jobs     []*job
	saves    []*session // who waits for his tenure to be durable
	pulling  bool
	skew     time.Duration // its clock is so far ahead
	dead     bool
}

// startServer is a new process with the store that is there.
func startServer(w *world) *server {
	d := w.disk
	s := &server{w: w, disk: d, skew: w.exportSkew}
	set := &w.plan.set
	s.core = export.NewCore(export.CoreConfig{Name: "x", Shared: set.shared, Stable: set.stable, Keepalive: set.keepalive,
		Rand: dice{w, w.harm.is(keepVerifier)}, Tenure: d.tenure, Last: d.last})
	harmExport(s.core, w.harm)
	w.heard, w.lost, w.gone = w.now, w.now, true
	if w.rival != nil && d.last == w.rival.id {
		w.won()
	}
	return s
}

// dice are the random bytes of a core: never the same twice, unless stuck.
type dice struct {
	w     *world
	stuck bool
}

func (d dice) Read(b []byte) (int, error) {
	d.w.drawn++
	r := rand.New(rand.NewPCG(d.w.plan.seed, 1000+d.w.drawn))
	if d.stuck {
		r = rand.New(rand.NewPCG(d.w.plan.seed, 1000))
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

func (s *server) now() time.Time { return epoch.Add(s.w.now + s.skew) }

// accept takes a new connection.
func (s *server) accept(c *wire) {
	n := &session{server: s, wire: c, born: s.w.now}
	c.pipes[up].to = n
	s.w.after(handshakeTime, func() {
		if n.phase < phaseWait {
			n.hangUp()
		}
	})
}

// kill ends the process: what it asked of the store may have happened, its
// sockets are closed by its host.
func (s *server) kill(host bool) {
	s.dead = true
	for _, j := range s.jobs {
		s.disk.abandon(j)
	}
	for _, n := range s.sessions {
		n.phase = phaseGone
	}
	for _, c := range s.w.wires {
		switch {
		case host:
			c.vanish(down)
		case c.pipes[up].to != nil:
			c.crop(down)
			c.close(up)
		}
	}
	s.w.wires = s.w.wires[:0]
}

// run starts an operation of the store.
func (s *server) run(j *job) {
	s.jobs = append(s.jobs, j)
	if j.req != nil {
		j.req.session.busy++
	}
	s.disk.begin(j, func() {
		for i := range s.jobs {
			if s.jobs[i] == j {
				s.jobs = append(s.jobs[:i], s.jobs[i+1:]...)
				break
			}
		}
		s.ended(j)
	})
}

// ended is an operation of the store done.
func (s *server) ended(j *job) {
	r := j.req
	switch {
	case r == nil:
		s.synced(j.errno)
		s.pull()
		return
	case r.kind == export.KindRead:
		if !r.session.deaf() {
			r.answer(j.errno, r.session.seat.Verifier)
		}
	default:
		turn := s.core.End(&r.Op, j.errno, r.kind == export.KindWrite && s.w.plan.set.fua)
		if turn == export.Never {
			r.conclude()
		}
		s.carryOut()
		s.pull()
	}
	r.session.busy--
	r.session.parse()
}

// synced answers all who waited for a flush of the store.
func (s *server) synced(errno unix.Errno) {
	if errno != 0 {
		s.disk.drop()
		if s.w.harm.is(ignoreSync) {
			errno = 0
		}
	}
	for op := s.core.Synced(errno); op != nil; {
		r := op.Owner.(*request)
		op = op.Follow()
		s.core.Settle(&r.Op)
		r.conclude()
	}
	s.carryOut()
}

// pull runs ops whose turn has come, each when a worker gets to it.
func (s *server) pull() {
	if s.pulling || s.dead {
		return
	}
	s.pulling = true
	s.w.after(s.w.hiccup(), func() {
		s.pulling = false
		if s.dead {
			return
		}
		op, turn := s.core.Next()
		switch {
		case op == nil:
			return
		case turn != export.Now:
			op.Owner.(*request).conclude()
		case op.Kind == export.KindSync:
			s.run(&job{op: op})
		default:
			s.run(&job{op: op, req: op.Owner.(*request)})
		}
		s.pull()
	})
}

// carryOut does what the core wants done.
func (s *server) carryOut() {
	for s.core.Active() {
		for _, a := range s.core.Actions() {
			n := a.Seat.Owner.(*session)
			switch a.Kind {
			case export.Cut:
				n.cut(a.Parting)
			case export.Ask:
				n.ask()
			case export.Wake:
				s.w.after(s.w.hiccup(), n.poll)
			}
		}
	}
}

// request is one request of a client at the export.
type request struct {
	export.Op
	session *session
	h       abi.Header
	kind    export.Kind
	data    []byte
	length  uint32
}

func (r *request) sector() int { return int(r.h.Sector) }

// parse makes the request of a received header.
func (r *request) parse() {
	r.length = r.h.Size
	switch r.h.Cmd {
	case abi.MsgIO:
		r.kind = export.KindRead
		if r.h.RW&abi.RWWrite != 0 {
			r.kind, r.length = export.KindWrite, r.h.Payload()
		}
	case abi.MsgFlush:
		r.kind, r.length = export.KindFlush, 0
	case abi.MsgDiscard:
		r.kind = export.KindDiscard
	case abi.MsgWriteZeroes:
		r.kind = export.KindZero
	}
	r.Op = export.Op{Kind: r.kind, Off: r.h.Sector * sectorSize, Len: uint64(r.length), Durable: r.h.Flags&abi.FlagFUA != 0, Owner: r}
}

// conclude sends the answer that the core decided.
func (r *request) conclude() {
	switch {
	case r.Reply() == export.ReplyError:
		r.answer(r.Err, r.Verifier())
	case r.Reply() == export.ReplyDone && !r.session.deaf():
		r.answer(0, r.Verifier())
	}
}

func (r *request) answer(errno unix.Errno, v abi.Verifier) {
	h := abi.Header{Cmd: abi.MsgIOResponse, Reserved: uint32(errno), ID: r.h.ID, Sector: r.h.Sector}
	h.SetVerifier(v)
	var data []byte
	set := &r.session.server.w.plan.set
	switch {
	case errno != 0:
	case r.kind == export.KindRead:
		data = r.data
	case set.stable || set.shared || r.Durable:
		h.Reserved |= abi.Stable
	}
	r.session.send(&h, data)
}

const digest = crypt.DigestCRC32C

// frame is h, sealed, with data behind it.
func frame(h *abi.Header, data []byte) []byte {
	size := abi.HeaderSize + digest.Size()
	b := make([]byte, size, size+len(data))
	h.CSize = uint32(digest.Size())
	h.Size = h.CSize + uint32(len(data))
	h.Put(b)
	digest.Seal(b, data)
	return append(b, data...)
}
