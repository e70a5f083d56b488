package genl

import (
	"context"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Request is one decoded request. It belongs to its handler, which may use it
// until it returns: the memory of the attributes is erased then, so that no
// secret of a request outlives it.
type Request struct {
	Cmd   uint8
	Dump  bool       // NLM_F_DUMP
	Attrs Attrs      // checked by the policy
	Raw   []byte     // the same as bytes, for netlink.NewAttributeDecoder
	Cred  unix.Ucred // of the sender, told by the kernel; the pid is a hint only
	Port  uint32     // of the sender, for Subscribe
	Seq   uint32

	ctx context.Context
	out answer
}

// answer is where Reply leaves what it encoded.
type answer interface {
	add(attrs []byte) error
}

// Context ends when the request has taken too long, or when the server closes.
// A handler that may wait waits for it too.
func (r *Request) Context() context.Context { return r.ctx }

// Reply answers with the attributes that build encodes. In a Do the answer is
// sent once the handler has returned nil; in a Dump it is one row, which may
// wait for the client to read. Errors: EMSGSIZE if it does not fit a message;
// the dump's reader is gone or does not read. The handler returns it.
func (r *Request) Reply(build func(*netlink.AttributeEncoder)) error {
	attrs, err := encode(build)
	if err != nil {
		return err
	}
	return r.out.add(attrs)
}

// refusal is what the client is told about err, with the place of the
// attribute that err blames.
func (r *Request) refusal(err error) *Error {
	e := Ack(err)
	if e != nil && e.Offset == 0 && e.Attr != 0 {
		e.Offset = r.Attrs.Offset(e.Attr)
	}
	return e
}
