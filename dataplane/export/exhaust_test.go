package export

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
)

// TestDescriptorsRunOut: while the process has none left, who is served stays
// served, and within a second of there being some again new clients are too.
func TestDescriptorsRunOut(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		eventually(t, "others have gone", func() bool { return len(w.Status().Sessions) == 1 && w.halfOpen() == 0 })
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		none := limit
		none.Cur = uint64(lowestFree(t))
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			t.Fatal(err)
		}
		ap, _ := w.Addrs()[0].AddrPort()
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
		accepted := 0
		for range 20 {
			accepted += w.halfOpen()
			want(t, "WRITE of who is served", c.write(0, pattern(4096, 1), 0), 0)
			time.Sleep(10 * time.Millisecond)
		}
		if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); back != nil || err != nil {
			t.Fatal(back, err)
		}
		want(t, "accepted meanwhile", accepted, 0)
		began := time.Now()
		late := &client{t: t, st: sockOf(t, fd)}
		err = late.greet(helloOf(2, uint64(time.Now().UnixNano()), abi.PermRead))
		t.Logf("served again after %v", time.Since(began))
		if err != nil || time.Since(began) > 1500*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		_ = late.st.Close()
	}
}

// lowestFree is the descriptor that the process would get next.
func lowestFree(t *testing.T) int {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	return fd
}

// sockOf is the stream of a connected socket.
func sockOf(t *testing.T, fd int) conn.Stream {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	s, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return s
}
