package conn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"dst/abi"

	"golang.org/x/sys/unix"
)

const (
	backlog = 4096 // the kernel lowers it to net.core.somaxconn

	// Pauses of Accept while the system has no descriptor or memory for more.
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// Listener accepts connections on one address. All methods may be called by any
// goroutine.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	addr abi.Addr
	path *socketPath // a Unix socket's place in the file system, else nil
	stop chan struct{}
	once sync.Once
}

// Listen binds a and listens. An internet address may be left in TIME_WAIT by a
// predecessor; [::] takes IPv4 too; a Unix socket gets mode 0600 (ListenUnix).
// Errors: what bind(2) and listen(2) say, with the address and what to do.
func Listen(a abi.Addr) (*Listener, error) {
	if path := unixPath(a); path != "" {
		return listenUnix(a, path, 0o600)
	}
	fd, err := newSocket(a)
	if err == nil {
		err = bindInet(fd, a)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		closeFD(fd)
		return nil, listenError(a, err)
	}
	return newListener(fd, a, nil)
}

func listenError(a abi.Addr, err error) error {
	return fmt.Errorf("listen on %s: %w%s", a, err, advice(err, a))
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// bindInet binds what has no place in the file system.
func bindInet(fd int, a abi.Addr) error {
	if ap, ok := a.AddrPort(); ok {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if ap.Addr().Is6() {
			only := 1
			if ap.Addr().IsUnspecified() || ap.Addr().Is4In6() {
				only = 0 // whatever net.ipv6.bindv6only says
			}
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
				return err
			}
		}
	}
	return withAddr(unix.SYS_BIND, fd, a)
}

// newListener owns fd, which listens, and path.
func newListener(fd int, a abi.Addr, path *socketPath) (*Listener, error) {
	bound := localAddr(fd, a)
	l := &Listener{file: os.NewFile(uintptr(fd), a.String()), addr: bound, path: path, stop: make(chan struct{})}
	var err error
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.Close()
		return nil, listenError(a, err)
	}
	return l, nil
}

// Addr is the address bound, with the port that the kernel chose for port 0.
func (l *Listener) Addr() abi.Addr { return l.addr }

// Accept waits for the next connection and gives it with its peer's address as
// the kernel has it: an IPv4 peer of an IPv6 socket stays mapped, a Unix peer is
// only a family (see Sock.Cred). While the system lacks descriptors or memory it
// tries again, ever more slowly; net.ErrClosed after Close.
func (l *Listener) Accept() (*Sock, abi.Addr, error) {
	for pause := acceptPause; ; {
		fd, peer, err := l.accept()
		switch {
		case err == nil:
			tune(fd, peer)
			s, err := NewSock(fd, peer)
			return s, peer, err
		case errors.Is(err, net.ErrClosed):
			return nil, abi.Addr{}, err
		case !passing(err):
			return nil, abi.Addr{}, fmt.Errorf("accept on %s: %w", l.addr, err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, acceptPauseMax)
		case <-l.stop:
			return nil, abi.Addr{}, net.ErrClosed
		}
	}
}

// accept is one accepted descriptor, or an error that is not worth a try at once.
func (l *Listener) accept() (fd int, peer abi.Addr, err error) {
	var errno unix.Errno
	if err := l.raw.Read(func(lfd uintptr) bool {
		for {
			fd, peer, errno = accept4(lfd, l.addr)
			if errno != unix.EINTR && errno != unix.ECONNABORTED {
				return errno != unix.EAGAIN
			}
		}
	}); err != nil {
		return -1, peer, polled(err)
	}
	if errno != 0 {
		return -1, peer, errno
	}
	return fd, peer, nil
}

// passing tells errors after which the listener is still good: somebody else
// must free something, or accept(2) reports what befell a single connection.
func passing(err error) bool {
	switch err {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EPERM,
		unix.ENETDOWN, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
		unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.ETIMEDOUT:
		return true
	}
	return false
}

// Close ends Accept, and removes a Unix socket's path if it is still this
// listener's. Idempotent.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.stop)
		if l.path != nil {
			err = l.path.remove()
		}
		err = errors.Join(err, l.file.Close())
	})
	return err
}
