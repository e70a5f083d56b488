package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"
)

// Numbers of the NBD protocol that go-nbd does not name. Source: doc/proto.md of the NBD project.
const (
	flagNoZeroes = 1 << 1
	sendReadOnly = 1 << 1
	requestSize  = 28
	replySize    = 16
	infoSize     = 12 // NBD_INFO_EXPORT
)

// patience is how long a server may leave the client without a byte.
const patience = 10 * time.Second

// client is a connection to an NBD server on a Unix socket, ready for requests. Its descriptor blocks: one thread waits in read(2)
// and is woken by the socket, with no poller and no scheduler between.
type client struct {
	fd   int
	size uint64 // of the device, bytes
}

// dial connects to the server at path and takes its export of that name.
func dial(path, export string) (*client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &client{fd: fd}
	if err := errors.Join(c.connect(path), c.handshake(export)); err != nil {
		c.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *client) connect(path string) error {
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	return errors.Join(
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.Connect(c.fd, &unix.SockaddrUnix{Name: path}))
}

func (c *client) close() { unix.Close(c.fd) }

// interrupt makes whoever waits in read or write return with an error. Any goroutine may call it.
func (c *client) interrupt() { _ = unix.Shutdown(c.fd, unix.SHUT_RDWR) }

// handshake is fixed newstyle with one option, GO.
func (c *client) handshake(export string) error {
	var hello protocol.NegotiationNewstyleHeader
	if err := c.receive(&hello); err != nil {
		return err
	}
	if hello.OldstyleMagic != protocol.NEGOTIATION_MAGIC_OLDSTYLE || hello.OptionMagic != protocol.NEGOTIATION_MAGIC_OPTION ||
		hello.HandshakeFlags&protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE == 0 {
		return errors.New("the server does not speak NBD, fixed newstyle")
	}
	be := binary.BigEndian
	b := be.AppendUint32(nil, uint32(hello.HandshakeFlags&(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE|flagNoZeroes)))
	b = be.AppendUint64(b, protocol.NEGOTIATION_MAGIC_OPTION)
	b = be.AppendUint32(b, protocol.NEGOTIATION_ID_OPTION_GO)
	b = be.AppendUint32(b, uint32(4+len(export)+2))
	b = be.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = be.AppendUint16(b, 0) // no information is asked for: EXPORT always comes
	if err := c.write([][]byte{b}); err != nil {
		return err
	}
	for {
		if done, err := c.answer(); done || err != nil {
			return err
		}
	}
}

// answer takes one reply to GO; done when it was the last.
func (c *client) answer() (done bool, err error) {
	var reply protocol.NegotiationReplyHeader
	if err := c.receive(&reply); err != nil {
		return false, err
	}
	if reply.ReplyMagic != protocol.NEGOTIATION_MAGIC_REPLY || reply.Length > 64<<10 {
		return false, errors.New("the server's reply to GO is not understood")
	}
	body := make([]byte, reply.Length)
	if err := c.readFull(body); err != nil {
		return false, err
	}
	switch {
	case reply.Type&(1<<31) != 0:
		return false, fmt.Errorf("the server refuses (%#x): %s", reply.Type, body)
	case reply.Type == protocol.NEGOTIATION_TYPE_REPLY_ACK:
		if c.size == 0 {
			return false, errors.New("the server does not tell the size of its device")
		}
		return true, nil
	case len(body) == infoSize && binary.BigEndian.Uint16(body) == protocol.NEGOTIATION_TYPE_INFO_EXPORT:
		if binary.BigEndian.Uint16(body[10:])&sendReadOnly != 0 {
			return false, errors.New("the server's device is read-only")
		}
		c.size = binary.BigEndian.Uint64(body[2:])
	}
	return false, nil
}

// receive reads a structure of fixed size.
func (c *client) receive(v any) error {
	b := make([]byte, binary.Size(v))
	if err := c.readFull(b); err != nil {
		return err
	}
	return binary.Read(bytes.NewReader(b), binary.BigEndian, v)
}

func (c *client) readFull(b []byte) error {
	for len(b) > 0 {
		n, err := c.read(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// read waits for bytes, at least one.
func (c *client) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, fmt.Errorf("the server was silent for %v: %w", patience, unix.ETIMEDOUT)
		case err != nil:
			return 0, err
		case n == 0:
			return 0, fmt.Errorf("the server closed the connection: %w", unix.ECONNRESET)
		default:
			return n, nil
		}
	}
}

// iovMax is the most that one writev takes (IOV_MAX).
const iovMax = 1024

// write sends all of v, which it consumes.
func (c *client) write(v [][]byte) error {
	for len(v) > 0 {
		n, err := unix.Writev(c.fd, v[:min(len(v), iovMax)])
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			return fmt.Errorf("the server took nothing for %v: %w", patience, unix.ETIMEDOUT)
		default:
			return err
		}
		for n = max(n, 0); len(v) > 0 && n >= len(v[0]); v = v[1:] {
			n -= len(v[0])
		}
		if len(v) > 0 {
			v[0] = v[0][n:]
		}
	}
	return nil
}

// request is one request of the transmission phase.
type request struct {
	cmd    uint16
	cookie uint64
	offset uint64
	length uint32
}

// put writes the request into b[:requestSize].
func (r request) put(b []byte) {
	_ = b[requestSize-1]
	be := binary.BigEndian
	be.PutUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
	be.PutUint16(b[4:], 0)
	be.PutUint16(b[6:], r.cmd)
	be.PutUint64(b[8:], r.cookie)
	be.PutUint64(b[16:], r.offset)
	be.PutUint32(b[24:], r.length)
}

// leave tells the server that no more requests come.
func (c *client) leave() {
	var b [requestSize]byte
	request{cmd: protocol.TRANSMISSION_TYPE_REQUEST_DISC}.put(b[:])
	_ = c.write([][]byte{b[:]}) // an error means that the server has left first
}
