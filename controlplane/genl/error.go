package genl

import (
	"context"
	"errors"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	maxErrno    = 4095 // MAX_ERRNO of linux/err.h
	maxSentence = 1024 // bytes of NLMSGERR_ATTR_MSG
)

// Error is a refusal: an errno, a sentence that says what to do, and the
// attribute that is to blame. Handlers mostly return fmt.Errorf("…: %w", errno)
// and wrap it with At where one attribute is to blame.
type Error struct {
	Errno  unix.Errno
	Msg    string
	Attr   uint16 // top-level attribute to blame; becomes Offset
	Offset uint32 // or its place: bytes from the start of the message (NLMSGERR_ATTR_OFFS)
	Miss   uint16 // the attribute that should have been there (NLMSGERR_ATTR_MISS_TYPE)
}

// Error is the sentence, or the errno's text where there is none.
func (e *Error) Error() string {
	if e.Msg == "" {
		return e.Errno.Error()
	}
	return e.Msg
}

// Unwrap makes errors.Is(err, unix.EINVAL) and errors.As to unix.Errno work.
func (e *Error) Unwrap() error { return e.Errno }

// At blames the top-level attribute attr for err; nil stays nil.
func At(attr uint16, err error) error {
	e := Ack(err)
	if e == nil {
		return nil
	}
	e.Attr = attr
	return e
}

// Ack is what a client is told about err: the errno found in it (ETIMEDOUT and
// ESHUTDOWN for a context that ended, EIO if there is none), its sentence, and
// the attribute to blame. nil means success. This is the only place where
// errors become errnos.
func Ack(err error) *Error {
	if err == nil {
		return nil
	}
	var e Error
	if refusal, ok := errors.AsType[*Error](err); ok {
		e = *refusal
	} else if errno, ok := errors.AsType[unix.Errno](err); ok {
		e.Errno = errno
	} else if errors.Is(err, context.DeadlineExceeded) {
		e.Errno = unix.ETIMEDOUT
	} else if errors.Is(err, context.Canceled) {
		e.Errno = unix.ESHUTDOWN
	}
	if e.Errno == 0 || e.Errno > maxErrno {
		e.Errno = unix.EIO
	}
	e.Msg = sentence(err.Error())
	return &e
}

// sentence makes s fit for NLMSGERR_ATTR_MSG: bounded, without NUL.
func sentence(s string) string {
	s = strings.ReplaceAll(s, "\x00", "?")
	if len(s) > maxSentence {
		s = strings.ToValidUTF8(s[:maxSentence], "") // not in the middle of a letter
	}
	return s
}

// code is the error field of struct nlmsgerr: 0 or the negative errno.
func (e *Error) code() uint32 {
	if e == nil {
		return 0
	}
	return uint32(-int32(e.Errno))
}

// tlvs are the extended-acknowledgement attributes of e.
func (e *Error) tlvs() []byte {
	if e == nil {
		return nil
	}
	b, _ := encode(func(ae *netlink.AttributeEncoder) { // a sentence and two numbers always fit
		if e.Msg != "" {
			ae.String(unix.NLMSGERR_ATTR_MSG, e.Msg)
		}
		if e.Offset != 0 {
			ae.Uint32(unix.NLMSGERR_ATTR_OFFS, e.Offset)
		}
		if e.Miss != 0 {
			ae.Uint32(missType, uint32(e.Miss))
		}
	})
	return b
}
