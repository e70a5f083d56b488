package conn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"

	"golang.org/x/sys/unix"
)

// medium is a kind of stream between two sockets of this machine.
type medium struct {
	name    string
	listen  abi.Addr
	refused error // what dialling nobody says
}

// media are those that any kernel of ours has; more have a kernel of their own,
// in a virtual machine.
var media = []medium{
	{"tcp", tcp("127.0.0.1:0"), unix.ECONNREFUSED},
	{"mptcp", mptcp("127.0.0.1:0"), unix.ECONNREFUSED},
}

func mptcp(s string) abi.Addr {
	return abi.NetAddr(unix.IPPROTO_MPTCP, netip.MustParseAddrPort(s))
}

// overMedia runs a test over all of them, those of the internet over IPv6 too, and
// over Unix sockets with a path.
func overMedia(t *testing.T, f func(t *testing.T, m medium)) {
	all := []medium{{"unix path", abi.UnixAddr(filepath.Join(t.TempDir(), "s")), unix.ENOENT}}
	for _, m := range media {
		all = append(all, m)
		if _, ok := m.listen.AddrPort(); ok {
			all = append(all, medium{m.name + "6", abi.NetAddr(m.listen.Proto, netip.MustParseAddrPort("[::1]:0")), m.refused})
		}
	}
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}

// TestMediaAddresses: both ends know each other and themselves.
func TestMediaAddresses(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		l := listen(t, m.listen)
		s := dial(t, l.Addr())
		r, peer := accept(t, l)
		for _, a := range []abi.Addr{l.Addr(), s.PeerAddr(), s.LocalAddr(), r.PeerAddr(), r.LocalAddr(), peer} {
			if a.Medium() != m.listen.Medium() {
				t.Errorf("%s is not of medium %s", a, m.listen.Medium())
			}
		}
		if _, port, ok := peer.Vsock(); ok {
			// A client of vsock is bound to a port, not to one of its CIDs.
			if _, local, _ := s.LocalAddr().Vsock(); port != local {
				t.Errorf("accepted %s, dialled from %s", peer, s.LocalAddr())
			}
		} else if peer != s.LocalAddr() {
			t.Errorf("accepted %s, dialled from %s", peer, s.LocalAddr())
		}
		if s.PeerAddr() != l.Addr() || r.PeerAddr() != peer || r.LocalAddr() != l.Addr() {
			t.Errorf("%s from %s; listening on %s: %s from %s", s.PeerAddr(), s.LocalAddr(), l.Addr(), r.LocalAddr(), r.PeerAddr())
		}
	})
}

// TestMediaStream sends 64 MiB each way at once, in odd pieces of up to 2 MiB by
// Write and by Out, and receives them in other odd pieces.
func TestMediaStream(t *testing.T) {
	size := 64 << 20
	if testing.Short() {
		size >>= 3
	}
	overMedia(t, func(t *testing.T, m medium) {
		a, b := conntest.Pair(t, m.listen)
		data := make([]byte, 8<<20+4099)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
		at := func(n int) []byte { n %= len(data); return data[n:min(len(data), n+2<<20)] }
		outs := [2]*conn.Out{conn.NewOut(a), conn.NewOut(b)}
		defer func() { outs[0].Close(); outs[1].Close() }() // which closes the sockets
		began := time.Now()
		var wg sync.WaitGroup
		for i, ends := range [][2]*conn.Sock{{a, b}, {b, a}} {
			wg.Go(func() { sendOdd(t, ends[0], outs[i], rand.New(rand.NewPCG(uint64(i), 0)), size, at) })
			wg.Go(func() { receiveOdd(t, ends[1], rand.New(rand.NewPCG(uint64(i), 1)), size, at) })
		}
		wg.Wait()
		t.Logf("%.0f MiB/s", float64(2*size>>20)/time.Since(began).Seconds())
	})
}

// sendOdd sends size bytes; those from n on are what at(n) begins with.
func sendOdd(t *testing.T, s *conn.Sock, o *conn.Out, random *rand.Rand, size int, at func(n int) []byte) {
	l := newLedger()
	for n := 0; n < size/2; {
		p := at(n)
		p = p[:min(len(p), size/2-n, 1+random.IntN(1+random.IntN(2<<20)))]
		if _, err := s.Write(p); err != nil {
			t.Error(err)
			return
		}
		n += len(p)
	}
	frames := 0
	for n := size / 2; n < size; frames++ {
		p := at(n)
		p = p[:min(len(p), size-n, 1+random.IntN(1+random.IntN(2<<20)))]
		head := min(len(p), random.IntN(len(conn.Frame{}.Room)))
		if !o.Push(frame(l, p[:head], p[head:])) {
			t.Errorf("sending: %v", o.Err())
			break
		}
		n += len(p)
		if random.IntN(4) == 0 {
			o.Flush()
		}
	}
	o.Flush()
	l.wait(frames)
	for _, err := range l.errs {
		if err != nil {
			t.Error(err)
			return
		}
	}
}

func receiveOdd(t *testing.T, s *conn.Sock, random *rand.Rand, size int, at func(n int) []byte) {
	in, buf := conn.NewIn(s, make([]byte, 256<<10)), make([]byte, 1<<20)
	for n := 0; n < size; {
		want := at(n)
		want = want[:min(len(want), size-n, 1+random.IntN(1+random.IntN(len(buf))))]
		got, err := buf[:len(want)], error(nil)
		if random.IntN(2) == 0 && len(want) <= 256<<10 {
			if got, err = in.Peek(len(want)); err == nil {
				in.Skip(len(want))
			}
		} else {
			err = in.ReadFull(got)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d of %d: other bytes than were sent, or %v", n, size, err)
			_ = s.Close()
			return
		}
		n += len(want)
	}
}

func TestMediaDeadlines(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		a, b := conntest.Pair(t, m.listen)
		soon := time.Now().Add(20 * time.Millisecond)
		_, _ = a.SetReadDeadline(soon), a.SetWriteDeadline(soon)
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		sent, err := a.Write(make([]byte, 64<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		_, _ = a.SetReadDeadline(time.Time{}), a.SetWriteDeadline(time.Time{})
		go write(t, b, []byte("goes on"))
		if _, err := io.ReadFull(a, make([]byte, 7)); err != nil {
			t.Errorf("Read after the deadline was taken back: %v", err)
		}
		if _, err := io.CopyN(io.Discard, b, int64(sent)); err != nil {
			t.Error(err)
		}
		write(t, a, []byte("goes on"))
		if _, err := io.ReadFull(b, make([]byte, 7)); err != nil {
			t.Error(err)
		}
	})
}

// TestMediaPeerGone: what the peer sent before it closed arrives, then the end;
// sending fails, and so does what waits for room.
func TestMediaPeerGone(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		a, b := conntest.Pair(t, m.listen)
		write(t, b, []byte("the last words"))
		_ = b.Close()
		if got, err := io.ReadAll(a); err != nil || string(got) != "the last words" {
			t.Errorf("received %q, %v", got, err)
		}
		if m.listen.Proto != unix.IPPROTO_MPTCP { // which waits a minute for another path
			_ = a.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err := error(nil)
			for err == nil { // the kernel may take what it cannot deliver
				_, err = a.Write(make([]byte, 1<<16))
			}
			if !gone(err) {
				t.Errorf("sending to nobody: %v", err)
			}
		}

		a, b = conntest.Pair(t, m.listen)
		done := make(chan error)
		go func() {
			_, err := a.Write(make([]byte, 64<<20))
			done <- err
		}()
		if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = b.Close() // with bytes unread
		select {
		case err := <-done:
			if !gone(err) {
				t.Errorf("waiting for room at nobody: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("still waiting for room at nobody")
			_ = a.Close()
			t.Log(<-done)
		}
		if m.listen.Proto == unix.IPPROTO_SCTP {
			return // it tells once, and the writer knows
		}
		if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF && !gone(err) {
			t.Errorf("reading from nobody: %d, %v", n, err)
		}
	})
}

// gone tells the errors of a connection whose other end is closed.
func gone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

func TestMediaCloseEndsEverything(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		l := listen(t, m.listen)
		a := dial(t, l.Addr())
		accept(t, l)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := a.Write(make([]byte, 64<<20)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write: %v", err)
			}
		})
		wg.Go(func() {
			if _, _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v", err)
			}
		})
		_, _ = a.Close(), l.Close()
		wg.Wait()
	})
}

func TestMediaRefuse(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		l := listen(t, m.listen)
		if _, err := conn.Listen(l.Addr()); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("listening twice: %v", err)
		}
		_ = l.Close()
		_, err := conn.Dial(context.Background(), l.Addr(), 10*time.Second)
		if !errors.Is(err, m.refused) {
			t.Errorf("dialling nobody: %v, want %v", err, m.refused)
		}
		if again := listen(t, l.Addr()); again.Addr() != l.Addr() {
			t.Errorf("listening again: on %s, not %s", again.Addr(), l.Addr())
		}
	})
}

// TestMPTCP: both ends speak it to each other, and plain TCP to who knows no better.
func TestMPTCP(t *testing.T) {
	l := listen(t, mptcp("127.0.0.1:0"))
	ap, _ := l.Addr().AddrPort()
	plain := tcp(ap.String())
	for _, c := range []struct {
		a     abi.Addr
		inUse bool
	}{{l.Addr(), true}, {plain, false}} {
		s := dial(t, c.a)
		r, _ := accept(t, l)
		if used := r.Option(t, solMPTCP, mptcpInfo) > 0; used != c.inUse {
			t.Errorf("from %s: MPTCP %v, want %v", c.a, used, c.inUse)
		}
		for _, x := range []*conn.Sock{s, r} {
			if on := x.Option(t, unix.IPPROTO_TCP, unix.TCP_NODELAY); on != 1 {
				t.Errorf("%s: TCP_NODELAY is %d", x.PeerAddr(), on)
			}
		}
		write(t, s, []byte("there"))
		if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
			t.Error(err)
		}
	}
	l = listen(t, tcp("127.0.0.1:0"))
	ap, _ = l.Addr().AddrPort()
	dial(t, mptcp(ap.String()))
	accept(t, l)
}

// linux/mptcp.h
const (
	solMPTCP  = 284
	mptcpInfo = 1
)

// TestLackingMedia: a kernel without a family, or without what carries it, gets a
// sentence that names the remedy; one that has it connects.
func TestLackingMedia(t *testing.T) {
	for _, c := range []struct {
		a      abi.Addr
		remedy string
		errnos []error
	}{
		{abi.NetAddr(unix.IPPROTO_SCTP, netip.MustParseAddrPort("127.0.0.1:0")), "modprobe sctp", []error{unix.EPROTONOSUPPORT}},
		{abi.VsockAddr(unix.VMADDR_CID_LOCAL, unix.VMADDR_PORT_ANY), "modprobe vsock_loopback", []error{unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL, unix.ENODEV}},
	} {
		l, err := conn.Listen(c.a)
		if err == nil {
			dial(t, l.Addr())
			accept(t, l)
			_ = l.Close()
			continue
		}
		if !bytes.Contains(fmt.Append(nil, err), []byte(c.remedy)) || !oneOf(err, c.errnos) {
			t.Errorf("%s: %v, want %q with one of %v", c.a, err, c.remedy, c.errnos)
		}
		t.Log(err)
	}
}

func oneOf(err error, all []error) bool {
	for _, e := range all {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
