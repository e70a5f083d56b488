package abi

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// HeaderSize is the length of every wire header (the original's dst_cmd).
const HeaderSize = 48

// DigestMax is the room for a digest behind a header.
const DigestMax = 8

// SectorSize is the unit of Header.Sector.
const SectorSize = 512

// MaxRequest is the largest payload any version of this wire carries in one
// frame, in bytes; a link's own limit is in its WELCOME and is never larger.
const MaxRequest = 32 << 20

// Msg is a wire message (the original's dst_cmd.cmd). 1 to 4 are the original's.
type Msg uint32

const (
	MsgCFG         Msg = 1  // mark of the version, first frame both ways, never again
	MsgIO          Msg = 2  // READ or WRITE request
	MsgIOResponse  Msg = 3  // the one answer to IO, FLUSH, DISCARD and WRITE_ZEROES
	MsgPing        Msg = 4  // keepalive, sent by either side that sent nothing else; answered by PONG
	MsgHello       Msg = 5  // client: who I am and what I want (attributes)
	MsgWelcome     Msg = 6  // export: what you get (attributes)
	MsgRefuse      Msg = 7  // export: why not (attributes); the connection closes
	MsgFlush       Msg = 8  // all writes answered before it was sent become durable
	MsgDiscard     Msg = 9  // Size bytes from Sector are no longer needed
	MsgWriteZeroes Msg = 10 // Size bytes from Sector read as zeroes
	MsgPong        Msg = 11 // answer to PING, ID echoed
	MsgDraining    Msg = 12 // export: the fence waits for the old session's started requests
	MsgBye         Msg = 13 // client: this session ends for good; its place is free at once
)

var msgNames = [...]string{1: "CFG", "IO", "IO_RESPONSE", "PING", "HELLO", "WELCOME", "REFUSE",
	"FLUSH", "DISCARD", "WRITE_ZEROES", "PONG", "DRAINING", "BYE"}

// String is the message's name, as the documents write it.
func (m Msg) String() string {
	if m >= 1 && m < Msg(len(msgNames)) {
		return msgNames[m]
	}
	return fmt.Sprintf("message %d", uint32(m))
}

// Bits of Header.RW in an IO request, and of Header.Flags in requests. Bits
// not named here are refused (EINVAL): block-layer flags never travel raw.
const (
	RWWrite uint64 = 1 << 0

	FlagFUA       uint64 = 1 << 0 // WRITE, DISCARD, WRITE_ZEROES: durable before the answer
	FlagPreflush  uint64 = 1 << 1 // WRITE: flush first; with FUA this is the original's barrier
	FlagNoHole    uint64 = 1 << 2 // WRITE_ZEROES: keep the blocks allocated
	FlagReadAhead uint64 = 1 << 3 // READ: a hint, may be ignored
)

// Marks in CFG's Flags: the client sends MarkHello, a new export answers
// MarkWelcome with the same ID, an original one echoes MarkHello
// (dst-original 2.4).
const (
	MarkHello   uint64 = 0x4453543248454c4f // "DST2HELO"
	MarkWelcome uint64 = 0x4453543257454c43 // "DST2WELC"
)

// Stable is the bit of Header.Reserved in an IO_RESPONSE which says that the
// request's bytes are already durable. The low 16 bits are the errno.
const Stable uint32 = 1 << 31

// Header is one wire header in host values; bytes exist only between Put and
// ParseHeader, so a stored header can be sent any number of times.
type Header struct {
	Cmd      Msg
	Size     uint32 // bytes behind the header, digest included; READ, DISCARD, WRITE_ZEROES: bytes wanted, without digest
	CSize    uint32 // digest bytes behind the header
	Reserved uint32 // IO_RESPONSE: errno | Stable; else 0
	RW       uint64 // IO: RWWrite or 0; IO_RESPONSE: first half of the verifier
	Flags    uint64 // requests: Flag…; CFG: Mark…; IO_RESPONSE: second half of the verifier
	ID       uint64 // request's id, echoed by its answer; CFG: nonce
	Sector   uint64 // start of a request, echoed by its answer
}

// Put writes h into b[:HeaderSize], big-endian.
func (h *Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	be.PutUint32(b, uint32(h.Cmd))
	be.PutUint32(b[4:], h.Size)
	be.PutUint32(b[8:], h.CSize)
	be.PutUint32(b[12:], h.Reserved)
	be.PutUint64(b[16:], h.RW)
	be.PutUint64(b[24:], h.Flags)
	be.PutUint64(b[32:], h.ID)
	be.PutUint64(b[40:], h.Sector)
}

// Parse reads h from b[:HeaderSize]. It judges nothing: see Check.
func (h *Header) Parse(b []byte) {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	h.Cmd = Msg(be.Uint32(b))
	h.Size = be.Uint32(b[4:])
	h.CSize = be.Uint32(b[8:])
	h.Reserved = be.Uint32(b[12:])
	h.RW = be.Uint64(b[16:])
	h.Flags = be.Uint64(b[24:])
	h.ID = be.Uint64(b[32:])
	h.Sector = be.Uint64(b[40:])
}

// Payload is how many data bytes follow header and digest on the wire. It is
// right only for a header that Check accepted.
func (h *Header) Payload() uint32 {
	switch h.Cmd {
	case MsgIO:
		if h.RW&RWWrite == 0 {
			return 0
		}
	case MsgDiscard, MsgWriteZeroes:
		return 0
	}
	return h.Size - h.CSize
}

// Check judges a received header by itself, before any memory is touched:
// known message, digest of csize bytes and nothing else, and at most limit
// data bytes behind it. An error means that the stream can not be followed any
// further and the connection must be closed (EPROTO).
func (h *Header) Check(csize, limit uint32) error {
	if h.Cmd < MsgCFG || h.Cmd > MsgBye {
		return fmt.Errorf("the peer sent an unknown %v: %w", h.Cmd, unix.EPROTO)
	}
	if h.CSize != csize {
		return fmt.Errorf("the peer sent a digest of %d bytes where %d were agreed: %w", h.CSize, csize, unix.EPROTO)
	}
	switch h.Cmd {
	case MsgIO:
		if h.RW&RWWrite == 0 {
			return nil
		}
	case MsgDiscard, MsgWriteZeroes:
		return nil
	case MsgIOResponse, MsgHello, MsgWelcome, MsgRefuse:
	default:
		limit = 0
	}
	if h.Size < csize || h.Size-csize > limit {
		return fmt.Errorf("the peer announced %d bytes behind %v where at most %d may follow: %w",
			h.Size, h.Cmd, uint64(limit)+uint64(csize), unix.EPROTO)
	}
	return nil
}

// Verifier names one life of an export's store: it changes whenever
// acknowledged, un-flushed writes may have been lost.
type Verifier [16]byte

// SetVerifier puts v into RW and Flags of an IO_RESPONSE.
func (h *Header) SetVerifier(v Verifier) {
	h.RW = binary.BigEndian.Uint64(v[:8])
	h.Flags = binary.BigEndian.Uint64(v[8:])
}

// Verifier is the verifier of an IO_RESPONSE.
func (h *Header) Verifier() (v Verifier) {
	binary.BigEndian.PutUint64(v[:8], h.RW)
	binary.BigEndian.PutUint64(v[8:], h.Flags)
	return v
}

// Errno is the status of an IO_RESPONSE, 0 for success.
func (h *Header) Errno() unix.Errno { return unix.Errno(h.Reserved & 0xffff) }
