package conn

import (
	"context"
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
		if err == unix.ETIMEDOUT {
			err = fmt.Errorf("no answer within %v: %w", timeout, err)
		}
	}
	return nil, fmt.Errorf("connect %s: %w%s", a, err, advice(err, a))
}

func dial(ctx context.Context, a abi.Addr) (*Sock, error) {
	fd, err := newSocket(a)
	if err != nil {
		return nil, err
	}
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
