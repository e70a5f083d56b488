package genl

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const testPort = 0x445354

// peer is a client's end as netlink.Socket: addressed at one port that is not
// the kernel's. It drops what another request was answered.
type peer struct {
	*Socket
	seq uint32
}

func (p *peer) Send(m netlink.Message) error {
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	p.seq = m.Header.Sequence
	return p.Socket.Send(testPort, b)
}

func (p *peer) SendMessages(ms []netlink.Message) error {
	for _, m := range ms {
		if err := p.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) Receive() ([]netlink.Message, error) {
	return nil, errors.New("ReceiveIter is used")
}

func (p *peer) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		for got := false; !got; {
			d, err := p.Recv(make([]byte, maxRequest))
			if err == nil && (d.Port != testPort || d.Cred == nil || d.Cred.Uid != 0) {
				err = fmt.Errorf("answer of port %#x, %+v", d.Port, d.Cred)
			}
			if err != nil {
				yield(netlink.Message{}, err)
				return
			}
			for b := d.Data; len(b) >= headerLen; {
				n := align4(int(native.Uint32(b)))
				var m netlink.Message
				if err := m.UnmarshalBinary(b[:n]); err != nil {
					yield(m, err)
					return
				}
				b = b[n:]
				if m.Header.Sequence != p.seq {
					continue
				}
				got = true
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// serveReal serves the family at the fixed port, and returns a client of it.
func serveReal(t *testing.T) (*Server, *genetlink.Conn) {
	t.Helper()
	sock, err := Listen(testPort)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(sock, testFamily(nil))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	c := genetlink.NewConn(netlink.NewConn(&peer{Socket: dial(t)}, 0))
	return s, c
}

// dial opens a socket at a port that the kernel chooses.
func dial(t *testing.T) *Socket {
	t.Helper()
	sock, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := sock.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sock.Close() })
	return sock
}

// execute asks for cmd with the attributes of build.
func execute(c *genetlink.Conn, cmd uint8, flags netlink.HeaderFlags, build func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	if build != nil {
		build(ae)
	}
	data, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return c.Execute(genetlink.Message{Header: genetlink.Header{Command: cmd, Version: 1}, Data: data}, testID, netlink.Request|flags)
}

func TestClientLibraryFindsTheFamily(t *testing.T) {
	_, c := serveReal(t)
	f, err := c.GetFamily("test")
	if err != nil || f.ID != testID || f.Version != 3 || f.Name != "test" {
		t.Errorf("%+v, %v", f, err)
	}
	all, err := c.ListFamilies()
	if err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := c.GetFamily("other"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("another family: %v", err)
	}
}

func TestClientLibraryReadsAnswersAndErrors(t *testing.T) {
	_, c := serveReal(t)
	for range 3 { // with an acknowledgement left over each time
		ms, err := execute(c, cmdGet, netlink.Acknowledge, func(ae *netlink.AttributeEncoder) { ae.String(aName, "vol0") })
		if err != nil || len(ms) != 1 || string(tlvs(t, ms[0].Data)[aName]) != "vol0\x00" {
			t.Fatalf("%+v, %v", ms, err)
		}
	}
	_, err := execute(c, cmdFail, netlink.Acknowledge, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(aSize, 1)
		ae.String(aName, "vol0")
	})
	op, ok := errors.AsType[*netlink.OpError](err)
	if !ok || !errors.Is(err, unix.ENODEV) || op.Message != `node "vol0": no such device` || op.Offset != attrsAt+8 {
		t.Errorf("%#v", err)
	}
	if _, err := execute(c, cmdOpen, netlink.Acknowledge, nil); err != nil {
		t.Errorf("an acknowledgement is read as %v", err)
	}
}

func TestClientLibraryReadsALargeDump(t *testing.T) {
	_, c := serveReal(t)
	const rows = 5000 // 5 MB, far more than a receive buffer
	ms, err := execute(c, cmdRows, netlink.Dump, func(ae *netlink.AttributeEncoder) { ae.Uint32(aCount, rows) })
	if err != nil || len(ms) != rows {
		t.Fatalf("%d rows, %v", len(ms), err)
	}
	_, err = execute(c, cmdRows, netlink.Dump, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(aCount, 100)
		ae.String(aName, "disk on fire")
	})
	op, ok := errors.AsType[*netlink.OpError](err)
	if !ok || !errors.Is(err, unix.EIO) || op.Message != "disk on fire: input/output error" {
		t.Errorf("a dump that failed: %#v", err)
	}
}

func TestEventsOverARealSocket(t *testing.T) {
	s, _ := serveReal(t)
	sub := dial(t)
	name, err := unix.Getsockname(fileno(t, sub))
	if err != nil {
		t.Fatal(err)
	}
	id := name.(*unix.SockaddrNetlink).Pid
	if err := s.Subscribe(id, nil); err != nil {
		t.Fatal(err)
	}
	for i := 0; s.Counts().Lost == 0; i++ { // it does not read: its buffer fills up
		s.Notify(cmdEvent, "", func(ae *netlink.AttributeEncoder) { ae.Bytes(aName, make([]byte, 32000)) })
		if i > 10000 {
			t.Fatal("an endless buffer")
		}
	}
	buf := make([]byte, maxRequest)
	for {
		d, err := sub.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		m := decode(t, [][]byte{d.Data})[0]
		if m.cmd == cmdLost {
			if n := tlvs(t, m.attrs)[aLost]; len(n) != 8 || native.Uint64(n) == 0 {
				t.Errorf("lost %v", n)
			}
			break
		}
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	s.Notify(cmdEvent, "", nil)
	if n := s.Counts().Subscribers; n != 0 {
		t.Errorf("%d subscribers after it closed", n)
	}
}

func fileno(t *testing.T, s *Socket) (fd int) {
	t.Helper()
	if err := s.raw.Control(func(f uintptr) { fd = int(f) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestPortInUseNamesItsHolder(t *testing.T) {
	first, err := Listen(testPort)
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Listen(testPort)
	want := fmt.Sprintf("netlink port 0x445354 is held by %s (pid %d)", strings.TrimSpace(string(comm)), os.Getpid())
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(testPort)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestListenOn: a port is free on one protocol although it is taken on another,
// its holder is looked for on its own, and members of a group hear it.
func TestListenOn(t *testing.T) {
	const protocol, group = unix.NETLINK_CONNECTOR, 6
	first, err := Listen(testPort)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ListenOn(protocol, testPort, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenOn(protocol, testPort); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("a taken port: %v", err)
	}
	sender, err := ListenOn(protocol, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Sendto(fileno(t, sender), []byte("to all"), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)})
	if err != nil && err != unix.ECONNREFUSED { // the kernel itself does not listen in every namespace
		t.Fatal(err)
	}
	if d, err := other.Recv(make([]byte, 10)); err != nil || string(d.Data) != "to all" || d.Port == 0 || d.Cred == nil {
		t.Errorf("%q of port %d, %v, %v", d.Data, d.Port, d.Cred, err)
	}
	if _, err := ListenOn(31, testPort); !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("no such protocol: %v", err)
	}
	if err := errors.Join(other.Close(), sender.Close()); err != nil {
		t.Error(err)
	}
}

func TestHolderThatCannotBeFound(t *testing.T) {
	proc := t.TempDir()
	if got := holder(proc, unix.NETLINK_GENERIC, testPort); got != "another process" {
		t.Errorf("without a table: %q", got)
	}
	dir := proc + "/thread-self/net"
	table := "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n" +
		"00000000a2a0bfd1 11  4477780    00000000 0        0        0     2        0        41\n" +
		"00000000776dfa25 16  7          00000000 0        0        0     2        0        42\n" +
		"broken\n" +
		"00000000a217d69a 16  4477780    00000000 0        0        0     2        0        43\n"
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/netlink", []byte(table), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := portInode(dir+"/netlink", unix.NETLINK_GENERIC, testPort); got != "43" {
		t.Errorf("inode %q", got)
	}
	if got := portInode(dir+"/netlink", unix.NETLINK_GENERIC, 5); got != "" {
		t.Errorf("inode %q of a free port", got)
	}
	if got := holder(proc, unix.NETLINK_GENERIC, testPort); got != "a process that cannot be seen from here" {
		t.Errorf("held by %q", got)
	}
	err := errors.Join(os.MkdirAll(proc+"/17/fd", 0o755), os.Symlink("socket:[43]", proc+"/17/fd/3"),
		os.WriteFile(proc+"/17/comm", []byte("\x1b[2Jx\ny\xff\n"), 0o644))
	if got := holder(proc, unix.NETLINK_GENERIC, testPort); err != nil || got != "?[2Jx?y? (pid 17)" {
		t.Errorf("held by %q, %v", got, err)
	}
}

func TestCredentialsAreTheKernels(t *testing.T) {
	a, b := dial(t), dial(t)
	name, err := unix.Getsockname(fileno(t, b))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send(name.(*unix.SockaddrNetlink).Pid, []byte("a datagram that is cut")); err != nil {
		t.Fatal(err)
	}
	d, err := b.Recv(make([]byte, 10))
	if err != nil || string(d.Data) != "a datagram" || d.Size != 22 {
		t.Errorf("%q of %d bytes, %v", d.Data, d.Size, err)
	}
	if d.Port == 0 || d.Cred == nil || d.Cred.Uid != 0 || int(d.Cred.Pid) != os.Getpid() {
		t.Errorf("port %#x, %+v", d.Port, d.Cred)
	}
	if credentials([]byte{1}) != nil || credentials(nil) != nil {
		t.Error("credentials out of nothing")
	}
}

func TestSendErrors(t *testing.T) {
	s := dial(t)
	if err := s.Send(0x7ffffff0, []byte("x")); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("to nobody: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(testPort, nil); err == nil {
		t.Error("sent after Close")
	}
	if _, err := s.Recv(nil); err == nil {
		t.Error("received after Close")
	}
}
