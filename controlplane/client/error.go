package client

import (
	"context"
	"errors"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoDaemon means that nobody is bound to the daemon's port (ECONNREFUSED).
var ErrNoDaemon error = noDaemon{}

type noDaemon struct{}

func (noDaemon) Error() string { return "no dstd answers in this network namespace: start dstd" }
func (noDaemon) Unwrap() error { return unix.ECONNREFUSED }

// Error is a refusal by the daemon, or by the kernel on the way to it.
type Error struct {
	Errno  unix.Errno
	Msg    string   // a sentence; empty if none was sent
	Offset int      // where in the message the attribute to blame is; 0 = none is blamed
	Attr   []uint16 // its type, behind the types of the nests that it is in
	Nth    int      // how many attributes of the type Attr[0] stand before it
}

// Error is the sentence, or the text of the errno.
func (e *Error) Error() string {
	if e.Msg == "" {
		return e.Errno.Error()
	}
	return e.Msg
}

// Unwrap is the errno.
func (e *Error) Unwrap() error { return e.Errno }

// refusal is what a caller is told about err; attrs are those of the request.
func refusal(err error, attrs []byte) error {
	var errno unix.Errno
	var op *netlink.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, unix.EAGAIN) && fromKernel(err): // its queue is full: it has not read for long
		return &Error{Errno: unix.ETIMEDOUT, Msg: "dstd does not answer: it hangs, or another program holds its netlink port"}
	case !errors.As(err, &errno):
		return err
	case errno == unix.ECONNREFUSED && fromKernel(err):
		return ErrNoDaemon
	case errno == unix.EPERM && fromKernel(err):
		return &Error{Errno: errno, Msg: "only root, with CAP_NET_ADMIN, may configure dst"}
	case fromKernel(err), !errors.As(err, &op):
		return &Error{Errno: errno, Msg: err.Error()}
	}
	e := &Error{Errno: errno, Msg: op.Message, Offset: op.Offset}
	if op.Offset >= attrsAt {
		e.Attr, e.Nth = blame(attrs, op.Offset-attrsAt)
	}
	return e
}

// fromKernel tells an error of a system call from one in an answer.
func fromKernel(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call)
}

// attrsAt is where the attributes of a message start: nlmsghdr, genlmsghdr.
const attrsAt = unix.NLMSG_HDRLEN + unix.GENL_HDRLEN

// blame finds the attribute at the offset at of b, and the path to it.
func blame(b []byte, at int) (path []uint16, nth int) {
	before := map[uint16]int{}
	for from := 0; from+unix.NLA_HDRLEN <= len(b); {
		n, typ := int(native.Uint16(b[from:])), native.Uint16(b[from+2:])
		if n < unix.NLA_HDRLEN || n > len(b)-from {
			break
		}
		nested := typ&netlink.Nested != 0
		typ &^= netlink.Nested
		switch inside := from + unix.NLA_HDRLEN; {
		case at == from:
			return []uint16{typ}, before[typ]
		case at >= inside && at < from+n && nested:
			deeper, _ := blame(b[inside:from+n], at-inside)
			return append([]uint16{typ}, deeper...), before[typ]
		}
		before[typ]++
		from += (n + 3) &^ 3
	}
	return nil, 0
}
