package conn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// fullBacklog is the pause before a Unix socket whose listener has too many
// unanswered connections is tried again: the kernel offers nothing to wait for.
const fullBacklog = 10 * time.Millisecond

// Dial connects to a, within timeout and as long as ctx lives. Errors: what
// connect(2) says, ETIMEDOUT, or the cause of ctx, in a sentence with the
// address and what to do.
func Dial(ctx context.Context, a abi.Addr, timeout time.Duration) (*Sock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, unix.ETIMEDOUT)
	defer cancel()
	s, err := dial(ctx, a)
	if err == nil {
		return s, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // whatever was interrupted
	}
	if errors.Is(err, unix.ETIMEDOUT) {
		return nil, fmt.Errorf("connect %s: no answer within %v: %w%s", a, timeout, unix.ETIMEDOUT, advice(unix.ETIMEDOUT, a))
	}
	return nil, fmt.Errorf("connect %s: %w%s", a, err, advice(err, a))
}

func dial(ctx context.Context, a abi.Addr) (*Sock, error) {
	fd, err := newSocket(a)
	if err != nil {
		return nil, err
	}
	prompt(fd, a)
	err = withAddr(unix.SYS_CONNECT, fd, a)
	for err == unix.EAGAIN {
		select {
		case <-ctx.Done():
		case <-time.After(fullBacklog):
			err = withAddr(unix.SYS_CONNECT, fd, a)
			continue
		}
		break
	}
	if err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		_ = unix.Close(fd)
		return nil, err
	}
	s, err := NewSock(fd, a)
	if err != nil {
		return nil, err
	}
	if err = s.connected(ctx); err == nil && s.LocalAddr() == a {
		// A port of the range that the kernel gives to clients, with nobody
		// listening: TCP's simultaneous open met itself.
		err = unix.ECONNREFUSED
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// connected waits for the end of a connect, good or bad.
func (s *Sock) connected(ctx context.Context) error {
	interrupt := context.AfterFunc(ctx, func() { _ = s.SetWriteDeadline(time.Unix(1, 0)) })
	var result error
	err := s.raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		if result = err; err != nil {
			return true
		}
		// No error yet: connected if there is a peer, else not ready, whatever
		// the poller believed.
		_, err = askAddr(unix.SYS_GETPEERNAME, int(fd), s.peer)
		return err == nil
	})
	if err != nil {
		return polled(err)
	}
	if !interrupt() && result == nil {
		return os.ErrDeadlineExceeded // too late: the deadline may be set any moment
	}
	return result
}

// advice says what to do about a failed connect, listen or socket call.
func advice(err error, a abi.Addr) string {
	isUnix := a.Family() == unix.AF_UNIX
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case unix.ECONNREFUSED:
		return ": is dstd running there and the export started?"
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN:
		return ": is the host up, and do routes and firewalls let this port through?"
	case unix.ENOENT:
		if isUnix {
			return ": does the daemon behind it run, and is the path right?"
		}
	case unix.EACCES, unix.EPERM:
		if isUnix {
			return ": the permissions of the socket or of a directory above it forbid it"
		}
		return ": a firewall or a security policy of this host forbids it"
	case unix.EADDRINUSE:
		return ": somebody listens there already: choose another address, or stop them"
	case unix.EADDRNOTAVAIL:
		return ": this host has no such address"
	case unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.EPROTOTYPE, unix.ENOPROTOOPT:
		return ": this kernel has no such sockets, or a module is not loaded"
	case unix.EMFILE, unix.ENFILE:
		return ": raise the limit of open files"
	}
	return ""
}
