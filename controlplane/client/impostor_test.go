package client

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// nobody is a user without rights.
const nobody = 65534

// asUser calls f on a thread of its own in the caller's network namespace, as
// nobody, with the capability to send on NETLINK_GENERIC or without any.
func asUser(t *testing.T, mayTalk bool, f func()) {
	t.Helper()
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(ns) }()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := errors.Join(unix.Setns(ns, unix.CLONE_NEWNET), unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0))
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 { // of this thread only
			err = errors.Join(err, errno)
		}
		var caps [2]unix.CapUserData
		if mayTalk {
			caps[0].Effective, caps[0].Permitted = 1<<unix.CAP_NET_ADMIN, 1<<unix.CAP_NET_ADMIN
		}
		err = errors.Join(err, unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]))
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// impostor has the daemon's port, and remembers what it gets.
type impostor struct {
	mu      sync.Mutex
	heard   []byte
	refused error // of its answers
}

// listen takes the daemon's port and answers GETFAMILY and all else as a daemon would.
func (i *impostor) listen(t *testing.T, mayTalk bool) {
	t.Helper()
	fd := -1
	asUser(t, mayTalk, func() {
		var err error
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC); err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: abi.Port})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		asUser(t, mayTalk, func() { i.serve(fd, stop) })
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		_ = unix.Close(fd)
	})
}

func (i *impostor) serve(fd int, stop chan struct{}) {
	buf := make([]byte, 1<<16)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n < 20 {
			continue
		}
		r := request{native.Uint16(buf[4:]), buf[16], native.Uint32(buf[8:]), from.(*unix.SockaddrNetlink).Pid, slices.Clone(buf[20:n])}
		b := r.ack(0)
		if r.typ == unix.GENL_ID_CTRL {
			b = r.family(1)
		}
		err = unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: r.port})
		i.mu.Lock()
		i.heard, i.refused = append(i.heard, buf[:n]...), err
		i.mu.Unlock()
	}
}

// TestN22Impostor: a user's program that has the daemon's port, before the
// daemon or after its end, gets no key: neither one that may not send, which
// the kernel silences, nor one that may, which is not root.
func TestN22Impostor(t *testing.T) {
	secret := bytes.Repeat([]byte("K\x80"), 16)
	crypto := &abi.Crypto{Name: "vol0", Cipher: "gcm(aes)", CipherKey: secret}
	for name, mayTalk := range map[string]bool{"any user": false, "a user who may send": true} {
		t.Run("before the daemon, "+name, func(t *testing.T) {
			ownNetNS(t)
			var i impostor
			i.listen(t, mayTalk)
			if _, err := Dial(Options{Timeout: 100 * time.Millisecond}); !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("got %v, want ETIMEDOUT", err)
			}
			i.judge(t, mayTalk, secret)
		})
		t.Run("after the daemon, "+name, func(t *testing.T) {
			ownNetNS(t)
			d := listen(t, func(r request) [][]byte {
				if r.typ == unix.GENL_ID_CTRL {
					return nil
				}
				return [][]byte{r.ack(0)}
			})
			c := dial(t, 100*time.Millisecond)
			if err := c.Crypto(t.Context(), crypto); err != nil {
				t.Fatal(err)
			}
			d.end()
			var i impostor
			i.listen(t, mayTalk)
			if err := c.Crypto(t.Context(), crypto); !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("got %v, want ETIMEDOUT", err)
			}
			i.judge(t, mayTalk, secret)
		})
	}
}

// judge wants that the impostor was asked who it is, and told nothing.
func (i *impostor) judge(t *testing.T, mayTalk bool, secret []byte) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.heard) == 0 || bytes.Contains(i.heard, secret[:4]) {
		t.Errorf("it heard %q", i.heard)
	}
	if mayTalk != (i.refused == nil) {
		t.Errorf("its answer: %v", i.refused)
	}
}

// TestN22Forged: an answer that comes from another port than the daemon's, be it
// root's, is no answer.
func TestN22Forged(t *testing.T) {
	ownNetNS(t)
	other, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(other) }()
	listen(t, func(r request) [][]byte {
		if r.typ != unix.GENL_ID_CTRL {
			_ = unix.Sendto(other, r.answer(&abi.Sys{Version: "forged"}), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: r.port})
			return [][]byte{r.answer(&abi.Sys{Version: "true"})}
		}
		return nil
	})
	sys, err := dial(t, time.Second).Sys(t.Context())
	if err != nil || sys.Version != "true" {
		t.Errorf("%+v, %v", sys, err)
	}
}
