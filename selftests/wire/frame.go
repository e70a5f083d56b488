package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"dst/abi"
	"dst/dataplane/crypt"
)

const digest = crypt.DigestCRC32C

// conn is a connection to an export, its frames made by hand.
type conn struct {
	net.Conn
	welcome abi.Welcome
	id      uint64
}

// dial connects to tcp:HOST:PORT or unix:PATH.
func dial(addr string) (*conn, error) {
	network, rest, ok := strings.Cut(addr, ":")
	if !ok {
		return nil, fmt.Errorf("address %q: want tcp:HOST:PORT or unix:PATH", addr)
	}
	c, err := net.DialTimeout(network, rest, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// seal is one frame as it is on the wire.
func seal(d crypt.Digest, h abi.Header, data []byte) []byte {
	b := make([]byte, abi.HeaderSize+d.Size(), abi.HeaderSize+d.Size()+len(data))
	h.CSize = uint32(d.Size())
	h.Put(b)
	d.Seal(b, data)
	return append(b, data...)
}

// send sends h, its Size set unless it says how many bytes are wanted.
func (c *conn) send(h abi.Header, data []byte) error {
	if h.Size == 0 {
		h.Size = uint32(digest.Size() + len(data))
	}
	_, err := c.Write(seal(digest, h, data))
	return err
}

// recv reads one frame.
func (c *conn) recv(d crypt.Digest) (h abi.Header, data []byte, err error) {
	head := make([]byte, abi.HeaderSize+d.Size())
	if _, err = io.ReadFull(c, head); err != nil {
		return h, nil, err
	}
	h.Parse(head)
	if err = h.Check(uint32(d.Size()), abi.MaxRequest); err != nil {
		return h, nil, err
	}
	data = make([]byte, h.Payload())
	if _, err = io.ReadFull(c, data); err == nil {
		err = d.Check(head, data)
	}
	return h, data, err
}

// mark sends the mark and reads the answer to it.
func (c *conn) mark() error {
	if _, err := c.Write(seal(crypt.DigestNone, abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello, ID: 7}, nil)); err != nil {
		return err
	}
	h, _, err := c.recv(crypt.DigestNone)
	if err == nil && (h.Cmd != abi.MsgCFG || h.Flags != abi.MarkWelcome || h.ID != 7) {
		err = fmt.Errorf("not a mark: %+v", h)
	}
	return err
}

// sayHello sends mark and HELLO of a new client.
func (c *conn) sayHello(export string, mode abi.Perm) error {
	if err := c.mark(); err != nil {
		return err
	}
	hello := abi.Hello{Export: export, Epoch: 1, Mode: mode, Keepalive: 1000, Digest: digest.Name()}
	if _, err := rand.Read(hello.ClientID[:]); err != nil {
		return err
	}
	return c.send(abi.Header{Cmd: abi.MsgHello}, hello.Append(nil))
}

// greet does the whole handshake; a refusal is an *abi.Refuse.
func (c *conn) greet(export string, mode abi.Perm) error {
	if err := c.sayHello(export, mode); err != nil {
		return err
	}
	for {
		h, data, err := c.recv(digest)
		switch {
		case err != nil:
			return err
		case h.Cmd == abi.MsgWelcome:
			return c.welcome.Parse(data)
		case h.Cmd == abi.MsgRefuse:
			var refuse abi.Refuse
			return errors.Join(refuse.Parse(data), &refuse)
		case h.Cmd != abi.MsgDraining:
			return fmt.Errorf("%v instead of WELCOME", h.Cmd)
		}
	}
}
