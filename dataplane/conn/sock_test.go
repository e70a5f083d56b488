package conn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"

	"golang.org/x/sys/unix"
)

func tcp(s string) abi.Addr { return abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort(s)) }

func listen(t *testing.T, a abi.Addr) *conn.Listener {
	t.Helper()
	l, err := conn.Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial(t *testing.T, a abi.Addr) *conn.Sock {
	t.Helper()
	s, err := conn.Dial(context.Background(), a, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func accept(t *testing.T, l *conn.Listener) (*conn.Sock, abi.Addr) {
	t.Helper()
	s, peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, peer
}

// descriptors is the number of open ones of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestDialAndAccept(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen abi.Addr
		dial   func(l *conn.Listener) abi.Addr
		peer   func(s *conn.Sock) abi.Addr // as the listener sees it
	}{
		{"IPv4", tcp("127.0.0.1:0"), (*conn.Listener).Addr, (*conn.Sock).LocalAddr},
		{"IPv6", tcp("[::1]:0"), (*conn.Listener).Addr, (*conn.Sock).LocalAddr},
		{"IPv4 to [::]", tcp("[::]:0"),
			func(l *conn.Listener) abi.Addr {
				ap, _ := l.Addr().AddrPort()
				return abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ap.Port()))
			},
			func(s *conn.Sock) abi.Addr {
				ap, _ := s.LocalAddr().AddrPort()
				return abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), ap.Port()))
			}},
		{"IPv4 by its mapped address", tcp("[::ffff:127.0.0.1]:0"), (*conn.Listener).Addr, (*conn.Sock).LocalAddr},
		{"Unix", abi.UnixAddr(filepath.Join(t.TempDir(), "s")), (*conn.Listener).Addr, (*conn.Sock).LocalAddr},
		{"abstract Unix", abi.Addr{Type: unix.SOCK_STREAM, Sockaddr: abi.UnixAddr("").Sockaddr[:2] + "\x00conn test " + t.Name()},
			(*conn.Listener).Addr, (*conn.Sock).LocalAddr},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, c.listen)
			s := dial(t, c.dial(l))
			r, peer := accept(t, l)
			if peer != c.peer(s) || r.PeerAddr() != peer {
				t.Errorf("accepted %s, %s; dialled from %s", peer, r.PeerAddr(), s.LocalAddr())
			}
			if s.PeerAddr() != c.dial(l) || r.LocalAddr().Family() != c.listen.Family() {
				t.Errorf("peer %s, local %s", s.PeerAddr(), r.LocalAddr())
			}
			write(t, s, []byte("there"))
			write(t, r, []byte("back "))
			for _, x := range []*conn.Sock{s, r} {
				if _, err := io.ReadFull(x, make([]byte, 5)); err != nil {
					t.Error(err)
				}
			}
			_ = r.Close()
			if n, err := s.Read(make([]byte, 5)); n != 0 || err != io.EOF {
				t.Errorf("after the peer closed: %d, %v", n, err)
			}
		})
	}
}

func TestSockCred(t *testing.T) {
	l := listen(t, abi.UnixAddr(filepath.Join(t.TempDir(), "s")))
	dial(t, l.Addr())
	s, _ := accept(t, l)
	cred, err := s.Cred()
	if err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid() {
		t.Errorf("%+v, %v", cred, err)
	}
	_ = s.Close()
	if _, err := s.Cred(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("of a closed socket: %v", err)
	}
	if a := s.LocalAddr(); !a.IsZero() {
		t.Errorf("a closed socket is at %s", a)
	}
}

// TestSockEPIPE: writing to a closed peer is an error, not a signal.
func TestSockEPIPE(t *testing.T) {
	a, b := conntest.SockPair(t)
	_ = b.Close()
	if _, err := a.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("%v", err)
	}
}

func TestSockCloseEndsReadAndWrite(t *testing.T) {
	a, _ := conntest.SockPair(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	})
	wg.Go(func() {
		if _, err := a.Write(make([]byte, 20<<20)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
	})
	for range 2 {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func TestSockWriteDeadline(t *testing.T) {
	a, _ := conntest.SockPair(t)
	if err := a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(make([]byte, 20<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestNewSockRefusesWhatIsClosed(t *testing.T) {
	if _, err := conn.NewSock(1<<20, abi.Addr{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("%v", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	gone := listen(t, tcp("127.0.0.1:0"))
	refused := gone.Addr()
	_ = gone.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	odd := tcp("127.0.0.1:1")
	odd.Type = unix.SOCK_DGRAM
	alien := abi.Addr{Type: unix.SOCK_STREAM, Sockaddr: "\xff\x00\x00\x00"}
	short := abi.Addr{Type: unix.SOCK_STREAM, Sockaddr: "\x02"}
	before := descriptors(t)
	for _, c := range []struct {
		a    abi.Addr
		want error
		says string
	}{
		{refused, unix.ECONNREFUSED, "connect " + refused.String() + ": connection refused: is dstd running there"},
		{abi.UnixAddr(filepath.Join(dir, "none")), unix.ENOENT, "is the path right?"},
		{abi.UnixAddr(file), unix.ECONNREFUSED, "is dstd running"},
		{odd, unix.ESOCKTNOSUPPORT, "not a stream"},
		{alien, unix.EAFNOSUPPORT, "this kernel has no such sockets"},
		{short, unix.EINVAL, "bytes"},
		{abi.Addr{}, unix.EINVAL, "connect none"},
	} {
		s, err := conn.Dial(context.Background(), c.a, 10*time.Second)
		if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q with %v", c.a, err, c.says, c.want)
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// full is a Unix listener whose backlog is used up: connecting to it waits.
func full(t *testing.T) (a abi.Addr, accept func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "full")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	a = abi.UnixAddr(path)
	dial(t, a)
	return a, func() {
		if nfd, _, err := unix.Accept(fd); err == nil {
			_ = unix.Close(nfd)
		}
	}
}

func TestDialTimesOut(t *testing.T) {
	a, _ := full(t)
	before := descriptors(t)
	_, err := conn.Dial(context.Background(), a, 30*time.Millisecond)
	if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "no answer within 30ms") {
		t.Errorf("%v", err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestDialTCPTimesOutAndStops(t *testing.T) {
	a := blackHole(t)
	if _, err := conn.Dial(context.Background(), a, 50*time.Millisecond); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("%v", err)
	}
	cause := errors.New("the node was deleted")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := conn.Dial(ctx, a, time.Hour); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if _, err := conn.Dial(ctx, a, time.Hour); !errors.Is(err, cause) { // cancelled before
		t.Errorf("%v", err)
	}
}

// blackHole is a TCP address that answers no SYN: a listener with a full backlog.
func blackHole(t *testing.T) abi.Addr {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	a := abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port)))
	for { // until nobody answers
		s, err := conn.Dial(context.Background(), a, 50*time.Millisecond)
		if err != nil {
			return a
		}
		t.Cleanup(func() { _ = s.Close() })
	}
}

func TestDialWaitsForAFullUnixBacklog(t *testing.T) {
	a, accept := full(t)
	time.AfterFunc(30*time.Millisecond, accept)
	dial(t, a)
}

func TestNoDelay(t *testing.T) {
	l := listen(t, tcp("127.0.0.1:0"))
	s := dial(t, l.Addr())
	r, _ := accept(t, l)
	for _, x := range []*conn.Sock{s, r} {
		if on := x.Option(t, unix.IPPROTO_TCP, unix.TCP_NODELAY); on != 1 {
			t.Errorf("TCP_NODELAY is %d", on)
		}
	}
}

func TestAcceptEndsWithClose(t *testing.T) {
	for _, a := range []abi.Addr{tcp("127.0.0.1:0"), abi.UnixAddr(filepath.Join(t.TempDir(), "s"))} {
		before := descriptors(t)
		l := listen(t, a)
		done := make(chan error)
		go func() {
			_, _, err := l.Accept()
			done <- err
		}()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", a, err)
		}
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	}
}

// TestAcceptBacksOffWithoutDescriptors: EMFILE ends with the shortage, and Close
// ends the wait.
func TestAcceptBacksOffWithoutDescriptors(t *testing.T) {
	l := listen(t, tcp("127.0.0.1:0"))
	dial(t, l.Addr())
	restore := noDescriptors(t)
	accepted := make(chan error)
	go func() {
		s, _, err := l.Accept()
		if err == nil {
			_ = s.Close()
		}
		accepted <- err
	}()
	select {
	case err := <-accepted:
		t.Errorf("accepted without a descriptor: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	restore()
	if err := <-accepted; err != nil {
		t.Error(err)
	}

	dial(t, l.Addr())
	restore = noDescriptors(t)
	go func() {
		_, _, err := l.Accept()
		accepted <- err
	}()
	_ = l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	restore()
}

// noDescriptors lowers the limit to what is open.
func noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	t.Cleanup(restore)
	return restore
}

func TestListenErrors(t *testing.T) {
	l := listen(t, tcp("127.0.0.1:0"))
	before := descriptors(t)
	for _, c := range []struct {
		a    abi.Addr
		want error
		says string
	}{
		{l.Addr(), unix.EADDRINUSE, "listen on " + l.Addr().String() + ": address already in use: somebody listens"},
		{tcp("192.0.2.1:9"), unix.EADDRNOTAVAIL, "no such address"},
		{abi.Addr{}, unix.EINVAL, "listen on none"},
		{abi.UnixAddr("/nowhere/at/all"), unix.ENOENT, "directory /nowhere/at"},
		{abi.UnixAddr("/" + strings.Repeat("x", 200)), unix.EINVAL, "bytes"},
	} {
		if _, err := conn.Listen(c.a); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q with %v", c.a, err, c.says, c.want)
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestListenUnixMode(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, mode := range []os.FileMode{0o600, 0o660, 0o666} {
		unix.Umask(int(0o066 &^ mode)) // once wider, once narrower than asked
		path := filepath.Join(dir, mode.String())
		l, err := conn.ListenUnix(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(path); err != nil || st.Mode() != mode|os.ModeSocket {
			t.Errorf("%v, %v, want %v", st.Mode(), err, mode)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("Close left %s", path)
		}
	}
}

func TestListenUnixLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	file, link, live, dgram := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "live"), filepath.Join(dir, "dgram")
	if err := errors.Join(os.WriteFile(file, []byte("precious"), 0o600), os.Symlink(live, link)); err != nil {
		t.Fatal(err)
	}
	listen(t, abi.UnixAddr(live))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dgram}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{file: unix.EEXIST, dir: unix.EEXIST, link: unix.EEXIST, live: unix.EADDRINUSE, dgram: unix.EADDRINUSE} {
		if _, err := conn.Listen(abi.UnixAddr(path)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone", path)
		}
	}
	if s, err := conn.Dial(context.Background(), abi.UnixAddr(live), time.Second); err != nil {
		t.Error("the live one does not answer")
	} else {
		_ = s.Close()
	}
}

// TestListenUnixReplacesTheDead and does not remove its successor.
func TestListenUnixReplacesTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd) // as a crash leaves it
	first := listen(t, abi.UnixAddr(path))
	dial(t, first.Addr())
	if err := os.Remove(path); err != nil { // somebody tidied up
		t.Fatal(err)
	}
	second := listen(t, abi.UnixAddr(path))
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	dial(t, second.Addr())
}

// TestListenUnixRace: of many who find the same dead socket one gets the path.
func TestListenUnixRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 20 {
		var mu sync.Mutex
		var got []*conn.Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := conn.Listen(abi.UnixAddr(path))
				if err == nil {
					mu.Lock()
					got = append(got, l)
					mu.Unlock()
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d listen on one path", len(got))
		}
		s, err := conn.Dial(context.Background(), abi.UnixAddr(path), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Close(), got[0].Close()
	}
}

// TestDescriptorsReturn: connections, closed from either side, leave nothing.
func TestDescriptorsReturn(t *testing.T) {
	l := listen(t, tcp("127.0.0.1:0"))
	before := descriptors(t)
	for range 50 {
		s, err := conn.Dial(context.Background(), l.Addr(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		o := conn.NewOut(s)
		o.Push(&conn.Frame{Data: make([]byte, 1000)})
		o.Flush()
		o.Close()
		_ = r.Close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
