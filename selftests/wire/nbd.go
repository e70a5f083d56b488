package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Numbers of the NBD protocol (proto.md of the nbd project).
const (
	nbdOptMagic     = 0x49484156454F5054
	nbdRequestMagic = 0x25609513
	nbdReplyMagic   = 0x67446698
	nbdExportName   = 1
	nbdFixed        = 1
	nbdNoZeroes     = 2
)

// nbdCommands are the words that NBD knows, and their numbers.
var nbdCommands = map[string]uint16{"read": 0, "write": 1, "flush": 3, "discard": 4, "zeroes": 6}

// nbd is a session of an NBD client.
type nbd struct {
	net.Conn
	cookie uint64
}

// greetNBD does the oldest handshake that names an export.
func greetNBD(c net.Conn, name string) (*nbd, error) {
	var hello [18]byte // two magics and flags
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return nil, err
	}
	be := binary.BigEndian
	b := be.AppendUint32(nil, nbdFixed|nbdNoZeroes)
	b = be.AppendUint64(b, nbdOptMagic)
	b = be.AppendUint32(b, nbdExportName)
	b = be.AppendUint32(b, uint32(len(name)))
	if _, err := c.Write(append(b, name...)); err != nil {
		return nil, err
	}
	var shape [10]byte // size and flags
	_, err := io.ReadFull(c, shape[:])
	return &nbd{Conn: c}, err
}

// do sends a request and waits for its answer.
func (c *nbd) do(r *request) (string, error) {
	command, ok := nbdCommands[r.word]
	if !ok {
		return "not understood", nil
	}
	c.cookie++
	if err := c.send(0, command, r.offset, uint32(r.length), r.data()); err != nil {
		return "", err
	}
	var reply [16]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return "", err
	}
	be := binary.BigEndian
	if be.Uint32(reply[:]) != nbdReplyMagic || be.Uint64(reply[8:]) != c.cookie {
		return "", fmt.Errorf("out of step: %x", reply)
	}
	errno := unix.Errno(be.Uint32(reply[4:]))
	var data []byte
	if r.word == "read" && errno == 0 {
		data = make([]byte, r.length)
		if _, err := io.ReadFull(c, data); err != nil {
			return "", err
		}
	}
	return said(errno, data), nil
}

func (c *nbd) send(flags, command uint16, offset uint64, length uint32, data []byte) error {
	be := binary.BigEndian
	b := be.AppendUint32(nil, nbdRequestMagic)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, command)
	b = be.AppendUint64(b, c.cookie)
	b = be.AppendUint64(b, offset)
	b = be.AppendUint32(b, length)
	_, err := c.Write(append(b, data...))
	return err
}

func (c *nbd) bye() error { return c.send(0, 2, 0, 0, nil) }
