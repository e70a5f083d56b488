package export

import (
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// tell sends one frame of the handshake.
func tell(st conn.Stream, cmd abi.Msg, attrs func([]byte) []byte) error {
	frame := make([]byte, abi.HeaderSize+helloDigest.Size(), abi.HeaderSize+helloDigest.Size()+abi.TLVMax)
	head := frame
	if attrs != nil {
		frame = attrs(frame)
	}
	h := abi.Header{Cmd: cmd, CSize: uint32(helloDigest.Size()), Size: uint32(len(frame) - abi.HeaderSize)}
	h.Put(head)
	helloDigest.Seal(head, frame[len(head):])
	if err := st.SetWriteDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	_, err := st.Write(frame)
	return err
}

// welcome is a client's way from its HELLO to its session, or to a refusal. It
// returns when the session is over; settled is called as soon as the client has a
// seat: seats have a limit of their own, and who waits long for a stuck disk shall
// not keep those out that want another one.
func (n *Node) welcome(st conn.Stream, who caller, h *abi.Hello, settled func()) {
	defer settled()
	if !n.enter() {
		turnAway(st, who, noAccess(), n)
		return
	}
	defer n.wg.Done()
	s := &session{node: n, stream: st, who: who, hello: *h, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	err := s.agree()
	if err == nil {
		err = s.admit(settled)
	}
	if err == nil {
		err = n.open(s)
	}
	if err != nil {
		s.abandon(err)
		return
	}
	s.crew.pass()
	s.keep()
}

// agree settles digest and limits with the client. Errors: *abi.Refuse.
func (s *session) agree() error {
	n, h := s.node, &s.hello
	if s.digest = crypt.DigestNone; !s.who.proven() {
		s.digest = crypt.Digest(n.digest.Load())
	}
	if n.allow(s.who)&abi.PermRead == 0 {
		return noAccess()
	}
	if h.Digest != s.digest.Name() {
		return &abi.Refuse{Code: abi.RefuseDigest, Errno: unix.EINVAL,
			Text: fmt.Sprintf("the digest here is %s: set the same hash at both ends", s.digest.Name())}
	}
	s.depth, s.maxSize = n.cfg.Depth, n.cfg.MaxPages*mempool.PageSize
	if h.Depth != 0 {
		s.depth = min(s.depth, h.Depth)
	}
	if h.MaxSize != 0 {
		s.maxSize = min(s.maxSize, h.MaxSize)
	}
	s.maxSize -= s.maxSize % max(n.disk.Geometry.BlockMin, mempool.PageSize)
	if s.maxSize == 0 {
		return &abi.Refuse{Code: abi.RefuseMalformed, Errno: unix.EINVAL,
			Text: fmt.Sprintf("requests of at least %d bytes are needed: raise max-pages", max(n.disk.Geometry.BlockMin, mempool.PageSize))}
	}
	return nil
}

// abandon gives back what a client got that is not served after all, and tells it
// why.
func (s *session) abandon(why error) {
	n := s.node
	if s.seat != nil {
		n.leave(s, false)
		n.forget(s)
	}
	turnAway(s.stream, s.who, why, n)
	if s.live.Load() {
		s.out.Close()
		s.release()
	}
}

// admit gets the client its place, its memory and its tenure. Errors: *abi.Refuse,
// or that it has gone.
func (s *session) admit(settled func()) error {
	n := s.node
	if refusal := n.seat(s); refusal != nil {
		return refusal
	}
	settled()
	if err := s.await(); err != nil {
		return err
	}
	if err := s.provide(); err != nil {
		return &abi.Refuse{Code: abi.RefuseLimit, Errno: unix.ENOMEM, Text: cut("no memory for another client: " + err.Error())}
	}
	return s.settle()
}

// await polls the core until the client has its place. Meanwhile DRAINING tells
// it once each keepalive that it is not forgotten.
func (s *session) await() error {
	interval := s.patience()
	beat := time.NewTicker(interval)
	defer beat.Stop()
	for {
		v, refusal, at := s.node.poll(s)
		switch v {
		case Granted:
			return nil
		case Refused:
			return refusal
		}
		wait := time.Duration(math.MaxInt64)
		if v == Asking {
			wait = time.Until(at)
		}
		due := time.NewTimer(wait)
		select {
		case <-s.wake:
		case <-due.C:
		case <-beat.C:
			if err := tell(s.stream, abi.MsgDraining, nil); err != nil {
				due.Stop()
				return err
			}
		}
		due.Stop()
	}
}

// drainingMax is the longest silence towards a waiting client: it gives up
// after handshakeTime of it, whatever its keepalive, and would only come again.
const drainingMax = handshakeTime / 4

// patience is how often the waiting client hears of us.
func (s *session) patience() time.Duration {
	interval := s.node.interval()
	if ms := s.hello.Keepalive; ms != 0 {
		interval = min(interval, max(time.Duration(ms)*time.Millisecond, 10*time.Millisecond))
	}
	return min(interval, drainingMax)
}

// settle makes the client's tenure durable, however long that takes the disk.
func (s *session) settle() error {
	done := make(chan error, 1)
	// Started here. Owns nothing. Ends when the disk has answered.
	go func() { done <- s.node.settle(s) }()
	beat := time.NewTicker(s.patience())
	defer beat.Stop()
	var gone error
	for {
		select {
		case err := <-done:
			if gone != nil {
				return gone
			}
			return err
		case <-beat.C:
			if gone == nil {
				gone = tell(s.stream, abi.MsgDraining, nil)
				s.left.Store(gone != nil)
			}
		}
	}
}

// cut shortens a sentence to what a REFUSE holds.
func cut(text string) string { return text[:min(len(text), abi.TextMax)] }

// welcomeOf is what the session was granted, and remembers that. Node.mu is
// held.
func (s *session) welcomeOf(tenure abi.ID) *abi.Welcome {
	n := s.node
	g := &n.disk.Geometry
	s.size, s.promised = n.size, n.interval()
	w := &abi.Welcome{
		Epoch: s.seat.Epoch, Mode: s.seat.Perm, Features: g.features(),
		Keepalive: uint32(s.promised.Milliseconds()), MaxSize: s.maxSize, Depth: s.depth,
		Tenure: tenure, Verifier: s.seat.Verifier, StoreID: n.disk.Identity.ID,
		Size: n.size, BlockMin: g.BlockMin, BlockPref: g.BlockPref,
	}
	if n.stable {
		w.Features |= abi.FeatureStable
	}
	return w
}

// leave gives the seat of s back: for good after its client's good-bye.
func (n *Node) leave(s *session, bye bool) {
	n.mu.Lock()
	if bye {
		n.core.Bye(s.seat)
	} else {
		n.core.Leave(s.seat)
	}
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
}

// forget is the end of s.
func (n *Node) forget(s *session) {
	n.mu.Lock()
	n.sessions = slices.DeleteFunc(n.sessions, func(o *session) bool { return o == s })
	n.mu.Unlock()
}
