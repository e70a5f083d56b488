package main

import (
	"bufio"
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

	nbdRead   = 0
	nbdWrite  = 1
	nbdDisc   = 2
	nbdFlush  = 3
	nbdTrim   = 4
	nbdZeroes = 6

	nbdFUA    = 1 << 0
	nbdNoHole = 1 << 1
)

// nbd is a connection of an NBD client. One goroutine may send and another one receive.
type nbd struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	size uint64
}

// dialNBD does the oldest handshake that names an export, at a Unix socket.
func dialNBD(path, name string) (*nbd, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := newNBD(conn)
	if err := c.greet(name); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func newNBD(conn net.Conn) *nbd {
	return &nbd{conn: conn, in: bufio.NewReaderSize(conn, 256<<10), out: bufio.NewWriterSize(conn, 256<<10)}
}

func (c *nbd) greet(name string) error {
	var hello [18]byte // two magics and flags
	if _, err := io.ReadFull(c.in, hello[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	b := be.AppendUint32(nil, nbdFixed|nbdNoZeroes)
	b = be.AppendUint64(b, nbdOptMagic)
	b = be.AppendUint32(b, nbdExportName)
	b = be.AppendUint32(b, uint32(len(name)))
	if _, err := c.conn.Write(append(b, name...)); err != nil {
		return err
	}
	var shape [10]byte // size and flags
	_, err := io.ReadFull(c.in, shape[:])
	c.size = be.Uint64(shape[:])
	return err
}

// send queues a request; data is of a write.
func (c *nbd) send(flags, command uint16, cookie, offset uint64, length uint32, data []byte) error {
	var b [28]byte
	be := binary.BigEndian
	be.PutUint32(b[:], nbdRequestMagic)
	be.PutUint16(b[4:], flags)
	be.PutUint16(b[6:], command)
	be.PutUint64(b[8:], cookie)
	be.PutUint64(b[16:], offset)
	be.PutUint32(b[24:], length)
	if _, err := c.out.Write(b[:]); err != nil {
		return err
	}
	_, err := c.out.Write(data)
	return err
}

// receive reads the head of a reply; what a read gave follows.
func (c *nbd) receive() (cookie uint64, errno unix.Errno, err error) {
	var b [16]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return 0, 0, err
	}
	be := binary.BigEndian
	if be.Uint32(b[:]) != nbdReplyMagic {
		return 0, 0, fmt.Errorf("out of step: %x", b)
	}
	return be.Uint64(b[8:]), unix.Errno(be.Uint32(b[4:])), nil
}

// erase makes the whole device zeroes.
func (c *nbd) erase() error {
	if err := c.send(0, nbdZeroes, 0, 0, uint32(c.size), nil); err != nil {
		return err
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	_, errno, err := c.receive()
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
