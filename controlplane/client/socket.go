package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

const (
	largest       = 1 << 16 // bytes of an answer
	receiveBuffer = 1 << 20
	maxEarly      = 1024 // events kept while a call waits for its answer
)

// socket is a NETLINK_GENERIC socket that is connected to the daemon's port: a
// netlink.Socket which knows whom it may believe. Its methods are called by one
// goroutine at a time, but for close and interrupt.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	port uint32 // own
	peer uint32 // the daemon's

	seq    uint32            // of the last request: answers to earlier ones are dropped
	early  []netlink.Message // events that came while an answer was waited for
	missed uint64            // events that found no room in early

	ctx   context.Context
	until time.Time
	idle  time.Duration // how much longer every datagram makes the wait
	buf   []byte
	ended atomic.Bool
}

// open makes a socket in the network namespace of the calling thread.
func open(peer uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	own, err := connect(fd, peer)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), "netlink"), port: own, peer: peer, ctx: context.Background(), buf: make([]byte, largest)}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// connect sets fd up and returns its port. Credentials are asked for first: no
// datagram may arrive without. A connected socket receives from its peer only.
func connect(fd int, peer uint32) (own uint32, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return 0, os.NewSyscallError("SO_PASSCRED", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return 0, os.NewSyscallError("SO_RCVBUF", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: peer}); err != nil {
		return 0, os.NewSyscallError("connect", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return name.(*unix.SockaddrNetlink).Pid, nil
}

// wait makes the receives that follow end with ctx, at its deadline, or, if it
// has none, after idle without a datagram.
func (s *socket) wait(ctx context.Context, idle time.Duration) {
	s.ctx, s.idle = ctx, 0
	var ok bool
	if s.until, ok = ctx.Deadline(); !ok {
		s.idle, s.until = idle, time.Now().Add(idle)
	}
}

// interrupt wakes a receive that waits. Any goroutine may call it.
func (s *socket) interrupt() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) }

// Close implements netlink.Socket. Any goroutine may call it.
func (s *socket) Close() error {
	s.ended.Store(true)
	return s.file.Close()
}

// SendMessages implements netlink.Socket.
func (s *socket) SendMessages(ms []netlink.Message) error {
	for _, m := range ms {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// Send implements netlink.Socket. It never waits: EAGAIN means that the daemon
// does not read. What was sent is erased, it may hold keys.
func (s *socket) Send(m netlink.Message) error {
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	defer clear(b)
	defer clear(m.Data)
	s.seq = m.Header.Sequence
	failed := error(unix.EINTR)
	err = s.raw.Control(func(fd uintptr) {
		for failed == unix.EINTR {
			failed = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: s.peer})
		}
	})
	switch {
	case s.ended.Load():
		return os.ErrClosed
	case err != nil:
		return err
	}
	return os.NewSyscallError("sendto", failed)
}

// Receive implements netlink.Socket.
func (s *socket) Receive() (ms []netlink.Message, err error) {
	for m, err := range s.ReceiveIter() {
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// ReceiveIter implements netlink.Socket: the messages of the next datagram that
// has an answer to the last request.
func (s *socket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		for found := false; !found; {
			ms, err := s.datagram()
			if err != nil {
				yield(netlink.Message{}, err)
				return
			}
			for _, m := range ms {
				if m.Header.Sequence != s.seq {
					s.keep(m)
					continue
				}
				found = true
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// keep puts an event aside: one with sequence 0. Other messages are late
// answers to a request that was given up, or to a former owner of the port.
func (s *socket) keep(m netlink.Message) {
	switch {
	case m.Header.Sequence != 0 || m.Header.Type < unix.NLMSG_MIN_TYPE:
	case len(s.early) >= maxEarly:
		s.missed++
	default:
		s.early = append(s.early, m)
	}
}

// datagram receives the next datagram of the daemon and takes it apart.
func (s *socket) datagram() ([]netlink.Message, error) {
	for {
		b, err := s.receive()
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		if s.idle > 0 {
			s.until = time.Now().Add(s.idle)
		}
		return split(bytes.Clone(b))
	}
}

// receive receives one datagram; nil if it is not to be believed.
func (s *socket) receive() (b []byte, err error) {
	var (
		oob     [128]byte
		n, oobn int
		from    unix.Sockaddr
		failed  error
	)
	for {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.file.SetReadDeadline(s.until); err != nil {
			return nil, err
		}
		stop := context.AfterFunc(s.ctx, s.interrupt)
		err = s.raw.Read(func(fd uintptr) bool {
			failed = unix.EINTR
			for failed == unix.EINTR {
				n, oobn, _, from, failed = unix.Recvmsg(int(fd), s.buf, oob[:], unix.MSG_TRUNC|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			}
			return failed != unix.EAGAIN
		})
		stop()
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(s.until) {
			break // else: the interrupt of a context that ended, perhaps that of an earlier call
		}
	}
	if s.ended.Load() {
		return nil, os.ErrClosed
	}
	if err = errors.Join(err, os.NewSyscallError("recvmsg", failed)); err != nil {
		return nil, err
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != s.peer || n > len(s.buf) || !fromRoot(oob[:oobn]) {
		return nil, nil
	}
	return s.buf[:n], nil
}

// fromRoot says whether the control messages oob name uid 0 as the sender.
func fromRoot(oob []byte) bool {
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for i := range scms {
		if cred, err := unix.ParseUnixCredentials(&scms[i]); err == nil {
			return cred.Uid == 0
		}
	}
	return false
}

// split takes a datagram apart. Errors: EBADMSG for a length that lies.
func split(b []byte) (ms []netlink.Message, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return nil, badMessage
		}
		h := netlink.Header{
			Length: native.Uint32(b), Type: netlink.HeaderType(native.Uint16(b[4:])), Flags: netlink.HeaderFlags(native.Uint16(b[6:])),
			Sequence: native.Uint32(b[8:]), PID: native.Uint32(b[12:]),
		}
		if h.Length < unix.NLMSG_HDRLEN || uint64(h.Length) > uint64(len(b)) {
			return nil, badMessage
		}
		ms = append(ms, netlink.Message{Header: h, Data: b[unix.NLMSG_HDRLEN:h.Length]})
		b = b[min((int(h.Length)+3)&^3, len(b)):]
	}
	return ms, nil
}

var badMessage = &Error{Errno: unix.EBADMSG, Msg: "the daemon's answer is malformed: use a dstctl of its version"}
