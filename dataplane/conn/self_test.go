package conn_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/dataplane/conn"
)

// TestDialDoesNotMeetItself: where the kernel's only port for clients is the one
// that is dialled, TCP connects the socket to itself; that is no peer.
func TestDialDoesNotMeetItself(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: a network namespace needs root")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		result <- dialOnlyPort()
	}()
	if err := <-result; !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
}

func dialOnlyPort() error {
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
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("5000 5000"), 0); err != nil {
		return err
	}
	s, err := conn.Dial(context.Background(), tcp("127.0.0.1:5000"), time.Second)
	if err == nil {
		_ = s.Close()
	}
	return err
}
