package genl

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	headerLen = unix.NLMSG_HDRLEN                  // struct nlmsghdr
	attrsAt   = headerLen + unix.GENL_HDRLEN       // offset of the first attribute
	maxReply  = 1<<16 - 1 - attrsAt                // attributes of one reply: what a 16-bit nla_len can still nest
	missType  = 5                                  // NLMSGERR_ATTR_MISS_TYPE
	maxDepth  = 5                                  // of nested attributes
	anyDump   = unix.NLM_F_ROOT | unix.NLM_F_MATCH // NLM_F_DUMP
)

var native = binary.NativeEndian

func align4(n int) int { return (n + 3) &^ 3 }

// header is struct nlmsghdr.
type header struct {
	len       uint32
	typ, flag uint16
	seq, port uint32
}

// readHeader reads the header of b, which has at least headerLen bytes.
func readHeader(b []byte) header {
	return header{
		len: native.Uint32(b), typ: native.Uint16(b[4:]), flag: native.Uint16(b[6:]),
		seq: native.Uint32(b[8:]), port: native.Uint32(b[12:]),
	}
}

// appendHeader appends h to b; its len is that of the message whole.
func appendHeader(b []byte, h header) []byte {
	b = native.AppendUint32(b, h.len)
	b = native.AppendUint16(b, h.typ)
	b = native.AppendUint16(b, h.flag)
	b = native.AppendUint32(b, h.seq)
	return native.AppendUint32(b, h.port)
}

// appendMessage appends a message of header h and the parts of body, padded to
// 4 bytes so that another may follow.
func appendMessage(b []byte, h header, body ...[]byte) []byte {
	n := headerLen
	for _, p := range body {
		n += len(p)
	}
	h.len = uint32(n)
	b = appendHeader(b, h)
	for _, p := range body {
		b = append(b, p...)
	}
	return append(b, make([]byte, align4(n)-n)...)
}

// appendGeneric appends a generic-netlink message: h, command, version, attributes.
func appendGeneric(b []byte, h header, cmd, version uint8, attrs ...[]byte) []byte {
	return appendMessage(b, h, append([][]byte{{cmd, version, 0, 0}}, attrs...)...)
}

// ack is the NLMSG_ERROR message that answers req for port: an acknowledgement
// if e is nil. Only the header of req is echoed, see the package comment.
func ack(req header, port uint32, e *Error) []byte {
	h := header{typ: unix.NLMSG_ERROR, flag: unix.NLM_F_CAPPED, seq: req.seq, port: port}
	body := make([]byte, 0, 4+headerLen)
	body = native.AppendUint32(body, e.code())
	req.len = headerLen
	body = appendHeader(body, req)
	tlvs := e.tlvs()
	if len(tlvs) > 0 {
		h.flag |= unix.NLM_F_ACK_TLVS
	}
	return appendMessage(nil, h, body, tlvs)
}

// appendDone appends the NLMSG_DONE that ends a dump; e tells what cut it short.
func appendDone(b []byte, req header, port uint32, e *Error) []byte {
	h := header{typ: unix.NLMSG_DONE, flag: unix.NLM_F_MULTI, seq: req.seq, port: port}
	tlvs := e.tlvs()
	if len(tlvs) > 0 {
		h.flag |= unix.NLM_F_ACK_TLVS
	}
	return appendMessage(b, h, native.AppendUint32(nil, e.code()), tlvs)
}

// encode runs build and returns the attributes. Errors: EMSGSIZE if they do
// not fit a message. (The encoder does not notice an overlong nest.)
func encode(build func(*netlink.AttributeEncoder)) ([]byte, error) {
	if build == nil {
		return nil, nil
	}
	ae := netlink.NewAttributeEncoder()
	build(ae)
	b, err := ae.Encode()
	if err != nil {
		return nil, &Error{Errno: unix.EMSGSIZE, Msg: "the answer cannot be encoded: " + err.Error()}
	}
	if len(b) > maxReply {
		return nil, &Error{Errno: unix.EMSGSIZE, Msg: "the answer is larger than a netlink message can be"}
	}
	return b, nil
}
