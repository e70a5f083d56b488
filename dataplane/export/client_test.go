package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// client speaks the wire by hand.
type client struct {
	t       testing.TB
	st      conn.Stream
	digest  crypt.Digest
	hello   abi.Hello
	welcome abi.Welcome
	drained int // DRAININGs seen
	id      uint64
}

// frame is one frame as it is on the wire.
func frame(d crypt.Digest, h abi.Header, data []byte) []byte {
	b := make([]byte, abi.HeaderSize+d.Size(), abi.HeaderSize+d.Size()+len(data))
	h.CSize = uint32(d.Size())
	h.Put(b)
	d.Seal(b, data)
	return append(b, data...)
}

func (c *client) send(h abi.Header, data []byte) error {
	if h.Size == 0 || len(data) > 0 {
		h.Size = uint32(c.digest.Size() + len(data))
	}
	_, err := c.st.Write(frame(c.digest, h, data))
	return err
}

// recv reads one frame and checks it.
func (c *client) recv() (h abi.Header, data []byte, err error) {
	return recvFrame(c.st, c.digest)
}

func recvFrame(r io.Reader, d crypt.Digest) (h abi.Header, data []byte, err error) {
	head := make([]byte, abi.HeaderSize+d.Size())
	if _, err = io.ReadFull(r, head); err != nil {
		return
	}
	h.Parse(head)
	if err = h.Check(uint32(d.Size()), abi.MaxRequest); err != nil {
		return
	}
	data = make([]byte, h.Payload())
	if _, err = io.ReadFull(r, data); err == nil {
		err = d.Check(head, data)
	}
	return
}

// helloOf is a HELLO that an export in its defaults grants.
func helloOf(id byte, epoch uint64, mode abi.Perm) abi.Hello {
	return abi.Hello{Export: "vol0", ClientID: abi.ID{id}, Epoch: epoch, Mode: mode, Keepalive: 20_000, Digest: digestNow().Name()}
}

// mark exchanges the CFG frames, or proves the key of the present channel.
func (c *client) mark() error {
	if spoken != nil {
		return c.prove(spoken)
	}
	cfg := abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello, ID: 42}
	b := make([]byte, abi.HeaderSize)
	cfg.Put(b)
	if _, err := c.st.Write(b); err != nil {
		return err
	}
	h, _, err := recvFrame(c.st, crypt.DigestNone)
	if err == nil && (h.Cmd != abi.MsgCFG || h.Flags != abi.MarkWelcome || h.ID != 42) {
		err = fmt.Errorf("strange mark %+v", h)
	}
	return err
}

// greet does the whole handshake; errors are *abi.Refuse if the export refused.
func (c *client) greet(hello abi.Hello) error {
	if err := c.say(hello); err != nil {
		return err
	}
	return c.answer()
}

// say sends mark and HELLO.
func (c *client) say(hello abi.Hello) error {
	if err := c.mark(); err != nil {
		return err
	}
	c.hello = hello
	b := hello.Append(nil)
	_, err := c.st.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b))
	return err
}

// answer waits for WELCOME or REFUSE.
func (c *client) answer() error {
	for {
		h, data, err := recvFrame(c.st, crypt.DigestCRC32C)
		if err != nil {
			return err
		}
		switch h.Cmd {
		case abi.MsgDraining:
			c.drained++
		case abi.MsgRefuse:
			r := new(abi.Refuse)
			if err := r.Parse(data); err != nil {
				return err
			}
			return r
		case abi.MsgWelcome:
			c.digest, err = crypt.ParseDigest(c.hello.Digest)
			return errors.Join(err, c.welcome.Parse(data))
		default:
			return fmt.Errorf("got %v in the handshake", h.Cmd)
		}
	}
}

// reply waits for the next IO_RESPONSE; PINGs are answered on the way.
func (c *client) reply() (h abi.Header, data []byte, err error) {
	for {
		if h, data, err = c.recv(); err != nil || h.Cmd == abi.MsgIOResponse {
			return
		}
		if h.Cmd == abi.MsgPing {
			if err = c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil); err != nil {
				return
			}
		}
	}
}

// do sends a request and waits for its answer.
func (c *client) do(h abi.Header, data []byte) (abi.Header, []byte) {
	c.t.Helper()
	c.id++
	h.ID = c.id
	if err := c.send(h, data); err != nil {
		c.t.Fatalf("sending %v: %v", h.Cmd, err)
	}
	r, got, err := c.reply()
	if err != nil {
		c.t.Fatalf("answer to %v: %v", h.Cmd, err)
	}
	if r.ID != h.ID || r.Sector != h.Sector {
		c.t.Fatalf("answer %+v to %+v", r, h)
	}
	return r, got
}

func (c *client) write(sector uint64, data []byte, flags uint64) unix.Errno {
	c.t.Helper()
	h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Sector: sector, Flags: flags}, data)
	return h.Errno()
}

func (c *client) read(sector uint64, n uint32) ([]byte, unix.Errno) {
	c.t.Helper()
	h, data := c.do(abi.Header{Cmd: abi.MsgIO, Sector: sector, Size: n}, nil)
	if h.Errno() == 0 && len(data) != int(n) {
		c.t.Fatalf("READ of %d bytes brought %d", n, len(data))
	}
	return data, h.Errno()
}

func (c *client) flush() unix.Errno {
	c.t.Helper()
	h, _ := c.do(abi.Header{Cmd: abi.MsgFlush}, nil)
	return h.Errno()
}

func (c *client) erase(cmd abi.Msg, sector uint64, n uint32, flags uint64) unix.Errno {
	c.t.Helper()
	h, _ := c.do(abi.Header{Cmd: cmd, Sector: sector, Size: n, Flags: flags}, nil)
	return h.Errno()
}

// gone waits until the export closes the connection.
func (c *client) gone() {
	c.t.Helper()
	for {
		if _, _, err := c.recv(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, unix.ECONNRESET) &&
				!errors.Is(err, io.ErrClosedPipe) {
				c.t.Fatalf("instead of a closed connection: %v", err)
			}
			return
		}
	}
}

// world is an export with the rule "any rw", reachable on TCP.
type world struct {
	*Node
	t      testing.TB
	ports  *Ports
	budget *mempool.Budget
	events chan abi.Event
}

func anyone(perm abi.Perm) abi.Rule { return abi.Rule{Kind: abi.RuleKindAny, Perm: perm} }

func loopback() abi.Addr {
	return abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("127.0.0.1:0"))
}

// newWorld starts an export of disk (or, if nil, of c.Device) on TCP.
func newWorld(t testing.TB, c Config, disk *Disk) *world {
	t.Helper()
	w := &world{t: t, ports: NewPorts(zerolog.Nop()), budget: mempool.NewBudget(1 << 30), events: make(chan abi.Event, 1000)}
	if c.Name == "" {
		c.Name = "vol0"
	}
	c.Digest = crypt.DigestCRC32C
	if c.Keys == nil {
		c.Keys = keysNow()
	}
	if c.Listen == nil {
		c.Listen = []abi.Addr{loopback()}
	}
	n, err := New(c, w.env(disk))
	if err != nil {
		t.Fatal(err)
	}
	w.Node = n
	if err := errors.Join(n.AddRule(anyone(abi.PermRW)), n.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
}

func (w *world) env(disk *Disk) Env {
	env := Env{Budget: w.budget, Ports: w.ports, Log: zerolog.New(zerolog.NewTestWriter(w.t)).Level(zerolog.WarnLevel), Notify: func(e abi.Event) {
		select {
		case w.events <- e:
		default:
		}
	}}
	if disk != nil {
		env.Open = func(*Config) (*Disk, error) { return disk, nil }
	}
	return env
}

func (w *world) end() {
	if err := w.Close(true); err != nil {
		w.t.Error(err)
	}
	w.ports.Close()
	if used := w.budget.Used(); used != 0 {
		w.t.Errorf("%d bytes of the budget were not given back", used)
	}
}

// dial connects to the export, greets nobody.
func (w *world) dial() *client {
	w.t.Helper()
	st, err := conn.Dial(context.Background(), w.Addrs()[0], 5*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = st.Close() })
	if err := st.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return &client{t: w.t, st: st}
}

// client connects and is welcomed.
func (w *world) client(h abi.Hello) *client {
	w.t.Helper()
	c := w.dial()
	if err := c.greet(h); err != nil {
		w.t.Fatalf("client %v epoch %d: %v", h.ClientID, h.Epoch, err)
	}
	return c
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not happen that %s", what)
		}
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i)*7 + byte(i>>9)
	}
	return b
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: other bytes than expected", what)
	}
}

// holder is the seat of the read-write client.
func (w *world) holder() *Seat {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.core.Holder()
}
