package main

import (
	"io"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/export"
)

const (
	handshakeTime = 5 * time.Second // of both ends: for each step
	drainingMax   = handshakeTime / 4
	partingTime   = time.Second
	missed        = 3
)

type sessionPhase uint8

const (
	phaseMark sessionPhase = iota
	phaseHello
	phaseWait // for its place
	phaseSave // its tenure becomes durable
	phaseOpen
	phaseGone
)

// session is one connection at the export.
type session struct {
	server *server
	wire   *wire
	phase  sessionPhase
	seat   *export.Seat
	hello  abi.Hello
	in     []byte
	born   time.Duration
	busy   int // of its workers
	eof    bool
	dead   bool // cut: nothing is started or answered any more
	asked  bool
	heard  bool // since the last beat
	silent int
	pieces int // that came
	before int // when it was asked
}

// receive implements end.
func (n *session) receive(b []byte) {
	n.in = append(n.in, b...)
	n.heard = true
	n.pieces++
	n.server.w.hears(n, false)
	n.parse()
}

// gone implements end.
func (n *session) gone(error) {
	n.eof = true
	n.parse()
}

// parse takes what has come, as far as somebody is there to do it.
func (n *session) parse() {
	for n.phase != phaseGone {
		took, err := 0, error(nil)
		switch n.phase {
		case phaseMark:
			took, err = n.mark()
		case phaseHello:
			took, err = n.greet()
		case phaseOpen:
			if n.busy >= n.server.w.plan.set.workers {
				return
			}
			took, err = n.request()
		}
		switch {
		case err != nil, took == 0 && n.eof && (n.phase == phaseOpen || n.phase < phaseWait):
			if n.seat != nil && n.seat.Open() {
				n.server.w.hears(n, true)
			}
			n.end()
			return
		case took == 0:
			return
		}
		if n.in = n.in[took:]; n.asked && n.phase == phaseOpen && !n.dead {
			n.asked = false
			n.server.core.Alive(n.seat)
			n.server.carryOut()
		}
	}
}

func (n *session) mark() (int, error) {
	if len(n.in) < abi.HeaderSize {
		return 0, nil
	}
	var h abi.Header
	h.Parse(n.in)
	if err := h.Check(0, 0); err != nil || h.Cmd != abi.MsgCFG || h.Flags != abi.MarkHello {
		return 0, unix.EPROTO
	}
	b := make([]byte, abi.HeaderSize)
	h = abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkWelcome, ID: h.ID}
	h.Put(b)
	n.wire.send(down, b)
	n.phase = phaseHello
	return abi.HeaderSize, nil
}

func (n *session) greet() (int, error) {
	size := abi.HeaderSize + digest.Size()
	if len(n.in) < size {
		return 0, nil
	}
	var h abi.Header
	h.Parse(n.in)
	if err := h.Check(uint32(digest.Size()), abi.HelloMax); err != nil || h.Cmd != abi.MsgHello {
		return 0, unix.EPROTO
	}
	total := size + int(h.Payload())
	if len(n.in) < total {
		return 0, nil
	}
	if err := digest.Check(n.in[:size], n.in[size:total]); err != nil {
		return 0, err
	}
	if err := n.hello.Parse(n.in[size:total]); err != nil {
		return 0, err
	}
	s := n.server
	seat, refusal := s.core.Hello(&n.hello, abi.PermRW, n)
	s.carryOut()
	if refusal != nil {
		n.refuse(refusal)
		return 0, unix.ESTALE
	}
	n.seat, n.phase = seat, phaseWait
	s.sessions = append(s.sessions, n)
	n.poll()
	n.drain()
	return total, nil
}

func (n *session) refuse(r *abi.Refuse) {
	n.wire.send(down, frame(&abi.Header{Cmd: abi.MsgRefuse}, r.Append(nil)))
}

// drain tells a waiting client that it is not forgotten.
func (n *session) drain() {
	n.server.w.after(min(n.server.w.plan.set.keepalive, drainingMax), func() {
		switch {
		case n.phase != phaseWait && n.phase != phaseSave:
		case n.eof:
			n.end() // the socket tells when it is written to
		default:
			n.wire.send(down, frame(&abi.Header{Cmd: abi.MsgDraining}, nil))
			n.drain()
		}
	})
}

// poll looks whether the client can have its place.
func (n *session) poll() {
	s := n.server
	if n.phase != phaseWait || s.dead {
		return
	}
	if o := n.seat.Asked(); o != nil && o.Owner.(*session).lives() {
		s.core.Alive(o)
	}
	v, refusal, at := s.core.Poll(n.seat, s.now())
	s.carryOut()
	switch v {
	case export.Granted:
		n.settle()
	case export.Refused:
		n.refuse(refusal)
		n.end()
	case export.Asking:
		s.w.after(at.Sub(s.now()), n.poll)
	}
}

func (n *session) open(tenure abi.ID) {
	s := n.server
	set := &s.w.plan.set
	w := abi.Welcome{Epoch: n.seat.Epoch, Mode: n.seat.Perm, Features: abi.FeatureFlush | abi.FeatureFUA | abi.FeatureDiscard | abi.FeatureWriteZeroes,
		Keepalive: uint32(set.keepalive.Milliseconds()), MaxSize: maxSize, Depth: uint32(set.window), Tenure: tenure,
		Verifier: n.seat.Verifier, StoreID: s.disk.id, Size: uint64(len(s.disk.sectors)) * sectorSize, BlockMin: sectorSize, BlockPref: sectorSize}
	n.wire.send(down, frame(&abi.Header{Cmd: abi.MsgWelcome}, w.Append(nil)))
	n.phase = phaseOpen
	s.w.hears(n, false)
	s.w.opened(n.seat.ID)
	s.w.trace("export: client %x served, epoch %d", n.seat.ID[:2], n.seat.Epoch)
	n.beat()
	n.parse()
}

// request takes one frame of an open session.
func (n *session) request() (int, error) {
	size := abi.HeaderSize + digest.Size()
	if len(n.in) < size {
		return 0, nil
	}
	r := &request{session: n}
	r.h.Parse(n.in)
	if err := r.h.Check(uint32(digest.Size()), maxSize); err != nil {
		return 0, err
	}
	total := size + int(r.h.Payload())
	if len(n.in) < total {
		return 0, nil
	}
	if err := digest.Check(n.in[:size], n.in[size:total]); err != nil {
		return 0, err
	}
	switch r.h.Cmd {
	case abi.MsgPing:
		n.send(&abi.Header{Cmd: abi.MsgPong, ID: r.h.ID}, nil)
		return total, nil
	case abi.MsgPong:
		return total, nil
	case abi.MsgBye:
		return 0, io.EOF
	case abi.MsgIO, abi.MsgFlush, abi.MsgDiscard, abi.MsgWriteZeroes:
	default:
		return 0, unix.EPROTO
	}
	if n.deaf() {
		return total, nil
	}
	r.parse()
	r.data = append([]byte(nil), n.in[size:total]...)
	n.begin(r)
	return total, nil
}

func (n *session) begin(r *request) {
	s := n.server
	if r.kind == export.KindRead {
		r.data = make([]byte, r.length)
		s.run(&job{req: r})
		return
	}
	switch s.core.Begin(n.seat, &r.Op) {
	case export.Now:
		s.run(&job{op: &r.Op, req: r})
	case export.Never:
		r.conclude()
	}
	s.carryOut()
	s.pull()
}

func (n *session) send(h *abi.Header, data []byte) { n.wire.send(down, frame(h, data)) }

// deaf tells whether requests are neither begun nor answered with success.
func (n *session) deaf() bool { return n.dead && !n.server.w.harm.is(noFence|readOn) }

// blind tells whether the client could not be heard now.
func (n *session) blind() bool {
	return n.phase < phaseOpen || n.busy >= n.server.w.plan.set.workers
}

// lives tells whether the client has shown life since it was asked, or could not.
func (n *session) lives() bool { return n.blind() || n.asked && n.pieces != n.before }

// ask finds out whether the client lives.
func (n *session) ask() {
	switch {
	case n.dead || n.phase == phaseGone:
	case n.blind():
		n.server.core.Alive(n.seat)
	default:
		n.asked, n.before = true, n.pieces
		n.send(&abi.Header{Cmd: abi.MsgPing, ID: 1}, nil)
	}
}

// cut is the core's: at once, or when the last answer had time to leave.
func (n *session) cut(parting bool) {
	n.dead = true
	switch {
	case n.phase != phaseOpen || n.server.w.harm.is(noFence|readOn):
	case parting:
		n.server.w.after(partingTime, n.end)
	default:
		n.end()
	}
}

// end breaks the connection; the session's place is free a moment later.
func (n *session) end() {
	if n.phase == phaseGone {
		return
	}
	n.dead, n.phase = true, phaseGone
	n.hangUp()
	s := n.server
	if n.seat == nil {
		return
	}
	s.w.after(s.w.hiccup(), func() {
		if !s.dead {
			s.core.Leave(n.seat)
			s.carryOut()
		}
	})
}

func (n *session) hangUp() {
	n.wire.close(up)
	s := n.server
	for i, c := range s.w.wires {
		if c == n.wire {
			s.w.wires = append(s.w.wires[:i], s.w.wires[i+1:]...)
			break
		}
	}
}

// beat sends a PING and counts silence, once each keepalive.
func (n *session) beat() {
	n.server.w.after(n.server.w.plan.set.keepalive, func() {
		if n.phase != phaseOpen || n.server.dead {
			return
		}
		n.send(&abi.Header{Cmd: abi.MsgPing, ID: 2}, nil)
		if n.silent++; n.heard || n.blind() {
			n.silent = 0
		}
		n.heard = false
		if n.silent >= missed {
			n.end()
			return
		}
		n.beat()
	})
}
