package abi

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The structures that the original's configuration tool sends and receives
// over NETLINK_CONNECTOR, byte for byte: host byte order, the layout of 64-bit
// hosts on every host (a 32-bit tool never spoke to a 64-bit kernel; here all
// of them speak the 64-bit one). A request is nlmsghdr, CnMsg, Ctl and one
// payload; an answer is nlmsghdr and CtlAck.
//
// Every Parse takes exactly the bytes of its structure. Errors: EBADMSG for a
// message that is cut short, EINVAL for a size or value that is not allowed.

// Identity of the connector (CN_DST_IDX, CN_DST_VAL); its multicast group is
// CnIdx as well.
const (
	CnIdx = 6
	CnVal = 1
)

// Sizes of the structures in bytes.
const (
	CnMsgSize      = 20
	CtlSize        = 64
	SaddrSize      = 132
	NetworkCtlSize = 140
	CryptoCtlSize  = 80
	SecureUserSize = 136
	ExportCtlSize  = 172
	CtlAckSize     = 36
)

const (
	ctlNameSize  = NameMax + 1
	cryptoKeyMax = 1024 // bytes of one key: what the original's tool reads
)

// CtlCmd is a command of the original (dst_ctl.cmd).
type CtlCmd uint32

const (
	CtlDelNode   CtlCmd = 0 // an all-zero dst_ctl is therefore a DEL_NODE of ""
	CtlAddRemote CtlCmd = 1 // NetworkCtl follows
	CtlAddExport CtlCmd = 2 // ExportCtl follows
	CtlCrypto    CtlCmd = 3 // CryptoCtl and the keys follow
	CtlSecurity  CtlCmd = 4 // SecureUser follows
	CtlStart     CtlCmd = 5
)

var host = binary.NativeEndian

// CnMsg is the head of every connector message (struct cn_msg of
// linux/connector.h). Len is how many bytes follow it.
type CnMsg struct {
	Idx, Val   uint32
	Seq, Ack   uint32
	Len, Flags uint16
}

// Append encodes m behind b.
func (m *CnMsg) Append(b []byte) []byte {
	for _, n := range []uint32{m.Idx, m.Val, m.Seq, m.Ack} {
		b = host.AppendUint32(b, n)
	}
	b = host.AppendUint16(b, m.Len)
	return host.AppendUint16(b, m.Flags)
}

// Parse decodes m from what follows a nlmsghdr and returns the Len bytes
// behind it. The original trusted Len; here it must fit b, with at most the
// three bytes of padding that netlink adds.
func (m *CnMsg) Parse(b []byte) (data []byte, err error) {
	if len(b) < CnMsgSize {
		return nil, fmt.Errorf("a connector message of %d bytes is shorter than its head of %d: %w", len(b), CnMsgSize, unix.EBADMSG)
	}
	*m = CnMsg{
		Idx: host.Uint32(b), Val: host.Uint32(b[4:]), Seq: host.Uint32(b[8:]), Ack: host.Uint32(b[12:]),
		Len: host.Uint16(b[16:]), Flags: host.Uint16(b[18:]),
	}
	data = b[CnMsgSize:]
	if n := int(m.Len); n > len(data) || len(data)-n > 3 {
		return nil, fmt.Errorf("a connector message says that %d bytes follow where %d do: %w", n, len(data), unix.EBADMSG)
	}
	return data[:m.Len], nil
}

// Ctl is struct dst_ctl, the head of every request.
type Ctl struct {
	Name        string // 1 to 31 bytes; the original cut longer ones silently
	Flags       uint32 // never read
	Cmd         CtlCmd
	MaxPages    uint32 // the ADD commands only, as all that follows; 0 = the default
	ScanTimeout uint32 // ms
	MaxRetries  uint32
	Size        uint64 // bytes
}

// Append encodes c behind b. Errors: EINVAL for a name that does not fit.
func (c *Ctl) Append(b []byte) ([]byte, error) {
	b, err := appendName(b, "node name", c.Name)
	for _, n := range []uint32{c.Flags, uint32(c.Cmd), c.MaxPages, c.ScanTimeout, c.MaxRetries, 0 /* padding */} {
		b = host.AppendUint32(b, n)
	}
	return host.AppendUint64(b, c.Size), err
}

// Parse decodes c and returns the payload behind it. The original looked for
// the name with all its 32 bytes, so that one without NUL could be made and
// never found again; here it ends with a NUL and zeroes follow it.
func (c *Ctl) Parse(b []byte) (payload []byte, err error) {
	if len(b) < CtlSize {
		return nil, fmt.Errorf("a request of %d bytes is shorter than dst_ctl, %d: %w", len(b), CtlSize, unix.EBADMSG)
	}
	*c = Ctl{
		Flags: host.Uint32(b[32:]), Cmd: CtlCmd(host.Uint32(b[36:])), MaxPages: host.Uint32(b[40:]),
		ScanTimeout: host.Uint32(b[44:]), MaxRetries: host.Uint32(b[48:]), Size: host.Uint64(b[56:]),
	}
	if c.Cmd > CtlStart {
		return nil, fmt.Errorf("command %d is not known: %w", uint32(c.Cmd), unix.EINVAL)
	}
	c.Name, err = parseName("node name", b[:ctlNameSize])
	return b[CtlSize:], err
}

// NetworkCtl is struct dst_network_ctl, the payload of ADD_REMOTE.
type NetworkCtl struct {
	Addr Addr
}

// Append encodes n behind b. Errors: EINVAL for an address that is too long.
func (n *NetworkCtl) Append(b []byte) ([]byte, error) {
	b = host.AppendUint32(b, n.Addr.Type)
	b = host.AppendUint32(b, n.Addr.Proto)
	return appendSaddr(b, n.Addr.Sockaddr)
}

// Parse decodes n.
func (n *NetworkCtl) Parse(b []byte) (err error) {
	if err := exactly("dst_network_ctl", b, NetworkCtlSize); err != nil {
		return err
	}
	n.Addr = Addr{Type: host.Uint32(b), Proto: host.Uint32(b[4:])}
	n.Addr.Sockaddr, err = parseSaddr(b[8:])
	if err != nil {
		return err
	}
	return n.Addr.Check()
}

// ExportCtl is struct dst_export_ctl, the payload of ADD_EXPORT.
type ExportCtl struct {
	Device string // path, at most 31 bytes
	Addr   Addr
}

// Append encodes e behind b. Errors: EINVAL for what does not fit.
func (e *ExportCtl) Append(b []byte) ([]byte, error) {
	b, err := appendName(b, "device", e.Device)
	if err != nil {
		return b, err
	}
	return (&NetworkCtl{e.Addr}).Append(b)
}

// Parse decodes e. The original did not look for the NUL of the device.
func (e *ExportCtl) Parse(b []byte) (err error) {
	if err := exactly("dst_export_ctl", b, ExportCtlSize); err != nil {
		return err
	}
	var n NetworkCtl
	if e.Device, err = parseName("device", b[:32]); err != nil {
		return err
	}
	err = n.Parse(b[32:])
	e.Addr = n.Addr
	return err
}

// SecureUser is struct dst_secure_user, the payload of SECURITY: what one
// address may do. The port of Addr counts for nothing and Type and Proto of it
// are not carried.
type SecureUser struct {
	Perm Perm
	Addr Addr
}

// Append encodes s behind b. Errors: EINVAL for an address that is too long.
func (s *SecureUser) Append(b []byte) ([]byte, error) {
	return appendSaddr(host.AppendUint32(b, uint32(s.Perm)), s.Addr.Sockaddr)
}

// Parse decodes s. The original took any permission bits; here unknown ones
// are refused.
func (s *SecureUser) Parse(b []byte) (err error) {
	if err := exactly("dst_secure_user", b, SecureUserSize); err != nil {
		return err
	}
	s.Perm = Perm(host.Uint32(b))
	if s.Perm&^PermRW != 0 {
		return fmt.Errorf("permissions %#x: 1 is read, 2 is write, 0 is neither: %w", uint32(s.Perm), unix.EINVAL)
	}
	s.Addr = Addr{}
	if s.Addr.Sockaddr, err = parseSaddr(b[4:]); err != nil {
		return err
	}
	return s.Addr.Check()
}

// CtlAck is struct dst_ctl_ack, the answer to every request.
type CtlAck struct {
	Msg   CnMsg      // Ack is that of the request + 1, Len is 16
	Errno unix.Errno // negated on the way
}

// Answer is the acknowledgement of the request m.
func (m *CnMsg) Answer(errno unix.Errno) *CtlAck {
	a := &CtlAck{Msg: *m, Errno: errno}
	a.Msg.Ack++
	a.Msg.Len = CtlAckSize - CnMsgSize
	return a
}

// Append encodes a behind b. The original sent 12 bytes of its stack at the
// end; they are zero here.
func (a *CtlAck) Append(b []byte) []byte {
	b = a.Msg.Append(b)
	b = host.AppendUint32(b, uint32(-int32(a.Errno)))
	return append(b, make([]byte, 12)...)
}

// Parse decodes a from what follows a nlmsghdr.
func (a *CtlAck) Parse(b []byte) error {
	data, err := a.Msg.Parse(b)
	if err != nil {
		return err
	}
	if err := exactly("the answer", data, CtlAckSize-CnMsgSize); err != nil {
		return err
	}
	code := int32(host.Uint32(data))
	if code > 0 || code < -4095 {
		return fmt.Errorf("the answer's error %d is not a negative errno: %w", code, unix.EINVAL)
	}
	a.Errno = unix.Errno(-code)
	return nil
}

func exactly(what string, b []byte, size int) error {
	if len(b) != size {
		return fmt.Errorf("%s of %d bytes: it has %d: %w", what, len(b), size, unix.EINVAL)
	}
	return nil
}

// appendName appends a name in 32 bytes, the last of them zero.
func appendName(b []byte, what, s string) ([]byte, error) {
	if len(s) >= ctlNameSize || strings.IndexByte(s, 0) >= 0 {
		return b, fmt.Errorf("%s %q: at most %d bytes, none of them zero: %w", what, s, ctlNameSize-1, unix.EINVAL)
	}
	return append(append(b, s...), make([]byte, ctlNameSize-len(s))...), nil
}

func parseName(what string, b []byte) (string, error) {
	name, rest, ok := strings.Cut(string(b), "\x00")
	if !ok || strings.Trim(rest, "\x00") != "" {
		return "", fmt.Errorf("the %s must end with a NUL and be followed by zeroes within %d bytes: %w", what, len(b), unix.EINVAL)
	}
	return name, nil
}

// appendSaddr appends struct saddr: the raw sockaddr in 130 bytes and its
// length, family included.
func appendSaddr(b []byte, sockaddr string) ([]byte, error) {
	if len(sockaddr) < 2 || len(sockaddr) > SockaddrMax {
		return b, fmt.Errorf("address of %d bytes: a socket address has 2 to %d: %w", len(sockaddr), SockaddrMax, unix.EINVAL)
	}
	b = append(append(b, sockaddr...), make([]byte, SockaddrMax-len(sockaddr))...)
	return host.AppendUint16(b, uint16(len(sockaddr))), nil
}

// parseSaddr takes only the length that the request gives; the original let it
// be anything and read past the structure.
func parseSaddr(b []byte) (string, error) {
	n := int(host.Uint16(b[SockaddrMax:]))
	if n < 2 || n > SockaddrMax {
		return "", fmt.Errorf("sa_data_len %d: it counts the whole address, 2 to %d bytes: %w", n, SockaddrMax, unix.EINVAL)
	}
	return string(b[:n]), nil
}
