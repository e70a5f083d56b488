package conn_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/dataplane/conn"
)

// alone runs f on a thread with a network namespace of its own, loopback up.
func alone(t *testing.T, f func() error) error {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIP: a network namespace needs root")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		if err := loopbackUp(); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func loopbackUp() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// TestDialDoesNotMeetItself: where the kernel's only port for clients is the one
// that is dialled, TCP connects the socket to itself; that is no peer.
func TestDialDoesNotMeetItself(t *testing.T) {
	if err := alone(t, dialOnlyPort); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
}

func dialOnlyPort() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("5000 5000"), 0); err != nil {
		return err
	}
	s, err := conn.Dial(context.Background(), tcp("127.0.0.1:5000"), time.Second)
	if err == nil {
		_ = s.Close()
	}
	return err
}

// TestScope: link-local addresses carry the interface's number both ways.
func TestScope(t *testing.T) {
	if err := alone(t, callLinkLocal); err != nil {
		t.Fatal(err)
	}
}

func callLinkLocal() error {
	ip := netip.MustParseAddr("fe80::1")
	const lo = 1 // the first interface of every namespace
	if err := addAddr6(ip, lo); err != nil {
		return err
	}
	l, err := conn.Listen(tcp("[fe80::1%1]:0"))
	for end := time.Now().Add(10 * time.Second); errors.Is(err, unix.EADDRNOTAVAIL) && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // the kernel looks first whether somebody else has the address
		l, err = conn.Listen(tcp("[fe80::1%1]:0"))
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	s, err := conn.Dial(context.Background(), l.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	r, peer, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	ap, _ := peer.AddrPort()
	if peer != s.LocalAddr() || ap.Addr() != ip.WithZone("1") || s.PeerAddr() != l.Addr() {
		return fmt.Errorf("listening on %s, called by %s, dialled from %s", l.Addr(), peer, s.LocalAddr())
	}
	if _, err := conn.Dial(context.Background(), tcp("[fe80::1%77]:9"), time.Second); err == nil {
		return errors.New("dialled through an interface that is not there")
	}
	return nil
}

// addAddr6 gives an interface an address (SIOCSIFADDR with struct in6_ifreq).
func addAddr6(ip netip.Addr, index int32) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req := struct {
		addr   [16]byte
		prefix uint32
		index  int32
	}{ip.As16(), 64, index}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
