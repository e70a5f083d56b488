package export

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// refused greets and gives the refusal.
func (c *client) refused(h abi.Hello) *abi.Refuse {
	c.t.Helper()
	err := c.greet(h)
	var r *abi.Refuse
	if !errors.As(err, &r) {
		c.t.Fatalf("instead of a refusal: %v", err)
	}
	c.gone()
	return r
}

func TestRefusals(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	other := helloOf(1, 1, abi.PermRW)
	other.Export = "vol1"
	digest := helloOf(1, 1, abi.PermRW)
	digest.Digest = "none"
	small := helloOf(1, 1, abi.PermRW)
	small.MaxSize = 512
	for _, tt := range []struct {
		hello abi.Hello
		code  abi.RefuseCode
		errno unix.Errno
	}{{other, abi.RefuseNoAccess, unix.EACCES}, {digest, abi.RefuseDigest, unix.EINVAL}, {small, abi.RefuseMalformed, unix.EINVAL}} {
		if r := w.dial().refused(tt.hello); r.Code != tt.code || r.Errno != tt.errno {
			t.Errorf("%+v: %+v", tt.hello, r)
		}
	}
	c := w.client(helloOf(1, 5, abi.PermRW))
	if r := w.dial().refused(helloOf(1, 5, abi.PermRW)); r.Code != abi.RefuseStale {
		t.Errorf("an old epoch: %+v", r)
	}
	want(t, "the living one", c.flush(), 0)
	want(t, "refused", w.Counters().Refused, 4)
}

func TestLimitsAreAgreed(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Depth: 64, MaxPages: 16}, disk)
	h := helloOf(1, 1, abi.PermRW)
	h.Depth, h.MaxSize = 1000, 1<<20
	c := w.client(h)
	want(t, "depth", c.welcome.Depth, 64)
	want(t, "max size", c.welcome.MaxSize, 64<<10)
	h = helloOf(2, 1, abi.PermRead)
	h.Export, h.Depth, h.MaxSize = "", 7, 10000
	c = w.client(h)
	want(t, "depth", c.welcome.Depth, 7)
	want(t, "max size", c.welcome.MaxSize, 8192)
	want(t, "keepalive", c.welcome.Keepalive, 1000)
}

func TestNotStartedIsNotServed(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := &world{t: t, ports: NewPorts(zerolog.Nop()), budget: mempool.NewBudget(1 << 30)}
	n, err := New(Config{Name: "vol0", Listen: []abi.Addr{loopback()}}, w.env(disk))
	if err != nil {
		t.Fatal(err)
	}
	w.Node = n
	defer w.end()
	if err := n.Start(); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "add one first") {
		t.Errorf("start without a rule: %v", err)
	}
	if err := n.AddRule(anyone(abi.PermRW)); err != nil {
		t.Fatal(err)
	}
	c := w.dial()
	if n, err := c.st.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a byte from an export that is not started: %v", err)
	}
	if err := errors.Join(n.Start(), n.Start()); err != nil {
		t.Fatal(err)
	}
	h := helloOf(1, 1, abi.PermRW)
	h.Digest = "none"
	c = w.client(h)
	want(t, "FLUSH without digests", c.flush(), 0)
	want(t, "WRITE without digests", c.write(0, pattern(512, 1), 0), 0)
}

func TestUnlistedAddressGetsNoByte(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	if err := errors.Join(w.DelRule(anyone(0)), w.AddRule(prefix("10.0.0.0/8", abi.PermRW))); err != nil {
		t.Fatal(err)
	}
	c := w.dial()
	if b, err := io.ReadAll(c.st); len(b) != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	want(t, "refused", w.Counters().Refused, 1)
}

func TestUnixPeersByUID(t *testing.T) {
	_, disk := memDisk(1 << 20)
	path := filepath.Join(t.TempDir(), "socket")
	w := newWorld(t, Config{Listen: []abi.Addr{abi.UnixAddr(path), loopback()}}, disk)
	uid, stranger := uint32(os.Getuid()), uint32(os.Getuid()+1)
	if err := errors.Join(w.DelRule(anyone(0)), w.AddRule(abi.Rule{Kind: abi.RuleKindUnix, ID: &stranger, Perm: abi.PermRW})); err != nil {
		t.Fatal(err)
	}
	c := w.dial()
	if n, err := c.st.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a byte for another uid: %v", err)
	}
	if err := w.AddRule(abi.Rule{Kind: abi.RuleKindUnix, ID: &uid, Perm: abi.PermRW}); err != nil {
		t.Fatal(err)
	}
	c = w.client(helloOf(1, 1, abi.PermRW))
	want(t, "WRITE", c.write(0, pattern(512, 1), 0), 0)
	w.end()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left behind: %v", err)
	}
}

func TestSharedAddress(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	_, other := memDisk(2 << 20)
	second, err := New(Config{Name: "vol1", Listen: w.Addrs(), Digest: crypt.DigestCRC32C}, w.env(other))
	if err != nil {
		t.Fatal(err)
	}
	h := helloOf(1, 1, abi.PermRW)
	h.Export = "vol1"
	if r := w.dial().refused(h); r.Code != abi.RefuseNoAccess {
		t.Errorf("not started: %+v", r)
	}
	if err := errors.Join(second.AddRule(anyone(abi.PermRead)), second.Start()); err != nil {
		t.Fatal(err)
	}
	c := w.client(h)
	want(t, "size", c.welcome.Size, 2<<20)
	want(t, "mode", c.welcome.Mode, abi.PermRead)
	want(t, "the other's size", w.client(helloOf(1, 1, abi.PermRW)).welcome.Size, 1<<20)
	h.Export = ""
	if r := w.dial().refused(h); r.Code != abi.RefuseNoAccess {
		t.Errorf("no name where there are two: %+v", r)
	}
	if err := second.Close(false); err != nil {
		t.Fatal(err)
	}
	c.gone()
	h = helloOf(3, 1, abi.PermRead)
	h.Export = ""
	want(t, "the only one", w.client(h).welcome.Size, 1<<20)
}

func TestAddressInUse(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	m, other := memDisk(1 << 20)
	ports := NewPorts(zerolog.Nop()) // another daemon
	defer ports.Close()
	env := w.env(other)
	env.Ports = ports
	if _, err := New(Config{Name: "vol1", Listen: append([]abi.Addr{loopback()}, w.Addrs()...)}, env); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if !m.closed || len(ports.mu.ports) != 0 {
		t.Error("something is left behind")
	}
}

func TestHalfOpenIsBounded(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	var half []*client
	for range halfOpenEach {
		c := w.dial()
		if err := c.mark(); err != nil {
			t.Fatal(err)
		}
		half = append(half, c)
	}
	// One more is heard, and one of the others makes room for it.
	over := w.dial()
	if err := over.mark(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there are no more than before", func() bool {
		w.ports.mu.Lock()
		defer w.ports.mu.Unlock()
		return len(w.ports.mu.open) == halfOpenEach && w.ports.mu.knocks == halfOpenEach
	})
	for _, c := range half {
		c.st.Close()
	}
	for i := range byte(3) { // sessions do not count
		w.client(helloOf(i+1, 1, abi.PermRead))
	}
}

// TestHalfOpenInAllIsBounded: who fills all places makes room for who comes.
func TestHalfOpenInAllIsBounded(t *testing.T) {
	p := NewPorts(zerolog.Nop())
	at := func(i byte) caller {
		who := from("10.0.0.1")
		who.addr = abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 9))
		return who
	}
	counts := func(each byte) (knocks, half int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.mu.knocks, p.mu.half[at(each).place()]
	}
	for i := range 3 * halfOpenAll {
		a, b := net.Pipe()
		defer b.Close()
		if !p.enter(a, at(byte(i%(halfOpenAll/halfOpenEach)))) {
			t.Fatalf("connection %d is refused", i)
		}
		if knocks, half := counts(byte(i % 16)); knocks > halfOpenAll || half > halfOpenEach {
			t.Fatalf("connection %d: %d half-open, %d of its address", i, knocks, half)
		}
	}
	one, other := net.Pipe()
	defer other.Close()
	if !p.enter(one, at(200)) {
		t.Fatal("who comes from elsewhere is refused")
	}
	if knocks, half := counts(200); knocks != halfOpenAll || half != 1 {
		t.Errorf("%d half-open, %d of the newcomer", knocks, half)
	}
	p.leave(one)
	p.leave(one)
	if knocks, half := counts(200); knocks != halfOpenAll-1 || half != 0 {
		t.Errorf("%d half-open, %d of the newcomer, who has left", knocks, half)
	}
}

// TestHandshakeBytes breaks the handshake off after each of its bytes.
func TestHandshakeBytes(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	cfg := abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello}
	all := make([]byte, abi.HeaderSize)
	cfg.Put(all)
	h := helloOf(1, 1, abi.PermRW)
	b := h.Append(nil)
	all = append(all, frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)...)
	for n := range len(all) {
		c := w.dial()
		if _, err := c.st.Write(all[:n]); err != nil {
			t.Fatal(err)
		}
		c.st.Close()
		if n%10 == 9 {
			eventually(t, "half-open ones are gone", func() bool {
				w.ports.mu.Lock()
				defer w.ports.mu.Unlock()
				return len(w.ports.mu.open) == 0
			})
		}
	}
	for n := range len(all) {
		bad := append([]byte(nil), all...)
		bad[n] ^= 0x40
		c := w.dial()
		if _, err := c.st.Write(bad); err != nil {
			t.Fatal(err)
		}
		if c.hello = h; n >= 8 && n < 24 || n >= 32 && n < 48 {
			c.st.Close() // csize of CFG is checked; the rest of its fields is free
			continue
		}
		if _, _, err := recvFrame(c.st, crypt.DigestNone); n < 48 && err == nil {
			t.Errorf("byte %d wrong, and the export answered", n)
		}
		if n >= 48 {
			if err := c.answer(); err == nil {
				t.Errorf("byte %d wrong, and the export welcomed", n)
			}
		}
		c.st.Close()
	}
	eventually(t, "half-open ones are gone", func() bool { return len(w.Status().Sessions) == 0 })
}

// piped is a started export in a bubble of virtual time, reached by pipes.
type piped struct {
	*Node
	t  *testing.T
	at *port
}

func newPiped(t *testing.T, c Config, disk *Disk) *piped {
	c.Name, c.Listen, c.Digest = "vol0", []abi.Addr{loopback()}, crypt.DigestCRC32C
	if c.Keys == nil {
		c.Keys = keysNow()
	}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	ports := NewPorts(zerolog.Nop())
	n := newNode(c, Env{Budget: mempool.NewBudget(1 << 30), Ports: ports, Log: zerolog.Nop()}, disk)
	if err := errors.Join(n.AddRule(anyone(abi.PermRW)), n.Start()); err != nil {
		t.Fatal(err)
	}
	return &piped{n, t, &port{ports: ports, nodes: []*Node{n}}}
}

func (p *piped) dial() *client {
	near, far := net.Pipe()
	p.at.receive(far, from("10.0.0.1"))
	return &client{t: p.t, st: near}
}

func (p *piped) client(h abi.Hello) *client {
	p.t.Helper()
	c := p.dial()
	if err := c.greet(h); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *piped) end() {
	if err := p.Close(true); err != nil {
		p.t.Error(err)
	}
	p.at.ports.Close()
	want(p.t, "budget left", p.env.Budget.Used(), 0)
}

// virtual runs a test of a piped export in virtual time.
func virtual(t *testing.T, c Config, f func(t *testing.T, p *piped)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		_, disk := memDisk(1 << 20)
		p := newPiped(t, c, disk)
		defer p.end()
		f(t, p)
	})
}

func TestHandshakeHasFiveSeconds(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		c := p.dial()
		start := time.Now()
		head := make([]byte, abi.HeaderSize)
		(&abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello}).Put(head)
		for i := range head { // one byte a second is not progress
			if _, err := c.st.Write(head[i : i+1]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d < handshakeTime || d > handshakeTime+2*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

// brief is a HELLO of a client that sends PINGs as often as an export in its
// defaults.
func brief(h abi.Hello) abi.Hello {
	h.Keepalive = 1000
	return h
}

func TestSilentClientIsCut(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		c := p.client(brief(helloOf(1, 1, abi.PermRW)))
		start := time.Now()
		for { // PINGs are read and not answered
			if _, _, err := c.recv(); err != nil {
				break
			}
		}
		if d := time.Since(start); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("cut after %v", d)
		}
		synctest.Wait()
		want(t, "breaks", p.Counters().Breaks, 1)
	})
}

func TestClientThatReadsNothingIsCut(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		p.client(brief(helloOf(1, 1, abi.PermRW)))
		start := time.Now()
		for p.Counters().Breaks == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d < 3*time.Second || d > 6*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

func TestPatientClientIsWaitedFor(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		h := helloOf(1, 1, abi.PermRW)
		h.Keepalive = 10_000
		c := p.client(h)
		go func() {
			for {
				if _, _, err := c.recv(); err != nil {
					return
				}
			}
		}()
		time.Sleep(29 * time.Second)
		want(t, "breaks after 29 s", p.Counters().Breaks, 0)
		time.Sleep(5 * time.Second)
		want(t, "breaks after 34 s", p.Counters().Breaks, 1)
	})
}

func TestLivingClientStays(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		c := p.client(helloOf(1, 1, abi.PermRW))
		pings := 0
		for end := time.Now().Add(time.Minute); time.Now().Before(end); pings++ {
			h, _, err := c.recv()
			if err != nil || h.Cmd != abi.MsgPing {
				t.Fatalf("%v, %v", h.Cmd, err)
			}
			if err := c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if pings < 55 || pings > 62 {
			t.Errorf("%d PINGs in a minute", pings)
		}
		c.st.Close()
	})
}

func TestLivingHolderKeepsItsPlace(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		c := p.client(helloOf(1, 1, abi.PermRW))
		go func() {
			for {
				h, _, err := c.recv()
				if err != nil || h.Cmd == abi.MsgPing && c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil) != nil {
					return
				}
			}
		}()
		synctest.Wait()
		start := time.Now()
		r := p.dial().refused(helloOf(2, 1, abi.PermRW))
		if r.Code != abi.RefuseBusy || r.Errno != unix.EBUSY || time.Since(start) > 2*time.Second {
			t.Errorf("%+v after %v", r, time.Since(start))
		}
		c.st.Close()
	})
}

func TestDeadHolderLosesItsPlace(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		dead := p.client(helloOf(1, 1, abi.PermRW))
		go func() { // it takes what comes and says nothing
			_, _ = io.Copy(io.Discard, dead.st)
		}()
		synctest.Wait()
		start := time.Now()
		c := p.client(helloOf(2, 1, abi.PermRW))
		if d := time.Since(start); d < 2*time.Second || d > 2500*time.Millisecond {
			t.Errorf("it had the place after %v", d)
		}
		if c.welcome.Tenure == dead.welcome.Tenure {
			t.Error("the tenure is the same")
		}
		c.st.Close()
		dead.st.Close()
	})
}

func TestByeFreesThePlace(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		c := p.client(helloOf(1, 1, abi.PermRW))
		if err := c.send(abi.Header{Cmd: abi.MsgBye}, nil); err != nil {
			t.Fatal(err)
		}
		c.gone()
		start := time.Now()
		p.client(helloOf(2, 1, abi.PermRW)).st.Close()
		want(t, "waited", time.Since(start), 0)
	})
}

func TestSlowTenureKeepsTheClientPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, disk := memDisk(1 << 20)
		fail := true
		disk.Identity.Save = func(_, _ abi.ID) error {
			time.Sleep(10 * time.Second)
			if fail {
				return unix.EIO
			}
			return nil
		}
		p := newPiped(t, Config{}, disk)
		defer p.end()
		if r := p.dial().refused(helloOf(1, 1, abi.PermRW)); r.Errno != unix.EIO {
			t.Errorf("%+v", r)
		}
		fail = false
		c := p.client(helloOf(1, 2, abi.PermRW))
		if c.drained < 9 {
			t.Errorf("%d DRAININGs in ten seconds", c.drained)
		}
		c.st.Close()
	})
}

func TestWorkersGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, disk := memDisk(1 << 20)
		p := newPiped(t, Config{}, disk)
		defer p.end()
		m.setGate(func(call string, _, _ uint64) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		c := p.client(helloOf(1, 1, abi.PermRW))
		go func() {
			for i := range uint64(64) {
				_ = c.send(abi.Header{Cmd: abi.MsgIO, Size: 512, ID: i}, nil)
			}
		}()
		for range 64 {
			if _, _, err := c.reply(); err != nil {
				t.Fatal(err)
			}
		}
		size := p.Status().Sessions[0].Workers
		want(t, "workers under load", size, 16)
		go func() {
			for {
				h, _, err := c.recv()
				if err != nil || h.Cmd == abi.MsgPing && c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil) != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		if n := p.Status().Sessions[0].Workers; n > 3 {
			t.Errorf("%d workers after a minute without load", n)
		}
		c.st.Close()
	})
}

func TestCloseNamesTheHolder(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	err := w.Close(false)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "tcp:127.0.0.1:") || !strings.Contains(err.Error(), helloOf(1, 1, 0).ClientID.String()) {
		t.Errorf("%v", err)
	}
	want(t, "FLUSH", c.flush(), 0)
	want(t, "BYE", c.send(abi.Header{Cmd: abi.MsgBye}, nil), nil)
	c.gone()
	eventually(t, "it is gone", func() bool { return w.holder() == nil })
	reader := w.client(helloOf(2, 1, abi.PermRead))
	if err := errors.Join(w.Close(false), w.Close(false)); err != nil {
		t.Error(err)
	}
	reader.gone()
	want(t, "store closed", m.closed, true)
	if _, err := conn.Dial(context.Background(), w.Addrs()[0], time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("still listening: %v", err)
	}
	want(t, "state", w.Status().State, abi.StateClosed)
	want(t, "Start", w.Start(), error(unix.ESHUTDOWN))
}

func TestForcedCloseEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, disk := memDisk(1 << 20)
		p := newPiped(t, Config{}, disk)
		begun, release := held(m)
		c := p.client(helloOf(1, 1, abi.PermRW))
		if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
			t.Fatal(err)
		}
		<-begun
		start := time.Now()
		if err := p.Close(true); err != nil {
			t.Error(err)
		}
		want(t, "time", time.Since(start), closeTime)
		want(t, "store closed under a request", m.closed, false)
		close(release)
		synctest.Wait()
		want(t, "store closed after it", m.closed, true)
		p.end()
	})
}

func TestStatus(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	begun, release := held(m)
	c := w.client(helloOf(1, 7, abi.PermRW))
	if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	eventually(t, "it is seen to wait", func() bool { return w.Status().Oldest > 20 })
	st := w.Status()
	s := st.Sessions[0]
	if st.State != abi.StateServing || st.StoreID != disk.Identity.ID || st.Verifier != c.welcome.Verifier || st.InFlight != 1 ||
		len(st.Transitions) != 2 || len(st.Rules) != 1 || s.Epoch != 7 || s.ClientID != (abi.ID{1}) || s.InFlight != 1 || s.Workers == 0 ||
		s.Perm != abi.PermRW || s.Draining || s.Peer.Family() != unix.AF_INET {
		t.Errorf("%+v", st)
	}
	close(release)
	kinds := map[abi.EventKind]int{}
	for len(w.events) > 0 {
		e := <-w.events
		kinds[e.Kind]++
		want(t, "name", e.Name, "vol0")
	}
	want(t, "session events", kinds[abi.EventKindSession], 1)
}

func TestSet(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	w.client(helloOf(1, 1, abi.PermRW))
	d, n, no := 50*time.Millisecond, uint32(4), false
	if err := w.Set(&d, &n, &no); err != nil {
		t.Fatal(err)
	}
	want(t, "keepalive", w.interval(), d)
	want(t, "workers", w.workers(), 4)
	w.SetDigest(crypt.DigestNone)
	h := helloOf(2, 1, abi.PermRead)
	h.Digest = "none"
	w.client(h)
	_, ro := memDisk(1 << 20)
	ro.Geometry.ReadOnly = true
	r := newWorld(t, Config{}, ro)
	if err := r.Set(nil, nil, &no); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	want(t, "mode", r.client(helloOf(1, 1, abi.PermRW)).welcome.Mode, abi.PermRead)
}

func TestConfig(t *testing.T) {
	env := Env{Ports: NewPorts(zerolog.Nop()), Open: func(*Config) (*Disk, error) { t.Error("opened"); return nil, unix.EIO }}
	for _, tt := range []struct {
		c    Config
		want unix.Errno
	}{
		{Config{Name: "no spaces", Listen: []abi.Addr{loopback()}}, unix.EINVAL},
		{Config{Name: "vol0"}, unix.EDESTADDRREQ},
		{Config{Name: "vol0", Listen: []abi.Addr{loopback()}, MaxPages: 8193}, unix.ERANGE},
		{Config{Name: "vol0", Listen: []abi.Addr{loopback()}, Depth: 5000}, unix.ERANGE},
		{Config{Name: "vol0", Listen: []abi.Addr{loopback()}, Workers: 5000}, unix.ERANGE},
		{Config{Name: "vol0", Listen: []abi.Addr{loopback()}, Flags: abi.NodeFlagDirect | abi.NodeFlagBuffered}, unix.EINVAL},
	} {
		if _, err := New(tt.c, env); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.c, err, tt.want)
		}
	}
}

func TestNoMemoryForAnotherClient(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	if err := w.budget.Reserve(w.budget.Total() - 1<<20); err != nil {
		t.Fatal(err)
	}
	if r := w.dial().refused(helloOf(1, 1, abi.PermRW)); r.Code != abi.RefuseLimit || r.Errno != unix.ENOMEM {
		t.Errorf("%+v", r)
	}
	w.budget.Release(w.budget.Total() - 1<<20)
	want(t, "FLUSH when there is some", w.client(helloOf(1, 2, abi.PermRW)).flush(), 0)
}
