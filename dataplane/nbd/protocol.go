package nbd

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// The numbers of the NBD protocol that go-nbd's protocol package does not
// have. Source: doc/proto.md of the NBD project, the section named above each
// group; the names there begin with NBD_.

// "Handshake flags" and "Client flags": the same bits both ways.
const (
	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)
)

// "Transmission flags".
const (
	sendHasFlags    = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	sendReadOnly    = uint16(1 << 1)
	sendFlush       = uint16(1 << 2)
	sendFUA         = uint16(1 << 3)
	sendRotational  = uint16(1 << 4)
	sendTrim        = uint16(1 << 5)
	sendWriteZeroes = uint16(1 << 6)
	sendMultiConn   = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
)

// "Option types" and "Option reply types". Options that are not named here
// (STARTTLS, STRUCTURED_REPLY, the META_CONTEXT pair, EXTENDED_HEADERS) get
// repErrUnsup.
const (
	optExportName = uint32(1)
	optAbort      = protocol.NEGOTIATION_ID_OPTION_ABORT
	optList       = protocol.NEGOTIATION_ID_OPTION_LIST
	optInfo       = protocol.NEGOTIATION_ID_OPTION_INFO
	optGo         = protocol.NEGOTIATION_ID_OPTION_GO

	repAck        = protocol.NEGOTIATION_TYPE_REPLY_ACK
	repServer     = protocol.NEGOTIATION_TYPE_REPLY_SERVER
	repInfo       = protocol.NEGOTIATION_TYPE_REPLY_INFO
	repErrUnsup   = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	repErrInvalid = uint32(3 | 1<<31)
	repErrUnknown = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	repErrTooBig  = uint32(9 | 1<<31)

	infoExport      = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	infoName        = protocol.NEGOTIATION_TYPE_INFO_NAME
	infoDescription = protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION
	infoBlockSize   = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
)

// "Command flags" and "Request types".
const (
	cmdFlagFUA    = uint16(1 << 0)
	cmdFlagNoHole = uint16(1 << 1)

	cmdRead        = protocol.TRANSMISSION_TYPE_REQUEST_READ
	cmdWrite       = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	cmdDisc        = protocol.TRANSMISSION_TYPE_REQUEST_DISC
	cmdFlush       = uint16(3)
	cmdTrim        = uint16(4)
	cmdWriteZeroes = uint16(6)
)

// "Error values": the only ones that may be on the wire.
const (
	wireEPERM     = protocol.TRANSMISSION_ERROR_EPERM
	wireEIO       = uint32(5)
	wireENOMEM    = uint32(12)
	wireEINVAL    = protocol.TRANSMISSION_ERROR_EINVAL
	wireENOSPC    = uint32(28)
	wireEOVERFLOW = uint32(75)
	wireENOTSUP   = uint32(95)
	wireESHUTDOWN = uint32(108)
)

// Lengths on the wire, in bytes.
const (
	optionSize  = 16 // NegotiationOptionHeader
	requestSize = 28 // TransmissionRequestHeader
	replySize   = 16 // TransmissionReplyHeader
	zeroesSize  = 124
	nameMax     = 4096 // "Conventions": longest string
)

// request is one request of the transmission phase ("Request message").
type request struct {
	flags, cmd uint16
	cookie     uint64
	offset     uint64
	length     uint32
}

// parse reads r from b[:requestSize]; false means that the magic is wrong and
// nothing more can be understood on this connection.
func (r *request) parse(b []byte) bool {
	_ = b[requestSize-1]
	be := binary.BigEndian
	r.flags = be.Uint16(b[4:])
	r.cmd = be.Uint16(b[6:])
	r.cookie = be.Uint64(b[8:])
	r.offset = be.Uint64(b[16:])
	r.length = be.Uint32(b[24:])
	return be.Uint32(b) == protocol.TRANSMISSION_MAGIC_REQUEST
}

// payload is how many bytes follow the request, whether it is valid or not.
func (r *request) payload() uint32 {
	if r.cmd == cmdWrite {
		return r.length
	}
	return 0
}

// row is what a command means to the device.
type row struct {
	op    trans.Op
	flags uint16     // command flags that are allowed with it
	send  uint16     // transmission flag that offers it
	past  unix.Errno // what it gets beyond the end of the device
}

// commands by number; a zero op is a command that is not served.
var commands = [...]row{
	cmdRead:        {trans.Read, cmdFlagFUA, 0, unix.EINVAL},
	cmdWrite:       {trans.Write, cmdFlagFUA, 0, unix.ENOSPC},
	cmdFlush:       {trans.Flush, cmdFlagFUA, sendFlush, unix.EINVAL},
	cmdTrim:        {trans.Discard, cmdFlagFUA, sendTrim, unix.EINVAL},
	cmdWriteZeroes: {trans.Zero, cmdFlagFUA | cmdFlagNoHole, sendWriteZeroes, unix.ENOSPC},
}

// check judges r against the device as it is now: what to do, with which
// abi.Flag bits, or the errno to answer.
func (r *request) check(d *Info) (op trans.Op, flags uint64, err unix.Errno) {
	if int(r.cmd) >= len(commands) {
		return 0, 0, unix.EINVAL
	}
	row := &commands[r.cmd]
	mask := uint64(d.BlockMin) - 1
	switch {
	case row.op == 0, r.flags&^row.flags != 0, row.send&^d.flags() != 0:
		return 0, 0, unix.EINVAL
	case row.op == trans.Flush:
		if r.offset != 0 || r.length != 0 {
			return 0, 0, unix.EINVAL
		}
		return row.op, 0, 0
	case d.ReadOnly && row.op.Changes():
		return 0, 0, unix.EPERM
	case r.length == 0, (r.offset|uint64(r.length))&mask != 0:
		return 0, 0, unix.EINVAL
	case r.offset > d.Size, uint64(r.length) > d.Size-r.offset:
		return 0, 0, row.past
	case r.length > d.MaxSize && (row.op == trans.Read || row.op == trans.Write):
		return 0, 0, unix.EINVAL
	}
	if r.flags&cmdFlagFUA != 0 && row.op.Changes() {
		flags |= abi.FlagFUA
	}
	if r.flags&cmdFlagNoHole != 0 {
		flags |= abi.FlagNoHole
	}
	return row.op, flags, 0
}

// flags are the transmission flags of the device. FLUSH and FUA are always
// offered: every export does them. So is the right to several connections: all
// of them end in one device, whose flush covers every answered write.
func (d *Info) flags() uint16 {
	f := sendHasFlags | sendFlush | sendFUA | sendMultiConn
	if d.ReadOnly {
		f |= sendReadOnly
	}
	if d.Features&abi.FeatureRotational != 0 {
		f |= sendRotational
	}
	if d.Features&abi.FeatureDiscard != 0 {
		f |= sendTrim
	}
	if d.Features&abi.FeatureWriteZeroes != 0 {
		f |= sendWriteZeroes
	}
	return f
}

// putReply writes a simple reply into b[:replySize] ("Simple reply message").
func putReply(b []byte, cookie uint64, err unix.Errno) {
	_ = b[replySize-1]
	be := binary.BigEndian
	be.PutUint32(b, protocol.TRANSMISSION_MAGIC_REPLY)
	be.PutUint32(b[4:], wireError(err))
	be.PutUint64(b[8:], cookie)
}

// wireError translates an errno of this machine, whose numbers differ between
// architectures, into the protocol's.
func wireError(err unix.Errno) uint32 {
	switch err {
	case 0:
		return 0
	case unix.EPERM, unix.EACCES, unix.EROFS:
		return wireEPERM
	case unix.ENOMEM:
		return wireENOMEM
	case unix.EINVAL:
		return wireEINVAL
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return wireENOSPC
	case unix.EOVERFLOW:
		return wireEOVERFLOW
	case unix.EOPNOTSUPP:
		return wireENOTSUP
	case unix.ESHUTDOWN:
		return wireESHUTDOWN
	}
	return wireEIO
}
