package genl

import (
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// fakeConn is a Conn without a kernel: tests put datagrams in and read what
// was sent to each port.
type fakeConn struct {
	in   chan Datagram
	dead chan struct{}

	mu     sync.Mutex
	got    map[uint32][][]byte
	room   map[uint32]int // datagrams that a port still takes; absent: any number
	gone   map[uint32]bool
	closed bool
}

func newFake() *fakeConn {
	return &fakeConn{
		in: make(chan Datagram), dead: make(chan struct{}),
		got: map[uint32][][]byte{}, room: map[uint32]int{}, gone: map[uint32]bool{},
	}
}

func (c *fakeConn) Recv(buf []byte) (Datagram, error) {
	select {
	case d := <-c.in:
		if d.Data == nil {
			return Datagram{}, unix.Errno(d.Size)
		}
		if d.Size == 0 {
			d.Size = len(d.Data)
		}
		d.Data = buf[:copy(buf, d.Data)]
		return d, nil
	case <-c.dead:
		return Datagram{}, os.ErrDeadlineExceeded
	}
}

func (c *fakeConn) Send(port uint32, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	if c.gone[port] {
		return unix.ECONNREFUSED
	}
	if n, bounded := c.room[port]; bounded {
		if n == 0 {
			return unix.EAGAIN
		}
		c.room[port] = n - 1
	}
	c.got[port] = append(c.got[port], slices.Clone(b))
	return nil
}

func (c *fakeConn) SetReadDeadline(time.Time) error { close(c.dead); return nil }

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// take returns and forgets what port got.
func (c *fakeConn) take(port uint32) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.got[port]
	delete(c.got, port)
	return b
}

// accept lets port take n more datagrams; -1 means any number.
func (c *fakeConn) accept(port uint32, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(c.room, port); n >= 0 {
		c.room[port] = n
	}
}

// leave makes port one that is not bound any more.
func (c *fakeConn) leave(port uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone[port] = true
}

// message is a received message, decoded.
type message struct {
	header
	cmd   uint8  // of a generic-netlink message
	attrs []byte // of it
	errno unix.Errno
	tlvs  map[uint16][]byte // of NLMSG_ERROR and NLMSG_DONE
	echo  header            // of NLMSG_ERROR
}

func (m message) text() string {
	if b := m.tlvs[unix.NLMSGERR_ATTR_MSG]; len(b) > 0 {
		return string(b[:len(b)-1])
	}
	return ""
}

func (m message) number(t uint16) uint32 {
	if b := m.tlvs[t]; len(b) == 4 {
		return native.Uint32(b)
	}
	return 0
}

// decode takes datagrams apart and fails the test if one is malformed.
func decode(t testing.TB, datagrams [][]byte) (ms []message) {
	t.Helper()
	for _, b := range datagrams {
		for len(b) > 0 {
			h := readHeader(b)
			if h.len < headerLen || align4(int(h.len)) > len(b) {
				t.Fatalf("malformed answer: length %d of %d", h.len, len(b))
			}
			m := message{header: h}
			body := b[headerLen:h.len]
			var rest []byte
			switch h.typ {
			case unix.NLMSG_ERROR:
				m.echo, rest = readHeader(body[4:]), body[4+headerLen:]
				m.errno = unix.Errno(-int32(native.Uint32(body)))
			case unix.NLMSG_DONE:
				rest = body[4:]
				m.errno = unix.Errno(-int32(native.Uint32(body)))
			default:
				m.cmd, m.attrs, rest = body[0], body[unix.GENL_HDRLEN:], nil
			}
			m.tlvs = tlvs(t, rest)
			ms = append(ms, m)
			b = b[align4(int(h.len)):]
		}
	}
	return ms
}

func tlvs(t testing.TB, b []byte) map[uint16][]byte {
	t.Helper()
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		t.Fatal(err)
	}
	m := map[uint16][]byte{}
	for ad.Next() {
		m[ad.Type()] = ad.Bytes()
	}
	if ad.Err() != nil {
		t.Fatal(ad.Err())
	}
	return m
}

// rootCred is what the kernel says of a process of root.
func rootCred() *unix.Ucred { return &unix.Ucred{Pid: 77} }

// frame makes a message: header, generic-netlink header, attributes.
func frame(typ, flag uint16, seq uint32, cmd uint8, attrs ...[]byte) []byte {
	return appendGeneric(nil, header{typ: typ, flag: flag | unix.NLM_F_REQUEST, seq: seq}, cmd, 1, attrs...)
}

// attr makes one attribute; raw may carry flags.
func attr(raw uint16, data ...byte) []byte {
	b := native.AppendUint16(nil, uint16(unix.NLA_HDRLEN+len(data)))
	b = append(native.AppendUint16(b, raw), data...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func str(t uint16, s string) []byte { return attr(t, append([]byte(s), 0)...) }
func num(t uint16, v uint32) []byte { return attr(t, native.AppendUint32(nil, v)...) }
func nest(t uint16, inner ...[]byte) []byte {
	return attr(t|unix.NLA_F_NESTED, slices.Concat(inner...)...)
}

// bench is a served family in a bubble of virtual time.
type bench struct {
	t    *testing.T
	conn *fakeConn
	*Server
	gate   chan struct{} // ends the slow command when it is closed
	served chan error
}

// inBubble runs test with a server of the family, and checks that Close leaves no goroutine.
func inBubble(t *testing.T, family func(gate <-chan struct{}) Family, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, gate := newFake(), make(chan struct{})
		s, err := New(c, family(gate))
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t, c, s, gate, make(chan error, 1)}
		go func() { b.served <- s.Serve() }()
		test(t, b)
		if err := s.Close(); err != nil {
			t.Error("Close:", err)
		}
		if err := <-b.served; err != nil {
			t.Error("Serve:", err)
		}
		if len(s.lines) > 0 {
			t.Errorf("%d lines are left", len(s.lines))
		}
	})
}

// put sends datagrams of root at port and waits until all goroutines wait.
func (b *bench) put(port uint32, datagrams ...[]byte) {
	for _, d := range datagrams {
		b.conn.in <- Datagram{Data: d, Port: port, Cred: rootCred()}
	}
	synctest.Wait()
}

// ask is put, and returns what port got.
func (b *bench) ask(port uint32, datagrams ...[]byte) []message {
	b.t.Helper()
	b.put(port, datagrams...)
	return decode(b.t, b.conn.take(port))
}
