package genl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// receive takes one datagram apart. What cannot be answered is dropped: without
// a sender, without credentials, or not even a header. A header that lies about
// its length makes the rest of the datagram unreadable.
func (s *Server) receive(d Datagram) {
	if d.Port == 0 || d.Cred == nil || len(d.Data) < headerLen {
		s.dropped.Add(1)
		return
	}
	if d.Size > len(d.Data) {
		if h := readHeader(d.Data); h.flag&unix.NLM_F_REQUEST != 0 {
			s.refuse(d.Port, h, fmt.Errorf("a request has at most %d bytes: %w", len(d.Data), unix.EMSGSIZE))
		}
		return
	}
	for b := d.Data; len(b) > 0; {
		if len(b) < headerLen {
			s.dropped.Add(1)
			return
		}
		h := readHeader(b)
		if h.len < headerLen || uint64(h.len) > uint64(len(b)) {
			s.dropped.Add(1)
			return
		}
		s.dispatch(h, b[:h.len], d)
		b = b[min(align4(int(h.len)), len(b)):]
	}
}

// dispatch handles the message msg of d: as netlink_rcv_skb of the kernel, what
// is no request or a control message is only acknowledged, if asked.
func (s *Server) dispatch(h header, msg []byte, d Datagram) {
	if h.flag&unix.NLM_F_REQUEST == 0 || h.typ < unix.NLMSG_MIN_TYPE {
		if h.flag&unix.NLM_F_ACK != 0 {
			_ = s.conn.Send(d.Port, ack(h, d.Port, nil)) // one who does not read misses it
		}
		return
	}
	f, op, err := s.admit(h, msg, *d.Cred)
	if err == nil {
		err = s.enqueue(&job{head: h, family: f, op: op, msg: msg, port: d.Port, cred: *d.Cred})
	}
	if err != nil {
		s.refuse(d.Port, h, err)
	}
}

// admit finds the operation and decides who may ask for it, by the fixed
// headers only: no attribute of a stranger is looked at.
// Errors: EINVAL, ENOENT, EOPNOTSUPP, EPERM.
func (s *Server) admit(h header, msg []byte, cred unix.Ucred) (*Family, Op, error) {
	f, ok := s.families[h.typ]
	if !ok {
		return nil, Op{}, fmt.Errorf("message type %#x is no family of this port: %w", h.typ, unix.ENOENT)
	}
	if len(msg) < attrsAt {
		return nil, Op{}, fmt.Errorf("no room for a generic-netlink header: %w", unix.EINVAL)
	}
	op, ok := f.Ops[msg[headerLen]]
	switch dump := isDump(h); {
	case !ok:
		return nil, Op{}, fmt.Errorf("%s has no command %d: %w", f.Name, msg[headerLen], unix.EOPNOTSUPP)
	case dump && op.Dump == nil:
		return nil, Op{}, fmt.Errorf("command %d of %s cannot be dumped: %w", msg[headerLen], f.Name, unix.EOPNOTSUPP)
	case !dump && op.Do == nil:
		return nil, Op{}, fmt.Errorf("command %d of %s can only be dumped: %w", msg[headerLen], f.Name, unix.EOPNOTSUPP)
	case op.Admin && cred.Uid != 0:
		return nil, Op{}, fmt.Errorf("only root may do this, not uid %d: %w", cred.Uid, unix.EPERM)
	case msg[headerLen+2]|msg[headerLen+3] != 0:
		return nil, Op{}, refuse(unix.EINVAL, headerLen+2, "the reserved field of the generic-netlink header is not 0")
	}
	return f, op, nil
}

func isDump(h header) bool { return h.flag&anyDump == anyDump }

// refuse answers with an error from the receiving goroutine, which waits for
// nobody: one who does not read misses it.
func (s *Server) refuse(port uint32, h header, err error) {
	s.refused.Add(1)
	_ = s.conn.Send(port, ack(h, port, Ack(err)))
}
