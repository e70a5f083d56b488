package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The numbers of the kernel's generic-netlink family "nbd". Source:
// include/uapi/linux/nbd-netlink.h, where the names begin with NBD_.
const (
	familyName    = "nbd"
	familyVersion = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3

	attrIndex           = 1
	attrSizeBytes       = 2
	attrBlockSizeBytes  = 3
	attrTimeout         = 4
	attrServerFlags     = 5
	attrSockets         = 7
	attrDeadConnTimeout = 8
	attrBackend         = 10

	sockItem = 1
	sockFD   = 1
)

// deadTime is how long requests wait in the kernel for a daemon that has died,
// in seconds; then they fail. The time-out of a request is always sent as 0:
// any other makes the kernel shoot a socket that is merely slow.
const deadTime = 24 * 60 * 60

// replyTime is how long the kernel's answer may take to be read once the
// sending system call, in which the kernel does all the work, has returned.
const replyTime = 2 * time.Second

// message is one command to the kernel.
type message struct {
	cmd   uint8
	ack   bool // CONNECT has an answer of its own: an acknowledgement would be one too many
	attrs []byte
}

// connectMessage makes a device of whatever index is free. It begins with no
// size, so that nobody can send requests before its queue is set up.
func connectMessage(backend string, block uint32, flags uint16, fd int) (message, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint64(attrSizeBytes, 0)
	e.Uint64(attrBlockSizeBytes, uint64(block))
	e.Uint64(attrTimeout, 0)
	e.Uint64(attrDeadConnTimeout, deadTime)
	e.Uint64(attrServerFlags, uint64(flags))
	e.String(attrBackend, backend)
	putSocket(e, fd)
	attrs, err := e.Encode()
	return message{cmdConnect, false, attrs}, err
}

// reconnectMessage gives the device a socket in place of its dead one. It
// says nothing of time-outs: to send TIMEOUT, even as 0, would put the queue's
// io_timeout back to 30 s.
func reconnectMessage(index int, backend string, fd int) (message, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.String(attrBackend, backend)
	putSocket(e, fd)
	attrs, err := e.Encode()
	return message{cmdReconfigure, true, attrs}, err
}

// resizeMessage changes nothing but the size.
func resizeMessage(index int, backend string, size uint64) (message, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.Uint64(attrSizeBytes, size)
	e.String(attrBackend, backend)
	attrs, err := e.Encode()
	return message{cmdReconfigure, true, attrs}, err
}

func disconnectMessage(index int) (message, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	attrs, err := e.Encode()
	return message{cmdDisconnect, true, attrs}, err
}

func putSocket(e *netlink.AttributeEncoder, fd int) {
	e.Nested(attrSockets, func(e *netlink.AttributeEncoder) error {
		e.Nested(sockItem, func(e *netlink.AttributeEncoder) error {
			e.Uint32(sockFD, uint32(fd))
			return nil
		})
		return nil
	})
}

// exchange sends m and reads what the kernel answers: the index of the new
// device for CONNECT.
func exchange(c *genetlink.Conn, family uint16, m message) (index int, err error) {
	flags := netlink.Request
	if m.ack {
		flags |= netlink.Acknowledge
	}
	sent, err := c.Send(genetlink.Message{Header: genetlink.Header{Command: m.cmd, Version: familyVersion}, Data: m.attrs}, family, flags)
	if err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(time.Now().Add(replyTime)); err != nil {
		return 0, err
	}
	answers, raw, err := c.Receive()
	if err == nil {
		err = netlink.Validate(sent, raw)
	}
	if err != nil || m.cmd != cmdConnect {
		return 0, err
	}
	if len(answers) != 1 {
		return 0, fmt.Errorf("%d answers to CONNECT: %w", len(answers), unix.EPROTO)
	}
	return parseIndex(answers[0].Data)
}

// firstNet is the first network namespace.
const firstNet = "/proc/1/ns/net"

// exchangeOnce is an exchange on a socket that is there for nothing else, by the
// calling thread alone, whose open files are its own. m is acknowledged. first:
// the thread goes to the first network namespace, and is not to be used again.
func exchangeOnce(family uint16, first bool, m message) error {
	if first {
		ns, err := unix.Open(firstNet, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", firstNet, err)
		}
		err = unix.Setns(ns, unix.CLONE_NEWNET)
		unix.Close(ns)
		if err != nil {
			return fmt.Errorf("enter %s: %w", firstNet, err)
		}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(replyTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	data, err := genetlink.Message{Header: genetlink.Header{Command: m.cmd, Version: familyVersion}, Data: m.attrs}.MarshalBinary()
	if err != nil {
		return err
	}
	sent := netlink.Header{Length: uint32(unix.NLMSG_HDRLEN + len(data)), Type: netlink.HeaderType(family),
		Flags: netlink.Request | netlink.Acknowledge, Sequence: 1}
	b, err := netlink.Message{Header: sent, Data: data}.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, os.Getpagesize())
	n, err := unix.Read(fd, answer)
	if err != nil {
		return err
	}
	return parseAck(answer[:n])
}

// parseAck is the errno in the kernel's acknowledgement, nil if it is 0.
func parseAck(b []byte) error {
	var m netlink.Message
	if err := m.UnmarshalBinary(b); err != nil {
		return err
	}
	if m.Header.Type != netlink.Error || len(m.Data) < 4 {
		return fmt.Errorf("an answer of type %v where an acknowledgement was due: %w", m.Header.Type, unix.EPROTO)
	}
	if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// parseIndex finds the index in the kernel's answer to CONNECT.
func parseIndex(attrs []byte) (int, error) {
	d, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return 0, err
	}
	for d.Next() {
		if d.Type() == attrIndex {
			index := d.Uint32()
			return int(index), d.Err()
		}
	}
	return 0, errors.Join(fmt.Errorf("the answer to CONNECT has no index: %w", unix.EPROTO), d.Err())
}
