package remote

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

const crc = crypt.DigestCRC32C

// peer is an export that the tests play by hand, frame by frame.
type peer struct {
	mu       sync.Mutex
	welcome  abi.Welcome
	refuse   *abi.Refuse
	hellos   []abi.Hello
	dialErr  error
	dialHook func() error         // instead of a connection
	route    func(abi.Addr) *peer // whom an address leads to; nil: here
	mute     bool                 // swallow everything, PINGs too
	disk     []byte
	log      []string // requests in the order of arrival, with the connection's number
	// on sees each request; false means that it does not get the usual answer.
	on    func(p *peer, l *line, h *abi.Header, data []byte) bool
	lines []*line
	// play, if set, may take a whole connection over: true means that it did.
	play    func(l *line) bool
	serving sync.WaitGroup // connections
}

// line is one connection as the peer sees it.
type line struct {
	conn.Stream             // secure, if the present channel is
	raw         conn.Stream // below it
	n           int
	fd          int // if it is a socket
}

func newPeer() *peer { return &peer{disk: make([]byte, 1<<20), welcome: goodWelcome()} }

// goodWelcome is what a peer grants unless a test wants it otherwise; its epoch
// is set for each connection.
func goodWelcome() abi.Welcome {
	return abi.Welcome{Mode: abi.PermRW, Features: abi.FeatureFlush, Keepalive: 1000, MaxSize: 1 << 20, Depth: 16,
		Tenure: abi.ID{7}, Verifier: abi.Verifier{1}, StoreID: abi.ID{2}, Size: 1 << 20, BlockMin: 512, BlockPref: 4096}
}

// dial is the node's Env.Dial.
func (p *peer) dial(context.Context, abi.Addr) (conn.Stream, error) {
	p.mu.Lock()
	err, hook := p.dialErr, p.dialHook
	p.mu.Unlock()
	if hook != nil {
		err = hook()
	}
	if err != nil {
		return nil, err
	}
	a, b := conntest.Pipe()
	p.answerOn(&line{Stream: b})
	return a, nil
}

// answerOn serves l, the newest connection.
func (p *peer) answerOn(l *line) {
	p.mu.Lock()
	p.lines = append(p.lines, l)
	l.n, l.raw = len(p.lines), l.Stream
	p.mu.Unlock()
	p.serving.Go(func() { p.serve(l) })
}

// cut ends the newest connection.
func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[len(p.lines)-1].raw.Close()
}

// set changes the peer between frames.
func (p *peer) set(f func(p *peer)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// trace is what arrived so far.
func (p *peer) trace() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

func (l *line) recv(d crypt.Digest) (h abi.Header, data []byte, err error) {
	head := make([]byte, abi.HeaderSize+d.Size())
	if _, err = io.ReadFull(l, head); err != nil {
		return h, nil, err
	}
	h.Parse(head)
	data = make([]byte, h.Payload())
	if _, err = io.ReadFull(l, data); err != nil {
		return h, nil, err
	}
	return h, data, d.Check(head, data)
}

func (l *line) send(h abi.Header, data []byte, d crypt.Digest) error {
	h.CSize, h.Size = uint32(d.Size()), uint32(d.Size()+len(data))
	_, err := l.Write(frame(h, data, d))
	return err
}

// frame is h as it is, with a digest that is right and data.
func frame(h abi.Header, data []byte, d crypt.Digest) []byte {
	b := make([]byte, abi.HeaderSize+d.Size(), abi.HeaderSize+d.Size()+len(data))
	h.Put(b)
	d.Seal(b, data)
	return append(b, data...)
}

// serve greets and answers until the connection ends.
func (p *peer) serve(l *line) {
	defer l.free()
	p.mu.Lock()
	play := p.play
	p.mu.Unlock()
	if play != nil && play(l) {
		return
	}
	if p.greet(l) != nil {
		return
	}
	for {
		h, data, err := l.recv(digestNow())
		if err != nil {
			return
		}
		p.mu.Lock()
		mute := p.mute
		p.mu.Unlock()
		if mute {
			continue
		}
		if h.Cmd == abi.MsgPing {
			if l.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil, digestNow()) != nil {
				return
			}
			continue
		}
		p.mu.Lock()
		p.log = append(p.log, fmt.Sprintf("%d %v rw%d @%d", l.n, h.Cmd, h.RW, h.Sector))
		on := p.on
		p.mu.Unlock()
		if h.Cmd == abi.MsgBye {
			return
		}
		if on != nil && !on(p, l, &h, data) {
			continue
		}
		if p.answer(l, &h, data) != nil {
			return
		}
	}
}

func (p *peer) greet(l *line) error {
	hello, err := p.meet(l)
	if err != nil {
		return err
	}
	p.mu.Lock()
	w, refuse := p.welcome, p.refuse
	p.mu.Unlock()
	if refuse != nil {
		return l.send(abi.Header{Cmd: abi.MsgRefuse}, refuse.Append(nil), crc)
	}
	w.Epoch = hello.Epoch
	return l.send(abi.Header{Cmd: abi.MsgWelcome}, w.Append(nil), crc)
}

// meet is the greeting up to the client's HELLO.
func (p *peer) meet(l *line) (hello abi.Hello, err error) {
	if spoken != nil {
		return p.meetSecure(l)
	}
	mark, _, err := l.recv(crypt.DigestNone)
	if err != nil {
		return hello, err
	}
	if err = l.send(abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkWelcome, ID: mark.ID}, nil, crypt.DigestNone); err != nil {
		return hello, err
	}
	return p.hear(l)
}

// hear takes the client's HELLO.
func (p *peer) hear(l *line) (hello abi.Hello, err error) {
	_, attrs, err := l.recv(crc)
	if err != nil {
		return hello, err
	}
	if err = hello.Parse(attrs); err != nil {
		return hello, err
	}
	p.mu.Lock()
	p.hellos = append(p.hellos, hello)
	p.mu.Unlock()
	return hello, nil
}

// answer does a request on the peer's disk.
func (p *peer) answer(l *line, h *abi.Header, data []byte) error {
	p.mu.Lock()
	at := h.Sector * abi.SectorSize
	var payload []byte
	switch {
	case h.Cmd == abi.MsgIO && h.RW == abi.RWWrite:
		copy(p.disk[at:], data)
	case h.Cmd == abi.MsgIO:
		payload = append(payload, p.disk[at:at+uint64(h.Size)]...)
	}
	reply := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector}
	reply.SetVerifier(p.welcome.Verifier)
	p.mu.Unlock()
	return l.send(reply, payload, digestNow())
}

// fail answers h with an error, in the present life of the export.
func (p *peer) fail(l *line, h *abi.Header, errno unix.Errno) error {
	reply := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, Reserved: uint32(errno)}
	p.mu.Lock()
	reply.SetVerifier(p.welcome.Verifier)
	p.mu.Unlock()
	return l.send(reply, nil, digestNow())
}

// user is a front: it submits and waits. As the clients of a real one, it sees
// no answer before Flush.
type user struct {
	node *Node
	done chan *trans.Trans
	mu   sync.Mutex
	back []*trans.Trans // completed, not flushed
}

func (u *user) Complete(t *trans.Trans) {
	u.mu.Lock()
	u.back = append(u.back, t)
	u.mu.Unlock()
}

func (u *user) Flush() {
	u.mu.Lock()
	back := u.back
	u.back = nil
	u.mu.Unlock()
	for _, t := range back {
		u.done <- t
	}
}

// submit hands in a request and does not wait.
func (u *user) submit(op trans.Op, off uint64, data []byte) *trans.Trans {
	length := uint32(len(data))
	t, _ := u.node.Reserve().Get(op, length, nil)
	t.Front, t.Offset = u, off
	if op == trans.Write {
		copy(t.Data, data)
	}
	u.node.Submit(t)
	u.node.Kick()
	return t
}

// wait gives the outcome of the next request that comes back.
func (u *user) wait() (errno unix.Errno, data []byte) {
	t := <-u.done
	errno, data = t.Err, append([]byte(nil), t.Data...)
	u.node.Reserve().Put(t)
	return errno, data
}

// do is submit and wait.
func (u *user) do(op trans.Op, off uint64, data []byte) (unix.Errno, []byte) {
	u.submit(op, off, data)
	return u.wait()
}

// events collects what a node tells.
type events struct {
	mu  sync.Mutex
	all []abi.Event
}

func (e *events) add(ev abi.Event) {
	e.mu.Lock()
	e.all = append(e.all, ev)
	e.mu.Unlock()
}

// bench is a node on a peer.
type bench struct {
	*user
	peer   *peer
	page   []byte
	events events

	mu  sync.Mutex
	ups []Info // the shapes that Up was called with
}

func (b *bench) up(i Info) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ups = append(b.ups, i)
	return nil
}

// start makes and starts a node; change may alter its configuration. The node
// is closed by the caller (in a bubble: before it ends).
func start(t testing.TB, p *peer, change func(*Config)) *bench {
	t.Helper()
	return restart(t, p, make([]byte, SavedSize), change)
}

func restart(t testing.TB, p *peer, page []byte, change func(*Config)) *bench {
	t.Helper()
	b := assemble(t, p, page, change)
	b.node.Start()
	return b
}

// files are the logs that belong to the pages of nodes.
var files sync.Map

// openMemory is the memory of the node of c: a new one, or what an earlier node
// with that page left.
func openMemory(t testing.TB, c *Config) *trans.Memory {
	t.Helper()
	f, ok := files.Load(&c.Page[0])
	if !ok {
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		made := os.NewFile(uintptr(fd), "log")
		t.Cleanup(func() { files.Delete(&c.Page[0]); made.Close() })
		f = made
		files.Store(&c.Page[0], f)
	}
	owner := c.ClientID
	if id, known := Attachment(c.Page); known {
		owner = id
	}
	m, err := trans.OpenMemory(f.(*os.File), mempool.NewBudget(64<<20),
		trans.Sizes{Guaranteed: 1 << 20, Limit: 4 << 20, Largest: 1 << 20, Depth: int(c.Depth) + OwnDepth}, owner)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// assemble makes a node that is not started.
func assemble(t testing.TB, p *peer, page []byte, change func(*Config)) *bench {
	t.Helper()
	b := &bench{peer: p, page: page}
	c := Config{Name: "vol0", Export: "vol0", Peers: []abi.Addr{abi.UnixAddr("/peer")}, MaxSize: 1 << 20, Depth: 16,
		Keepalive: time.Second, LogAge: time.Hour, Digest: crc, Key: spoken, Page: page, ClientID: abi.ID{9}}
	if change != nil {
		change(&c)
	}
	c.Memory = openMemory(t, &c)
	n, err := New(c, Env{Log: zerolog.Nop(), Notify: b.events.add, Dial: p.routed, Up: b.up})
	if err != nil {
		t.Fatal(err)
	}
	b.user = &user{node: n, done: make(chan *trans.Trans, 64)}
	t.Cleanup(func() { n.Close(); p.serving.Wait(); _ = c.Memory.Close() })
	return b
}
