package nbd

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSize = 1 << 20
	testMax  = 64 << 10
)

// memory is a device that answers from a slice: on a goroutine of its own,
// batch by batch, each batch in a random order.
type memory struct {
	t       testing.TB
	reserve *trans.Reserve
	arena   *mempool.Arena
	inline  bool // complete in Submit, flush in Kick

	mu     sync.Mutex
	info   Info
	mem    []byte
	queue  []*trans.Trans
	fail   map[uint64]unix.Errno // by offset
	log    []asked
	logged bool
	held   bool          // keep what was submitted
	owed   []trans.Front // inline: to be flushed

	wake, done chan struct{}
}

// asked is one request as the device saw it.
type asked struct {
	op     trans.Op
	flags  uint64
	offset uint64
	length uint32
}

// newMemory makes a device of testSize bytes and requests up to testMax with
// depth transactions and arena bytes; it ends with the test, and must have
// everything back then.
func newMemory(t testing.TB, depth, arena int) *memory {
	t.Helper()
	return newMemorySized(t, testSize, testMax, depth, arena)
}

func newMemorySized(t testing.TB, size, largest, depth, arena int) *memory {
	t.Helper()
	a, err := mempool.NewArena(mempool.NewBudget(int64(arena)), arena, arena, largest)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{t: t, arena: a, reserve: trans.NewReserve(depth, 0, a), mem: make([]byte, size),
		fail: map[uint64]unix.Errno{}, queue: make([]*trans.Trans, 0, depth), wake: make(chan struct{}, 1), done: make(chan struct{}),
		info: Info{Size: uint64(size), BlockMin: 512, BlockPref: 4096, MaxSize: uint32(largest),
			Features: abi.FeatureFlush | abi.FeatureFUA | abi.FeatureDiscard | abi.FeatureWriteZeroes}}
	go m.run()
	t.Cleanup(func() {
		close(m.wake)
		<-m.done
		if n := m.reserve.InUse(); n != 0 {
			t.Errorf("%d transactions did not come back", n)
		}
		if n := a.InUse(); n != 0 {
			t.Errorf("%d bytes of payload memory did not come back", n)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *memory) device(name string) Device {
	return Device{Name: name, Info: m.Info, Reserve: m.reserve, Submit: m.Submit, Kick: m.Kick}
}

func (m *memory) Info() Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

func (m *memory) Submit(t *trans.Trans) {
	if m.inline {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.do(t)
		if !slices.Contains(m.owed, t.Front) {
			m.owed = append(m.owed, t.Front)
		}
		t.Front.Complete(t)
		return
	}
	m.mu.Lock()
	m.queue = append(m.queue, t)
	m.mu.Unlock()
}

func (m *memory) Kick() {
	m.mu.Lock()
	for _, f := range m.owed {
		f.Flush()
	}
	m.owed = m.owed[:0]
	m.mu.Unlock()
	m.stir()
}

func (m *memory) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// hold keeps requests from being answered until hold(false).
func (m *memory) hold(on bool) {
	m.mu.Lock()
	m.held = on
	m.mu.Unlock()
	if !on {
		m.stir()
	}
}

// submitted is how many requests the device has and has not answered.
func (m *memory) submitted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// took forgets what the device was asked so far and returns it.
func (m *memory) took() []asked {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log
	m.log = nil
	return l
}

// run answers. Started by newMemory. Ends when wake is closed.
func (m *memory) run() {
	defer close(m.done)
	batch := make([]*trans.Trans, 0, m.reserve.Depth())
	fronts := make([]trans.Front, 0, clientsMax)
	for range m.wake {
		m.mu.Lock()
		if m.held {
			m.mu.Unlock()
			continue
		}
		batch, m.queue = m.queue, batch[:0]
		for _, t := range batch {
			m.do(t)
		}
		m.mu.Unlock()
		for i := range batch {
			j := i + rand.IntN(len(batch)-i)
			batch[i], batch[j] = batch[j], batch[i]
		}
		fronts = fronts[:0]
		for _, t := range batch {
			if f := t.Front; !slices.Contains(fronts, f) {
				fronts = append(fronts, f)
			}
			t.Front.Complete(t)
		}
		for _, f := range fronts {
			f.Flush()
		}
	}
}

func (m *memory) do(t *trans.Trans) {
	if m.logged {
		m.log = append(m.log, asked{t.Op, t.Flags, t.Offset, t.Length})
	}
	if t.Err = m.fail[t.Offset]; t.Err != 0 {
		return
	}
	switch t.Op {
	case trans.Read:
		copy(t.Data, m.mem[t.Offset:t.End()])
	case trans.Write:
		copy(m.mem[t.Offset:t.End()], t.Data)
	case trans.Discard, trans.Zero:
		clear(m.mem[t.Offset:t.End()])
	}
}

// serve offers m as "vol0" on a socket until the test ends.
func serve(t testing.TB, m *memory) (s *Server, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, m.device("vol0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, path
}

// peer is a client written from the protocol's document and go-nbd's
// structures; it fails the test on the first surprise.
type peer struct {
	net.Conn
	t testing.TB
}

const (
	bothFlags = uint32(flagFixedNewstyle | flagNoZeroes)
	soon      = 20 * time.Second // a test that waits so long has failed
)

func dial(t testing.TB, path string) *peer {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newPeer(t, c)
}

func newPeer(t testing.TB, c net.Conn) *peer {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	return &peer{c, t}
}

func (p *peer) get(v any) {
	p.t.Helper()
	if err := binary.Read(p, binary.BigEndian, v); err != nil {
		p.t.Fatalf("reading %T: %v", v, err)
	}
}

func (p *peer) put(v any) {
	p.t.Helper()
	if err := binary.Write(p, binary.BigEndian, v); err != nil {
		p.t.Fatalf("writing %T: %v", v, err)
	}
}

// gone expects the server to have closed, with nothing more said.
func (p *peer) gone() {
	p.t.Helper()
	var b [1]byte
	if n, err := p.Read(b[:]); n != 0 || err == nil || isTimeout(err) {
		p.t.Fatalf("read %d bytes, %v; want the connection closed", n, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func (p *peer) hello(flags uint32) *peer {
	p.t.Helper()
	var h protocol.NegotiationNewstyleHeader
	p.get(&h)
	want := protocol.NegotiationNewstyleHeader{OldstyleMagic: protocol.NEGOTIATION_MAGIC_OLDSTYLE,
		OptionMagic: protocol.NEGOTIATION_MAGIC_OPTION, HandshakeFlags: flagFixedNewstyle | flagNoZeroes}
	if h != want {
		p.t.Fatalf("greeted with %+v, want %+v", h, want)
	}
	p.put(flags)
	return p
}

func (p *peer) option(id uint32, data []byte) {
	p.t.Helper()
	p.put(protocol.NegotiationOptionHeader{OptionMagic: protocol.NEGOTIATION_MAGIC_OPTION, ID: id, Length: uint32(len(data))})
	if len(data) > 0 { // net.Pipe waits for a reader of nothing, too
		p.put(data)
	}
}

// reply reads one option reply, which must be to id.
func (p *peer) reply(id uint32) (kind uint32, data []byte) {
	p.t.Helper()
	var h protocol.NegotiationReplyHeader
	p.get(&h)
	if h.ReplyMagic != protocol.NEGOTIATION_MAGIC_REPLY || h.ID != id || h.Length > 8192 {
		p.t.Fatalf("reply %+v to option %d", h, id)
	}
	data = make([]byte, h.Length)
	if _, err := io.ReadFull(p, data); err != nil {
		p.t.Fatal(err)
	}
	return h.Type, data
}

// choice is the data of INFO and GO.
func choice(name string, wanted ...uint16) []byte {
	be := binary.BigEndian
	b := append(be.AppendUint32(nil, uint32(len(name))), name...)
	b = be.AppendUint16(b, uint16(len(wanted)))
	for _, w := range wanted {
		b = be.AppendUint16(b, w)
	}
	return b
}

// enter is the whole handshake: the peer may send requests.
func (p *peer) enter() *peer {
	p.t.Helper()
	p.hello(bothFlags)
	p.option(optGo, choice(""))
	for {
		switch kind, data := p.reply(optGo); kind {
		case repInfo:
		case repAck:
			return p
		default:
			p.t.Fatalf("GO was answered with %#x %q", kind, data)
		}
	}
}

func (p *peer) request(flags, cmd uint16, cookie, offset uint64, length uint32) {
	p.t.Helper()
	if err := putRequest(p, flags, cmd, cookie, offset, length); err != nil {
		p.t.Fatal(err)
	}
}

func putRequest(w io.Writer, flags, cmd uint16, cookie, offset uint64, length uint32) error {
	return binary.Write(w, binary.BigEndian, protocol.TransmissionRequestHeader{RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST,
		CommandFlags: flags, Type: cmd, Handle: cookie, Offset: offset, Length: length})
}

// answer reads the head of an answer.
func (p *peer) answer() (cookie uint64, err uint32) {
	p.t.Helper()
	var h protocol.TransmissionReplyHeader
	p.get(&h)
	if h.ReplyMagic != protocol.TRANSMISSION_MAGIC_REPLY {
		p.t.Fatalf("an answer with magic %#x", h.ReplyMagic)
	}
	return h.Handle, h.Error
}

// expect reads the head of the answer to cookie, which must be err.
func (p *peer) expect(cookie uint64, err uint32) {
	p.t.Helper()
	if c, e := p.answer(); c != cookie || e != err {
		p.t.Fatalf("answer %d to request %d, want %d to %d", e, c, err, cookie)
	}
}

// inStep proves that the server reads requests where they begin.
func (p *peer) inStep() {
	p.t.Helper()
	p.request(0, cmdRead, 0xfeed, 512, 512)
	p.expect(0xfeed, 0)
	if _, err := io.CopyN(io.Discard, p, 512); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for something another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
