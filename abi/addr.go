package abi

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SockaddrMax is the room for a socket address in the ABI, family included
// (struct saddr of the original: 2 + 128 bytes).
const SockaddrMax = 130

// Addr is an address of any socket family, as the original's dst_network_ctl
// carries it: socket type, protocol and the raw sockaddr. Sockaddr is what
// bind(2) and connect(2) take; its length is the address length.
// The zero Addr means "none".
type Addr struct {
	Type     uint32 // SOCK_STREAM, ...
	Proto    uint32 // IPPROTO_TCP, IPPROTO_MPTCP, IPPROTO_SCTP, 0
	Sockaddr string // raw bytes, family (host order) first; a string so that Addr compares with ==
}

// Family is the address family, 0 if there is no address.
func (a Addr) Family() uint16 {
	if len(a.Sockaddr) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16([]byte(a.Sockaddr[:2]))
}

// IsZero reports whether a is no address at all.
func (a Addr) IsZero() bool { return a.Sockaddr == "" }

// Check says whether a can be an address: a family and a length that fit it.
// Errors: EINVAL for lengths, EAFNOSUPPORT for a family 0.
func (a Addr) Check() error {
	n := len(a.Sockaddr)
	if n < 2 || n > SockaddrMax {
		return fmt.Errorf("address of %d bytes: a socket address has 2 to %d: %w", n, SockaddrMax, unix.EINVAL)
	}
	want := 0
	switch a.Family() {
	case unix.AF_UNSPEC:
		return fmt.Errorf("address without a family: %w", unix.EAFNOSUPPORT)
	case unix.AF_INET:
		want = unix.SizeofSockaddrInet4
	case unix.AF_INET6:
		want = unix.SizeofSockaddrInet6
	case unix.AF_VSOCK:
		want = unix.SizeofSockaddrVM
	}
	if want != 0 && n != want {
		return fmt.Errorf("address of %d bytes: family %d has %d: %w", n, a.Family(), want, unix.EINVAL)
	}
	if a.Family() == unix.AF_UNIX && n < 4 {
		return fmt.Errorf("a unix address needs an absolute path: %w", unix.EINVAL)
	}
	return nil
}

// NetAddr makes the address of an internet socket: proto is IPPROTO_TCP,
// IPPROTO_MPTCP or IPPROTO_SCTP. A zone of ap is taken as a decimal scope id.
func NetAddr(proto uint32, ap netip.AddrPort) Addr {
	ip := ap.Addr()
	if ip.Is4() {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], ap.Port())
		v4 := ip.As4()
		copy(b[4:], v4[:])
		return Addr{unix.SOCK_STREAM, proto, string(b)}
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], ap.Port())
	v6 := ip.As16()
	copy(b[8:], v6[:])
	scope, _ := strconv.ParseUint(ip.Zone(), 10, 32)
	binary.NativeEndian.PutUint32(b[24:], uint32(scope))
	return Addr{unix.SOCK_STREAM, proto, string(b)}
}

// UnixAddr makes the address of a Unix stream socket at path.
func UnixAddr(path string) Addr {
	b := make([]byte, 2, 3+len(path))
	binary.NativeEndian.PutUint16(b, unix.AF_UNIX)
	return Addr{unix.SOCK_STREAM, 0, string(append(append(b, path...), 0))}
}

// AddrPort is the internet address and port of a, with the scope id as a
// decimal zone; ok is false for other families.
func (a Addr) AddrPort() (ap netip.AddrPort, ok bool) {
	b := []byte(a.Sockaddr)
	switch {
	case a.Family() == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case a.Family() == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		ip := netip.AddrFrom16([16]byte(b[8:24]))
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}

// Path is the path of a Unix address as the kernel reads it, to the first NUL;
// an abstract one with its leading NUL; "" for other families and unnamed peers.
func (a Addr) Path() string {
	if a.Family() != unix.AF_UNIX {
		return ""
	}
	if path := a.Sockaddr[2:]; strings.HasPrefix(path, "\x00") {
		return path
	}
	path, _, _ := strings.Cut(a.Sockaddr[2:], "\x00")
	return path
}

// VsockAddr makes the address of a vsock: context id and port, either of them
// the kernel's "any" (unix.VMADDR_CID_ANY, unix.VMADDR_PORT_ANY) to listen.
func VsockAddr(cid, port uint32) Addr {
	b := make([]byte, unix.SizeofSockaddrVM)
	binary.NativeEndian.PutUint16(b, unix.AF_VSOCK)
	binary.NativeEndian.PutUint32(b[4:], port)
	binary.NativeEndian.PutUint32(b[8:], cid)
	return Addr{unix.SOCK_STREAM, 0, string(b)}
}

// Vsock is the context id and port of a vsock address; ok is false for other
// families.
func (a Addr) Vsock() (cid, port uint32, ok bool) {
	b := []byte(a.Sockaddr)
	if a.Family() != unix.AF_VSOCK || len(b) < unix.SizeofSockaddrVM {
		return 0, 0, false
	}
	return binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[4:]), true
}
