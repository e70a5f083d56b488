package remote

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// greet speaks the handshake: the mark in CFG, which a secure channel does
// without, HELLO, then WELCOME or why not.
// It ends when the export is silent for handshakeTimeout; DRAINING counts as a
// sign of life (the fence waits for a slow disk, that is no reason to leave).
// Nothing else writes meanwhile.
func (l *link) greet(hello *abi.Hello) (*abi.Welcome, error) {
	if l.key == nil {
		if err := l.mark(); err != nil {
			return nil, err
		}
	}
	const digest = crypt.DigestCRC32C
	frame := make([]byte, abi.HeaderSize+digest.Size(), abi.HeaderSize+digest.Size()+abi.HelloMax)
	frame = hello.Append(frame)
	head, attrs := frame[:abi.HeaderSize+digest.Size()], frame[abi.HeaderSize+digest.Size():]
	h := abi.Header{Cmd: abi.MsgHello, Size: uint32(digest.Size() + len(attrs)), CSize: uint32(digest.Size())}
	h.Put(head)
	digest.Seal(head, attrs)
	if err := l.say(frame); err != nil {
		return nil, err
	}
	for {
		attrs, err := l.control(&h, digest)
		if err != nil {
			return nil, err
		}
		switch h.Cmd {
		case abi.MsgDraining:
			l.node.step(func(c *Core, _ time.Time) { c.draining = true })
			if limit := l.node.overdue(); limit > 0 {
				return nil, fmt.Errorf("the peer waits for requests of the old session: %w", unix.ETIMEDOUT)
			}
			continue
		case abi.MsgWelcome:
			w := new(abi.Welcome)
			if err := w.Parse(attrs); err != nil {
				return nil, err
			}
			l.relax()
			return w, nil
		case abi.MsgRefuse:
			var r abi.Refuse
			if err := r.Parse(attrs); err != nil {
				return nil, err
			}
			r.Text = printable(r.Text)
			return nil, fmt.Errorf("the peer refused: %w", &r)
		}
		return nil, fmt.Errorf("the peer answered the greeting with %v: %w", h.Cmd, unix.EPROTO)
	}
}

// mark exchanges the CFG frames that tell a new peer from an original one.
func (l *link) mark() error {
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	h := abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello, ID: binary.BigEndian.Uint64(nonce[:])}
	sent := h
	var b [abi.HeaderSize]byte
	h.Put(b[:])
	if err := l.say(b[:]); err != nil {
		return err
	}
	if _, err := l.control(&h, crypt.DigestNone); err != nil {
		return err
	}
	switch {
	case h.Cmd == abi.MsgCFG && h.ID == sent.ID && h.Flags == abi.MarkWelcome:
		return nil
	case h == sent:
		return fmt.Errorf("the peer is an original dst of 2009, which can neither report errors nor flush: run dstd there: %w", unix.EPROTONOSUPPORT)
	}
	return fmt.Errorf("the peer does not speak this protocol: is it a dstd, of this version?: %w", unix.EPROTO)
}

// say sends b, all of it, in handshakeTimeout.
func (l *link) say(b []byte) error {
	if err := l.stream.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return l.refused(err)
	}
	if _, err := l.wire.Write(b); err != nil {
		return l.refused(err)
	}
	return nil
}

// relax takes the handshake's deadlines back: from here on the keepalive
// judges. A stream that refuses is closed, the next use of it tells.
func (l *link) relax() {
	_ = l.stream.SetWriteDeadline(time.Time{})
	_ = l.stream.SetReadDeadline(time.Time{})
}

// control receives one frame of the handshake and gives its attributes, valid
// until the next receive.
func (l *link) control(h *abi.Header, digest crypt.Digest) ([]byte, error) {
	if err := l.stream.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, l.refused(err)
	}
	size := abi.HeaderSize + digest.Size()
	b, err := l.in.Peek(size)
	if err != nil {
		return nil, l.refused(err)
	}
	l.heard = true
	h.Parse(b)
	if err := h.Check(uint32(digest.Size()), abi.TLVMax); err != nil {
		return nil, err
	}
	if h.Cmd == abi.MsgIO || h.Cmd == abi.MsgDiscard || h.Cmd == abi.MsgWriteZeroes {
		return nil, fmt.Errorf("the peer sent %v in the handshake: %w", h.Cmd, unix.EPROTO)
	}
	total := size + int(h.Payload())
	if b, err = l.in.Peek(total); err != nil {
		return nil, l.refused(err)
	}
	if err := digest.Check(b[:size], b[size:total]); err != nil {
		return nil, err
	}
	l.in.Skip(total)
	return b[size:total], nil
}

// printable makes a stranger's sentence fit for logs and terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}
