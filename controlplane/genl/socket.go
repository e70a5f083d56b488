package genl

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bytes of the socket's buffers: a burst of requests of all clients, and the
// largest answer.
const (
	receiveBuffer = 4 << 20
	sendBuffer    = 1 << 20
)

// Socket is a netlink socket bound to a port id of its own.
type Socket struct {
	file *os.File
	raw  syscall.RawConn
}

// Listen opens a NETLINK_GENERIC socket at port in the network namespace of the
// calling thread. The kernel lets only CAP_NET_ADMIN send to it (genetlink sets
// no NL_CFG_F_NONROOT_SEND), and tells who did. Errors: EADDRINUSE, naming who
// holds the port; ENOBUFS, EMFILE and such.
func Listen(port uint32) (*Socket, error) { return ListenOn(unix.NETLINK_GENERIC, port) }

// ListenOn is Listen for another netlink protocol, as a member of multicast
// groups too. Whom the kernel lets send is up to the protocol. Errors besides:
// EPROTONOSUPPORT if the kernel does not have it.
func ListenOn(protocol int, port uint32, groups ...int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := bind(fd, protocol, port, groups); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "netlink")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Socket{file, raw}, nil
}

// bind sets fd up and gives it its port. Credentials are asked for before:
// no message may arrive without them.
func bind(fd, protocol int, port uint32, groups []int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("SO_PASSCRED", err)
	}
	for _, o := range []struct{ force, plain, size int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, o.size) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, o.size); err != nil {
			return os.NewSyscallError("SO_RCVBUF", err)
		}
	}
	err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port})
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("netlink port %#x is held by %s, stop it first: %w", port, holder("/proc", protocol, port), err)
	}
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return os.NewSyscallError("NETLINK_ADD_MEMBERSHIP", err)
		}
	}
	return nil
}

// Recv implements Conn.
func (s *Socket) Recv(buf []byte) (Datagram, error) {
	var (
		d       Datagram
		oob     [128]byte
		n, oobn int
		from    unix.Sockaddr
		failed  error
	)
	err := s.raw.Read(func(fd uintptr) bool {
		failed = unix.EINTR
		for failed == unix.EINTR {
			n, oobn, _, from, failed = unix.Recvmsg(int(fd), buf, oob[:], unix.MSG_TRUNC|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		}
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return d, err
	}
	d.Size, d.Data = n, buf[:min(n, len(buf))]
	if a, ok := from.(*unix.SockaddrNetlink); ok {
		d.Port = a.Pid
	}
	d.Cred = credentials(oob[:oobn])
	return d, nil
}

// credentials finds SCM_CREDENTIALS among the control messages oob.
func credentials(oob []byte) *unix.Ucred {
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range scms {
		if cred, err := unix.ParseUnixCredentials(&scms[i]); err == nil {
			return cred
		}
	}
	return nil
}

// Send implements Conn. It is a raw sendto: waiting in the runtime's poller for
// a full peer would never end, since its reading wakes nobody here.
func (s *Socket) Send(port uint32, b []byte) error {
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}
	failed := error(unix.EINTR)
	err := s.raw.Control(func(fd uintptr) {
		for failed == unix.EINTR {
			failed = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// SetReadDeadline implements Conn.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }

// Close implements Conn.
func (s *Socket) Close() error { return s.file.Close() }
