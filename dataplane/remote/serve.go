package remote

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

// inBuffer is the receive buffer of a link, in bytes: many small answers are
// taken by one system call.
const inBuffer = 256 << 10

// link is one connection to an export, from the dialled socket to its end.
type link struct {
	node     *Node
	stream   conn.Stream  // as dialled: for deadlines, and to close
	wire     conn.Stream  // what is spoken on: stream, or secure
	key      *crypt.Key   // nil: all is in clear
	secure   *conn.Secure // the channel made with key
	buf      []byte
	in       *conn.In
	out      *conn.Out
	digest   crypt.Digest
	limit    uint32 // data bytes of a frame at most
	peerKA   time.Duration
	promised time.Duration // our keepalive in HELLO
	head     [abi.HeaderSize + abi.DigestMax]byte
	heard    bool // the export has said something

	front trans.Front // owed a Flush
	ping  control
	pong  control

	why  sync.Once
	told error // why the link was closed by our own side, nil if by the peer
}

// newLink is a connection that was dialled, the present one of its node. It is
// spoken on with the key of this moment: another one breaks it (SetKey).
func newLink(n *Node, s conn.Stream) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = &link{node: n, stream: s, wire: s, key: n.key, digest: n.digestWith(n.key)}
	return n.link
}

// open makes the channel secure, if there is a key, and gets what it needs.
func (l *link) open() (err error) {
	if l.key != nil {
		if err = l.protect(); err != nil {
			return err
		}
	}
	if l.buf, err = mempool.Pages(inBuffer); err != nil {
		return err
	}
	l.in, l.out = conn.NewIn(l.wire, l.buf), conn.NewOut(l.wire)
	return nil
}

// free closes the link and gives its memory back; nobody reads any more.
func (l *link) free() {
	l.node.mu.Lock()
	l.node.link = nil
	l.node.mu.Unlock()
	l.stream.Close()
	if l.out != nil {
		l.out.Close()
		mempool.FreePages(l.buf)
	}
	if l.secure != nil {
		l.secure.Free()
	}
}

// reason is why the link ended before it served: what our own side said, else err.
func (l *link) reason(err error) error {
	l.why.Do(func() {})
	if l.told != nil {
		return l.told
	}
	return err
}

// adopt takes over what WELCOME said about the link.
func (l *link) adopt(w *abi.Welcome) {
	l.limit = min(l.node.cfg.MaxSize, w.MaxSize)
	l.peerKA = min(time.Duration(w.Keepalive)*time.Millisecond, keepaliveMax)
}

// abort closes the link from our side and remembers why.
func (l *link) abort(err error) {
	l.why.Do(func() { l.told = err })
	l.stream.Close()
}

// byeTimeout is how long a leaving client tries to say so.
const byeTimeout = 200 * time.Millisecond

// farewell is the BYE frame; it is closed when that has left.
type farewell struct {
	control
	sent chan struct{}
}

// Sent implements conn.Sender.
func (f *farewell) Sent(*conn.Frame, error) { close(f.sent) }

// leave closes the link because the node ends, removed or with its daemon.
func (l *link) leave() {
	l.abort(fmt.Errorf("%s: %w", ending, unix.ESHUTDOWN))
}

// part closes the link because the node ends: with a BYE, unless the next daemon
// of this host goes on.
func (l *link) part(cause error) {
	if cause != errStop {
		l.bye()
	}
	l.leave()
}

// bye tells the export that this client leaves for good.
func (l *link) bye() {
	f := farewell{sent: make(chan struct{})}
	f.seal(abi.Header{Cmd: abi.MsgBye}, l.digest)
	f.Owner = &f
	if l.out.Push(&f.Frame) {
		l.out.Flush()
		select {
		case <-f.sent:
		case <-time.After(byeTimeout):
		}
	}
}

// serve receives until the link breaks and says why it did.
func (l *link) serve() error {
	done := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() { l.keep(done) })
	err := l.receive()
	if errors.Is(err, crypt.ErrForged) {
		l.forged()
	}
	l.settle()
	l.why.Do(func() {}) // from here on told is constant
	close(done)
	l.stream.Close()
	keeper.Wait()
	switch broke := l.out.Err(); {
	case l.told != nil:
		return l.told
	case broke != nil: // what was received after that is only its consequence
		return fmt.Errorf("the peer takes nothing any more: %w", broke)
	}
	if err == io.EOF {
		err = fmt.Errorf("the peer closed the connection: %w", err)
	}
	return err
}

// receive takes frame after frame. Runs on the link's goroutine.
func (l *link) receive() error {
	size := abi.HeaderSize + l.digest.Size()
	var h abi.Header
	for {
		if l.in.Buffered() < size {
			l.settle()
		}
		b, err := l.in.Peek(size)
		if err != nil {
			return err
		}
		h.Parse(b)
		if err := h.Check(uint32(l.digest.Size()), l.limit); err != nil {
			return l.blame(err)
		}
		copy(l.head[:], b[:size])
		l.in.Skip(size)
		if h.Cmd == abi.MsgIOResponse {
			err = l.answer(&h)
		} else {
			err = l.keepalive(&h)
		}
		if err != nil {
			return err
		}
	}
}

// answer completes the transaction that h answers. Its payload goes straight
// to its place; if the link breaks in the middle the transaction is still
// filed and will be sent again.
func (l *link) answer(h *abi.Header) error {
	n := l.node
	n.mu.Lock()
	t, err := n.core.Expect(h)
	n.mu.Unlock()
	if err != nil {
		return l.blame(err)
	}
	var data []byte
	if payload := int(h.Payload()); payload > 0 {
		data = t.Data[:payload]
		if l.in.Buffered() < payload {
			l.settle()
		}
		if err := l.in.ReadFull(data); err != nil {
			return err
		}
	}
	if err := l.check(data); err != nil {
		return err
	}
	now := time.Now()
	n.mu.Lock()
	err = n.core.Done(t, h, now)
	established := !n.core.told
	n.mu.Unlock()
	if established {
		n.publish()
	}
	if front := t.Front; t.Drop() {
		if l.front != nil && l.front != front {
			l.front.Flush()
		}
		l.front = front
	}
	return err
}

// keepalive takes a frame that is not an answer.
func (l *link) keepalive(h *abi.Header) error {
	if err := l.check(nil); err != nil {
		return err
	}
	switch h.Cmd {
	case abi.MsgPing:
		if l.pong.free() {
			l.pong.seal(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, l.digest)
			l.pong.push(l.out)
		}
		return nil
	case abi.MsgPong:
		return nil
	}
	return l.blame(fmt.Errorf("the peer sent %v to a client: %w", h.Cmd, unix.EPROTO))
}

// check verifies the digest of the frame in head and data.
func (l *link) check(data []byte) error {
	err := l.digest.Check(l.head[:abi.HeaderSize+l.digest.Size()], data)
	if err != nil {
		l.node.mu.Lock()
		l.node.core.counters.DigestErrors++
		l.node.mu.Unlock()
	}
	return err
}

// forged counts what was not made with the key.
func (l *link) forged() {
	l.node.mu.Lock()
	l.node.core.counters.AuthErrors++
	l.node.mu.Unlock()
}

// blame counts an error that the peer made.
func (l *link) blame(err error) error {
	l.node.mu.Lock()
	l.node.core.counters.ProtocolErrors++
	l.node.mu.Unlock()
	return err
}

// settle ends a batch: fronts send their replies, and what the answers let go
// leaves.
func (l *link) settle() {
	if l.front != nil {
		l.front.Flush()
		l.front = nil
	}
	l.out.Flush()
}
