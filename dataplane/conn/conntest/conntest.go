// Package conntest makes connected pairs of streams for tests.
package conntest

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"

	"golang.org/x/sys/unix"
)

// Pipe is two ends of one stream without a kernel: unbuffered, and fit for the
// virtual time of testing/synctest.
func Pipe() (a, b conn.Stream) { return net.Pipe() }

// SockPair is two ends of a Unix stream socket, closed with the test.
func SockPair(t testing.TB) (a, b *conn.Sock) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return sock(t, fds[0]), sock(t, fds[1])
}

func sock(t testing.TB, fd int) *conn.Sock {
	t.Helper()
	s, err := conn.NewSock(fd, abi.UnixAddr("/socketpair"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TCPPair is two ends of a TCP connection over loopback, closed with the test.
func TCPPair(t testing.TB) (a, b *conn.Sock) {
	t.Helper()
	return Pair(t, abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("127.0.0.1:0")))
}

// Pair is two ends of a connection to where, an address to listen on; a dialled
// it. They are closed with the test.
func Pair(t testing.TB, where abi.Addr) (a, b *conn.Sock) {
	t.Helper()
	l, err := conn.Listen(where)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = conn.Dial(context.Background(), l.Addr(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if b, _, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return a, b
}
