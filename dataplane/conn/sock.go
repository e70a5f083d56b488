package conn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// Sock is a connected stream socket of any family. It is non-blocking and waits
// in the runtime's poller. Read may be called by one goroutine at a time, so may
// Write; everything else by any.
type Sock struct {
	file *os.File
	raw  syscall.RawConn
	peer abi.Addr
	most int // bytes of one send

	// What passes between a caller and the function that the poller calls with
	// the descriptor. The functions are made once: a closure for each call
	// would be an allocation for each call.
	r, w vector
	wait bool // the writing side waits for room
}

// vector is one readv or writev on its way, owned by the one who reads or writes.
type vector struct {
	op    func(fd uintptr) bool
	iov   []unix.Iovec // keeps what it points to alive: the pointers are typed
	n     int
	errno syscall.Errno
	two   [2]unix.Iovec
}

// NewSock makes a Sock of a connected stream socket and owns fd from now on,
// also if it fails. peer says where it leads, for messages.
func NewSock(fd int, peer abi.Addr) (*Sock, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("socket %d: %w", fd, err)
	}
	s := &Sock{file: os.NewFile(uintptr(fd), peer.String()), peer: peer, most: sendLimit(fd, peer)}
	var err error
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("socket %d: %w", fd, err)
	}
	s.r.op, s.w.op = s.readOp, s.writeOp
	return s, nil
}

// Read receives at most len(p) bytes; io.EOF when the peer has closed.
func (s *Sock) Read(p []byte) (int, error) { return s.readv(p, nil) }

// Write sends all of p, waiting for room as long as it takes.
func (s *Sock) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var some int
		iov := s.w.two[:1]
		point(&iov[0], p[n:min(len(p), n+s.most)])
		some, err = s.writev(iov, true)
		n += some
	}
	return n, err
}

// readv receives into p and, what is more than fits there, into more.
func (s *Sock) readv(p, more []byte) (int, error) {
	if len(p) == 0 {
		p, more = more, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	r := &s.r
	r.iov = r.two[:1]
	point(&r.two[0], p)
	if len(more) > 0 {
		r.iov = r.two[:2]
		point(&r.two[1], more)
	}
	err := s.raw.Read(r.op)
	clear(r.iov)
	switch {
	case err != nil:
		return 0, polled(err)
	case r.errno != 0:
		return 0, fmt.Errorf("receive from %s: %w", s.peer, r.errno)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

func (s *Sock) readOp(fd uintptr) bool { return s.r.call(unix.SYS_READV, fd, true) }

// writev sends from iov, in one call, what the socket takes; it has at most s.most
// bytes. With wait it waits
// until that is something, else EAGAIN (as it is) says that it is nothing. Only
// the holder of the writing role may call it; iov is cleared.
func (s *Sock) writev(iov []unix.Iovec, wait bool) (int, error) {
	w := &s.w
	w.iov, s.wait = iov, wait
	err := s.raw.Write(w.op)
	// Memory that is unmapped later must not be pointed to from the heap.
	clear(iov)
	w.iov = nil
	switch {
	case err != nil:
		return 0, polled(err)
	case w.errno == unix.EAGAIN:
		return 0, errAgain
	case w.errno != 0:
		return 0, fmt.Errorf("send to %s: %w", s.peer, w.errno)
	}
	return w.n, nil
}

// errAgain is EAGAIN as an error value made once.
var errAgain error = unix.EAGAIN

func (s *Sock) writeOp(fd uintptr) bool { return s.w.call(unix.SYS_WRITEV, fd, s.wait) }

// call is the system call; false asks the poller to wait and call again.
// SIGPIPE: the Go runtime ignores it for descriptors other than 1 and 2, the
// caller sees EPIPE. Raw: the descriptor never blocks, and telling the scheduler
// of every call costs more than most of them do (it keeps its monitor awake).
func (v *vector) call(trap, fd uintptr, wait bool) bool {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&v.iov[0])), uintptr(len(v.iov)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN && wait:
			return false
		}
		v.n, v.errno = int(n), errno
		return true
	}
}

// point makes v lead to p, which is not empty. p may lie on or off the Go heap.
func point(v *unix.Iovec, p []byte) {
	v.Base = unsafe.SliceData(p)
	v.SetLen(len(p))
}

// polled turns the poller's refusal into what package net says: a deadline
// (os.ErrDeadlineExceeded) or net.ErrClosed.
func polled(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return net.ErrClosed
}

// Close closes the socket; whoever reads or writes returns with net.ErrClosed.
// Idempotent.
func (s *Sock) Close() error {
	if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close the connection to %s: %w", s.peer, err)
	}
	return nil
}

// SetReadDeadline makes a waiting and every later Read fail with
// os.ErrDeadlineExceeded from t on; the zero time takes that back.
func (s *Sock) SetReadDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }

// SetWriteDeadline is the same for Write.
func (s *Sock) SetWriteDeadline(t time.Time) error { return s.file.SetWriteDeadline(t) }

// PeerAddr is the address of the other end. A Unix client has none but its
// family: see Cred.
func (s *Sock) PeerAddr() abi.Addr { return s.peer }

// LocalAddr is the address of this end, none if the socket is closed.
func (s *Sock) LocalAddr() (a abi.Addr) {
	_ = s.raw.Control(func(fd uintptr) { a = localAddr(int(fd), s.peer) })
	return a
}

// Cred tells who opened the other end of a Unix socket (SO_PEERCRED).
func (s *Sock) Cred() (cred *unix.Ucred, err error) {
	if cerr := s.raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", s.peer, err)
	}
	return cred, nil
}
