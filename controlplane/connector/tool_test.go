package connector

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane"
	"dst/controlplane/genl"
)

// fakePlane is a Plane that only remembers what it was asked for. It knows as
// many of the real one's refusals as these tests need.
type fakePlane struct {
	controlplane.Plane // nil: the other methods are not for this door
	mu                 sync.Mutex
	nodes              map[string]bool
	calls              []call
	fails              error         // of the next change
	slow               chan struct{} // what Start waits for
	entered            chan struct{} // told by a Start that waits
	keys               [][]byte      // as Crypto got them: erased later
}

// call is one call of the Plane.
type call struct {
	method string
	name   string
	node   abi.Node
	crypto abi.Crypto
	rule   abi.Rule
	force  bool
}

func newFake(nodes ...string) *fakePlane {
	p := &fakePlane{nodes: map[string]bool{}}
	for _, n := range nodes {
		p.nodes[n] = true
	}
	return p
}

func (p *fakePlane) did(c call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fails; err != nil {
		p.fails = nil
		return err
	}
	p.calls = append(p.calls, c)
	return nil
}

func (p *fakePlane) add(method string, n *abi.Node) error {
	if p.has(n.Name) {
		return fmt.Errorf("node %q exists: %w", n.Name, unix.EEXIST)
	}
	if err := abi.ValidName(n.Name); err != nil {
		return err
	}
	err := p.did(call{method: method, name: n.Name, node: *n})
	p.mu.Lock()
	p.nodes[n.Name] = err == nil
	p.mu.Unlock()
	return err
}

func (p *fakePlane) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes[name]
}

func (p *fakePlane) change(c call) error {
	if !p.has(c.name) {
		return fmt.Errorf("there is no node %q: %w", c.name, unix.ENODEV)
	}
	return p.did(c)
}

func (p *fakePlane) AddRemote(n *abi.Node) error { return p.add("AddRemote", n) }
func (p *fakePlane) AddExport(n *abi.Node) error { return p.add("AddExport", n) }

func (p *fakePlane) Start(name string) error {
	if p.slow != nil {
		p.entered <- struct{}{}
		<-p.slow
	}
	return p.change(call{method: "Start", name: name})
}

// Get knows a node's name, and that it is started if Start was its last call.
func (p *fakePlane) Get(name string) (*abi.Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.nodes[name] {
		return nil, unix.ENODEV
	}
	n := &abi.Node{Name: name}
	if len(p.calls) > 0 && p.calls[len(p.calls)-1].method == "Start" {
		n.Flags = abi.NodeFlagStarted
	}
	return n, nil
}

func (p *fakePlane) AddRule(name string, r abi.Rule) error {
	return p.change(call{method: "AddRule", name: name, rule: r})
}

func (p *fakePlane) Del(name string, force bool) error {
	err := p.change(call{method: "Del", name: name, force: force})
	if err == nil {
		p.mu.Lock()
		delete(p.nodes, name)
		p.mu.Unlock()
	}
	return err
}

func (p *fakePlane) Crypto(c *abi.Crypto) error {
	cp := *c
	cp.CipherKey, cp.HashKey = bytes.Clone(c.CipherKey), bytes.Clone(c.HashKey)
	p.mu.Lock()
	p.keys = append(p.keys, c.CipherKey, c.HashKey)
	p.mu.Unlock()
	return p.change(call{method: "Crypto", name: c.Name, crypto: cp})
}

func (p *fakePlane) Names() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, there := range p.nodes {
		if there {
			names = append(names, n)
		}
	}
	return names
}

func (p *fakePlane) taken() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// serve opens the door to p on a real socket until the test ends.
func serve(t *testing.T, p controlplane.Plane) *Door {
	t.Helper()
	sock, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	d := New(p, sock, zerolog.Nop())
	served := make(chan error, 1)
	go func() { served <- d.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(d.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return d
}

// tool is the socket of a configuration tool: a member of the group, as the
// original's, to hear the answers.
type tool struct {
	t *testing.T
	*genl.Socket
	seq uint32
}

func dial(t *testing.T) *tool {
	t.Helper()
	s, err := genl.ListenOn(unix.NETLINK_CONNECTOR, 0, abi.CnIdx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &tool{t: t, Socket: s}
}

// send sends bytes as they are to the daemon's port, once there is room in its
// queue.
func (c *tool) send(b []byte) {
	c.t.Helper()
	err := c.Send(abi.Port, b)
	for ; err == unix.EAGAIN; err = c.Send(abi.Port, b) {
		runtime.Gosched()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// recv is the next datagram that the tool gets.
func (c *tool) recv() []byte {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	g, err := c.Recv(make([]byte, 1<<16))
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if g.Port != abi.Port {
		c.t.Fatalf("a datagram of port %#x", g.Port)
	}
	return g.Data
}

// accept takes an answer as the original's tool does: the sequence is that of
// its last request, and the acknowledgement is 1.
func (c *tool) accept() unix.Errno {
	c.t.Helper()
	b := c.recv()
	var a abi.CtlAck
	if err := a.Parse(b[unix.NLMSG_HDRLEN:]); err != nil || host.Uint32(b) != 52 || len(b) != 52 || host.Uint16(b[4:]) != unix.NLMSG_DONE {
		c.t.Fatalf("answer % x: %v", b, err)
	}
	if host.Uint32(b[8:]) != c.seq || a.Msg.Seq != c.seq || a.Msg.Ack != 1 {
		c.t.Fatalf("request %d was answered with %+v", c.seq, a)
	}
	return a.Errno
}

// do sends one command and returns what it was answered.
func (c *tool) do(r request) unix.Errno {
	c.t.Helper()
	c.seq++
	c.send(r.frame(c.seq))
	return c.accept()
}

// request is a command as the tool makes it.
type request struct {
	ctl     abi.Ctl
	payload []byte
}

// frame is nlmsghdr, cn_msg and the command, filled in as the tool does.
func (r request) frame(seq uint32) []byte {
	body, err := r.ctl.Append(nil)
	if err != nil {
		panic(err)
	}
	return framed(seq, append(body, r.payload...))
}

func framed(seq uint32, body []byte) []byte {
	m := abi.CnMsg{Idx: abi.CnIdx, Val: abi.CnVal, Seq: seq, Len: uint16(len(body))}
	b := host.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+abi.CnMsgSize+len(body)+3)&^3)
	b = host.AppendUint32(b, unix.NLMSG_DONE)
	b = host.AppendUint32(b, seq)
	b = host.AppendUint32(b, uint32(os.Getpid()))
	b = append(m.Append(b), body...)
	return append(b, make([]byte, -len(b)&3)...)
}

// appender is a structure of the ABI.
type appender interface{ Append([]byte) ([]byte, error) }

func ask(cmd abi.CtlCmd, name string, payload appender) request {
	r := request{ctl: abi.Ctl{Name: name, Cmd: cmd}}
	if payload != nil {
		b, err := payload.Append(nil)
		if err != nil {
			panic(err)
		}
		r.payload = b
	}
	return r
}

func addRemote(name string, a abi.Addr) request {
	return ask(abi.CtlAddRemote, name, &abi.NetworkCtl{Addr: a})
}

func addExport(name, device string, a abi.Addr) request {
	return ask(abi.CtlAddExport, name, &abi.ExportCtl{Device: device, Addr: a})
}

func secure(name string, perm abi.Perm, a abi.Addr) request {
	return ask(abi.CtlSecurity, name, &abi.SecureUser{Perm: perm, Addr: a})
}

func crypto(name string, k abi.CryptoCtl) request { return ask(abi.CtlCrypto, name, &k) }
func start(name string) request                   { return ask(abi.CtlStart, name, nil) }
func del(name string) request                     { return ask(abi.CtlDelNode, name, nil) }

// with is r with other numbers in its head.
func (r request) with(change func(*abi.Ctl)) request {
	change(&r.ctl)
	return r
}

// cut is r with n bytes of payload, zeroes behind what there is.
func (r request) cut(n int) request {
	r.payload = append(slices.Clone(r.payload), make([]byte, n)...)[:n]
	return r
}

// patch is r with bytes of its payload replaced.
func (r request) patch(at int, b ...byte) request {
	r.payload = slices.Clone(r.payload)
	copy(r.payload[at:], b)
	return r
}

func tcp(s string) abi.Addr { return abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort(s)) }

// bare is an address without type and protocol, as SECURITY carries it.
func bare(s string) abi.Addr { return abi.Addr{Sockaddr: tcp(s).Sockaddr} }

// raw is an address of any family and length.
func raw(family uint16, rest ...byte) abi.Addr {
	return abi.Addr{Sockaddr: string(append(host.AppendUint16(nil, family), rest...))}
}
