package conn

import (
	"encoding/binary"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// SCTP carries messages. One-to-one sockets are used here as streams: each send
// is a message, a receiving call brings at most one, or a part of it, and where
// one ends means nothing. There is no half-closed state. When the peer has gone
// away at once, one call is told so, sending or receiving, and the other side
// waits: it ends by the Close of who was told (Out.Break).

// Options that package unix has no numbers for (linux/sctp.h).
const (
	sctpRTOInfo    = 0  // struct sctp_rtoinfo
	sctpNoDelay    = 3  // int
	sctpDelayedAck = 16 // struct sctp_sack_info
)

const (
	// sctpMessage is the most that one send gives to SCTP, in bytes: the kernel
	// takes a message as a whole, and none larger than the send buffer
	// (EMSGSIZE).
	sctpMessage = 64 << 10

	// sctpBuffer is what TCP's buffers grow to by themselves, in bytes. SCTP's do
	// not grow: with those it has from the system, about 100 KiB are on their way
	// at once, which is two packets of a loopback device.
	sctpBuffer = 4 << 20

	// Times in milliseconds. A lost packet costs at least sctpMinRTO, 1 s if it
	// was not set (TCP: 200 ms); it must be longer than what the peer waits before
	// it acknowledges a single packet, 200 ms if that was not set.
	sctpFirstRTO = 1000
	sctpMinRTO   = 200
	sctpAckDelay = 20
)

// tuneSCTP is tune. A kernel that refuses some of it is only slower.
func tuneSCTP(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctpNoDelay, 1)
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], sctpBuffer) != nil { // no CAP_NET_ADMIN
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], sctpBuffer)
		}
	}
	// Association, initial, max and min; association, delay and packets; 0 = as is.
	_ = setWords(fd, sctpRTOInfo, 0, sctpFirstRTO, 0, sctpMinRTO)
	_ = setWords(fd, sctpDelayedAck, 0, sctpAckDelay, 0)
}

// setWords sets an option of SCTP that is a structure of 32-bit words.
func setWords(fd, option int, words ...uint32) error {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return unix.SetsockoptString(fd, unix.IPPROTO_SCTP, option, string(b))
}

// sendLimit is how many bytes one send to fd may have.
func sendLimit(fd int, a abi.Addr) int {
	if a.Proto != unix.IPPROTO_SCTP {
		return maxBytes
	}
	room, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return sctpMessage
	}
	return min(sctpMessage, room)
}
