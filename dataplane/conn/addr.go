package conn

import (
	"fmt"
	"unsafe"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// The system calls of this file take and give raw socket addresses: the typed
// ones of the unix package know few families and lose bytes of those they know.

// newSocket makes a non-blocking socket for a. Errors lack the address: the
// caller says what it was for.
func newSocket(a abi.Addr) (int, error) {
	if err := a.Check(); err != nil {
		return -1, err
	}
	if a.Type != unix.SOCK_STREAM {
		return -1, fmt.Errorf("socket type %d is not a stream: %w", a.Type, unix.ESOCKTNOSUPPORT)
	}
	fd, err := unix.Socket(int(a.Family()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(a.Proto))
	if err != nil {
		return -1, err
	}
	tune(fd, a)
	return fd, nil
}

// tune prepares fd, before it is connected or listens and again when it was
// accepted: small segments leave without delay, as frames are gathered anyway.
// Where a kernel cannot (MPTCP before 5.17) the connection is only slower.
func tune(fd int, a abi.Addr) {
	switch a.Medium() {
	case "tcp", "mptcp":
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	case "sctp":
		tuneSCTP(fd)
	}
}

// withAddr is bind or connect: trap is unix.SYS_BIND or unix.SYS_CONNECT. Neither
// waits: the socket is non-blocking.
func withAddr(trap uintptr, fd int, a abi.Addr) error {
	raw := []byte(a.Sockaddr)
	_, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)))
	if errno != 0 {
		return errno
	}
	return nil
}

// rawAddr is room for an address that the kernel fills in. The kernel's length
// is of the whole address, which may have been cut; no family has that long ones.
type rawAddr struct {
	n   uint32
	raw [abi.SockaddrMax]byte
}

// addr is what was filled in, with type and protocol of its kin.
func (r *rawAddr) addr(kin abi.Addr) abi.Addr {
	n := min(int(r.n), len(r.raw))
	if n < 2 {
		return abi.Addr{}
	}
	return abi.Addr{Type: kin.Type, Proto: kin.Proto, Sockaddr: string(r.raw[:n])}
}

// askAddr is getsockname or getpeername: trap is unix.SYS_GETSOCKNAME or
// unix.SYS_GETPEERNAME.
func askAddr(trap uintptr, fd int, kin abi.Addr) (abi.Addr, error) {
	r := rawAddr{n: abi.SockaddrMax}
	_, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&r.raw[0])), uintptr(unsafe.Pointer(&r.n)))
	if errno != 0 {
		return abi.Addr{}, errno
	}
	return r.addr(kin), nil
}

// localAddr is the address of this end, none if the kernel has none.
func localAddr(fd int, kin abi.Addr) abi.Addr {
	a, _ := askAddr(unix.SYS_GETSOCKNAME, fd, kin)
	return a
}

// accept4 takes the next connection and its peer's address.
func accept4(fd uintptr, kin abi.Addr) (int, abi.Addr, unix.Errno) {
	r := rawAddr{n: abi.SockaddrMax}
	nfd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&r.raw[0])), uintptr(unsafe.Pointer(&r.n)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, abi.Addr{}, errno
	}
	return int(nfd), r.addr(kin), 0
}
