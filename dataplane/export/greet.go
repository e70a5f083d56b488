package export

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// handshakeTime is what a client has from connecting to the end of its HELLO,
// and for taking each of our answers.
const handshakeTime = 5 * time.Second

// helloDigest seals all frames of the handshake but CFG.
const helloDigest = crypt.DigestCRC32C

// greet is a client's connection, from the first byte to the end of its session.
// Started by receive. Owns the connection. Ends with it.
func (at *port) greet(st conn.Stream, who caller) {
	settled := func() { at.ports.leave(st) }
	defer settled()
	defer st.Close()
	deadline := time.Now().Add(handshakeTime)
	err := errors.Join(st.SetReadDeadline(deadline), st.SetWriteDeadline(deadline))
	var h abi.Hello
	link := st
	switch keyed := at.keyed(); {
	case err != nil:
	case keyed:
		var s *conn.Secure
		if s, err = at.prove(st, &who); err == nil {
			defer s.Free()
			link = s
			err = readHello(link, &h)
		}
	default:
		if err = mark(st); err == nil {
			err = readHello(link, &h)
		}
	}
	if err == nil {
		err = st.SetReadDeadline(time.Time{})
	}
	var n *Node
	if err == nil {
		if n = at.pick(h.Export); n == nil {
			err = noAccess()
		}
	}
	if err == nil {
		n.welcome(link, who, &h, settled)
		return
	}
	if at.ports.ousted(st) {
		err = errCrowded
	}
	turnAway(link, who, err, at.exports()...)
}

// dismiss tells a client why it is not served, if it can be told. One with a key
// that may not know whether an export exists learns as much as one without: nothing.
func dismiss(st conn.Stream, who caller, err error) {
	var r *abi.Refuse
	if errors.As(err, &r) && (!who.proven() || r.Code != abi.RefuseNoAccess) {
		_ = tell(st, abi.MsgRefuse, r.Append) // it may have gone
	}
}

// keyed tells whether clients have to prove a key here.
func (at *port) keyed() bool {
	for _, n := range at.exports() {
		if served, keyed := n.secure(); served && keyed {
			return true
		}
	}
	return false
}

// key is the key of that id of an export here, nil if none has it.
func (at *port) key(id abi.KeyID) *crypt.Key {
	for _, n := range at.exports() {
		if k := n.key(id); k != nil {
			return k
		}
	}
	return nil
}

// prove makes a secure channel with a client, who has a key then. That it lives
// only its first record shows: whatever was sent until then may be a recording.
// Errors: *strangerError, and those of st.
func (at *port) prove(st conn.Stream, who *caller) (*conn.Secure, error) {
	why := &strangerError{why: "the client does not begin as one that has a key: give it a key of this export"}
	s, k, err := conn.Respond(st, func(id abi.KeyID) *crypt.Key {
		k := at.key(id)
		if why.id, why.why = id, "the client has an unknown key: compare key files and names of algorithms"; k != nil {
			why.why = "the client names a key that it does not have"
		}
		return k
	}, at.pool)
	switch {
	case errors.Is(err, crypt.ErrRefused):
		why.err = err
		return nil, why
	case err != nil:
		return nil, err
	}
	who.key = k.ID()
	return s, nil
}

// strangerError is a client that could not prove a key. Logs show the id that it
// named, which is no secret and which anybody can say.
type strangerError struct {
	why string
	id  abi.KeyID // zero: it named none
	err error
}

func (e *strangerError) Error() string {
	if e.id == (abi.KeyID{}) {
		return e.why
	}
	return fmt.Sprintf("%s (key id %v)", e.why, e.id)
}

func (e *strangerError) Unwrap() error { return e.err }

// mark exchanges the marks in CFG, by which ends that speak in clear know each
// other.
func mark(st conn.Stream) error {
	var head [abi.HeaderSize]byte
	if _, err := io.ReadFull(st, head[:]); err != nil {
		return err
	}
	if _, err := crypt.MessageSize(head[:crypt.HandshakeHead]); err == nil {
		return fmt.Errorf("the client has a key and this export none: give it the same with `dstctl crypto set`: %w", unix.EACCES)
	}
	var h abi.Header
	h.Parse(head[:])
	if err := h.Check(0, 0); err != nil {
		return err
	}
	if h.Cmd != abi.MsgCFG || h.Flags != abi.MarkHello {
		return fmt.Errorf("the client does not speak this protocol (an original dst of 2009 is not served): %w", unix.EPROTO)
	}
	mark := abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkWelcome, ID: h.ID}
	mark.Put(head[:])
	_, err := st.Write(head[:])
	return err
}

// readHello reads the HELLO, exactly: nothing that follows is taken from the
// stream. Errors: *abi.Refuse is for the client to be told; on others there is
// nobody to talk to.
func readHello(st conn.Stream, h *abi.Hello) error {
	var buf [abi.HeaderSize + abi.DigestMax + abi.HelloMax]byte
	csize := helloDigest.Size()
	head := buf[:abi.HeaderSize+csize]
	if _, err := io.ReadFull(st, head); err != nil {
		return err
	}
	var frame abi.Header
	frame.Parse(head)
	if err := frame.Check(uint32(csize), abi.HelloMax); err != nil {
		return err
	}
	if frame.Cmd != abi.MsgHello {
		return fmt.Errorf("the client sent %v where HELLO was due: %w", frame.Cmd, unix.EPROTO)
	}
	attrs := buf[len(head) : len(head)+int(frame.Payload())]
	if _, err := io.ReadFull(st, attrs); err != nil {
		return err
	}
	if err := helloDigest.Check(head, attrs); err != nil {
		return err
	}
	return h.Parse(attrs)
}
