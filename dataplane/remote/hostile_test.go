package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// stage is how far a connection gets before its peer turns bad.
type stage int

const (
	atMark        stage = iota // CFG has come and is not answered
	atHello                    // HELLO has come and is not answered
	atRecovery                 // WELCOME was said, a WRITE was sent again and is unanswered
	atEstablished              // a READ is unanswered
)

func (s stage) String() string {
	return [...]string{"mark", "hello", "recovery", "established"}[s]
}

// digest and limit are what the node agreed to at this stage.
func (s stage) digest() crypt.Digest {
	if s == atMark {
		return crypt.DigestNone
	}
	return crc
}

func (s stage) limit() uint32 {
	if s <= atHello {
		return abi.TLVMax
	}
	return 1 << 20
}

// reach plays the good peer up to s and gives the frame that is unanswered
// there; at hello its ID is the epoch.
func (s stage) reach(p *peer, l *line) (h abi.Header, err error) {
	if s == atMark {
		h, _, err = l.recv(crypt.DigestNone)
		return h, err
	}
	if s == atHello {
		hello, err := p.meet(l)
		return abi.Header{Cmd: abi.MsgHello, ID: hello.Epoch}, err
	}
	if err = p.greet(l); err == nil {
		h, _, err = l.recv(crc)
	}
	return h, err
}

// act is one bad connection: do is called at the stage with the frame that is
// unanswered; what it returns is sent. Then the peer reads on and says nothing.
type act struct {
	name string
	do   func(l *line, h abi.Header) []byte
	fate fate
}

// fate is when the node must leave.
type fate int

const (
	atOnce fate = iota // as soon as it has read the bytes
	soon               // when the silence has lasted
	either
)

// patience is longer than any silence that a node bears.
const patience = 10 * time.Second

// perform plays a on l and says what was wrong with the node's reaction.
func (a *act) perform(p *peer, l *line, at stage) error {
	h, err := at.reach(p, l)
	if err != nil {
		return fmt.Errorf("the stage was not reached: %w", err)
	}
	began := time.Now()
	l.SetDeadline(began.Add(patience))
	if b := a.do(l, h); b != nil {
		_, _ = l.Write(b) // the node may leave in the middle
	}
	_, err = io.Copy(io.Discard, l)
	took := time.Since(began)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the node stayed for %v", patience)
	case a.fate == atOnce && took != 0:
		return fmt.Errorf("the node left after %v, not at once", took)
	case a.fate == soon && took == 0:
		return fmt.Errorf("the node left at once")
	}
	return nil
}

// SetDeadline is both of the stream's.
func (l *line) SetDeadline(at time.Time) {
	_ = l.SetReadDeadline(at)
	_ = l.SetWriteDeadline(at)
}

// ordeal leads a node with a request in flight through one connection for each
// act. No act may complete a request; the good connection after the last must
// serve them, with the right data.
func ordeal(t *testing.T, at stage, acts []act) (c *abi.Counters) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		p := newPeer()
		copy(p.disk[8192:], pattern('r', 4096))
		b := assemble(t, p, make([]byte, SavedSize), func(c *Config) { c.MaxSize = 1 << 20 })
		if at >= atRecovery {
			b.node.Start()
			b.wearIn(t)
		}
		next := 0
		p.set(func(p *peer) {
			p.on = hold(func(*abi.Header) bool { return p.play != nil })
			p.play = func(l *line) bool {
				if next == len(acts) {
					p.set(func(p *peer) { p.play = nil })
					return false
				}
				a := &acts[next]
				next++
				if err := a.perform(p, l, at); err != nil {
					t.Errorf("%v, act %d (%s): %v", at, next, a.name, err)
				}
				if n := len(b.done); n != 0 {
					t.Errorf("%v, act %d (%s): it completed %d requests", at, next, a.name, n)
				}
				return true
			}
		})
		if at == atRecovery {
			b.submit(trans.Write, 4096, pattern('w', 512))
		}
		b.submit(trans.Read, 8192, make([]byte, 512))
		b.node.Start() // not before the bad peer is there, unless it needs a good one first
		if at >= atRecovery {
			b.state(t, abi.StateEstablished)
			p.cut()
		}
		b.serveWell(t, p, at)
		if next != len(acts) {
			t.Errorf("%d of %d acts were played", next, len(acts))
		}
		for _, tr := range b.node.Status().Transitions {
			if tr.State == abi.StateBroken && tr.Reason == "" {
				t.Error("a link broke without a reason")
			}
		}
		c = b.node.Counters()
	})
	return c
}

// serveWell waits for ordeal's requests and checks what they brought.
func (b *bench) serveWell(t *testing.T, p *peer, at stage) {
	t.Helper()
	n := 1
	if at == atRecovery {
		n = 2
	}
	for range n {
		errno, data := b.wait()
		if errno != 0 || data != nil && !bytes.Equal(data, pattern('r', 512)) { // nil: the write's is the log's
			t.Errorf("%v: a request came back with %v and %q", at, errno, data)
		}
	}
	if at == atRecovery && !bytes.Equal(p.disk[4096:4608], pattern('w', 512)) {
		t.Errorf("%v: the write did not arrive", at)
	}
	b.state(t, abi.StateEstablished)
}

// wearIn uses every element of the reserve.
func (b *bench) wearIn(t *testing.T) {
	t.Helper()
	for range 2 * b.node.Reserve().Depth() {
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
	}
}

// bytesAct sends b.
func bytesAct(name string, b []byte, f fate) act {
	return act{name, func(*line, abi.Header) []byte { return b }, f}
}

// TestEveryLengthAndMessageInEveryState is N1, N7 and N8: all messages, known
// and unknown, with every length that is a border of something.
func TestEveryLengthAndMessageInEveryState(t *testing.T) {
	for at := atMark; at <= atEstablished; at++ {
		t.Run(at.String(), func(t *testing.T) {
			csize, limit := uint32(at.digest().Size()), at.limit()
			lengths := []uint32{0, 1, csize, csize + 1, abi.HeaderSize - 1, abi.HeaderSize, abi.HeaderSize + 1,
				limit + csize - 1, limit + csize, limit + csize + 1, abi.MaxRequest, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1}
			messages := []abi.Msg{1 << 31, 1<<32 - 1}
			for m := abi.Msg(0); m <= abi.MsgBye+1; m++ {
				messages = append(messages, m)
			}
			var acts []act
			for _, m := range messages {
				for _, n := range lengths {
					for _, h := range []abi.Header{{Cmd: m, Size: n, CSize: csize}, {Cmd: m, Size: csize, CSize: n}, {Cmd: m, Size: n, CSize: n},
						{Cmd: m, Size: n, CSize: csize, RW: abi.RWWrite}} {
						acts = append(acts, lengthAct(at, h))
					}
				}
			}
			ordeal(t, at, acts)
		})
	}
}

// lengthAct sends h, with as many bytes behind it as it says if that may be
// believed at all.
func lengthAct(at stage, h abi.Header) act {
	name := fmt.Sprintf("%v size %d csize %d rw %d", h.Cmd, h.Size, h.CSize, h.RW)
	if h.Check(uint32(at.digest().Size()), at.limit()) != nil {
		return bytesAct(name, frame(h, nil, at.digest()), atOnce)
	}
	f := atOnce
	switch {
	case at == atHello && h.Cmd == abi.MsgDraining,
		at > atHello && (h.Cmd == abi.MsgPing || h.Cmd == abi.MsgPong):
		f = soon // well said, but then nothing more
	}
	return bytesAct(name, frame(h, make([]byte, h.Payload()), at.digest()), f)
}

// TestWellFormedMessagesOutOfPlace sends what is right elsewhere.
func TestWellFormedMessagesOutOfPlace(t *testing.T) {
	p := newPeer()
	hello := abi.Hello{Export: "vol0", ClientID: abi.ID{1}, Epoch: 1, Mode: abi.PermRW, Digest: "crc32c"}
	refuse := abi.Refuse{Code: abi.RefuseBusy, Text: "no"}
	bodies := map[abi.Msg][]byte{
		abi.MsgHello: hello.Append(nil), abi.MsgWelcome: p.welcome.Append(nil), abi.MsgRefuse: refuse.Append(nil),
		abi.MsgIO: pattern('x', 512), abi.MsgFlush: nil, abi.MsgDiscard: nil, abi.MsgWriteZeroes: nil,
		abi.MsgBye: nil, abi.MsgCFG: nil, abi.MsgDraining: nil, abi.MsgIOResponse: pattern('x', 512),
	}
	for _, at := range []stage{atRecovery, atEstablished} {
		var acts []act
		for m, body := range bodies {
			h := abi.Header{Cmd: m, CSize: 4, Size: uint32(4 + len(body)), ID: 1 << 16}
			if m == abi.MsgIO {
				h.RW = abi.RWWrite
			}
			acts = append(acts, bytesAct(m.String(), frame(h, body, crc), atOnce))
		}
		acts = append(acts,
			bytesAct("garbage", pattern(0xa5, 4096), atOnce), bytesAct("zeroes", pattern(0, 4096), atOnce),
			bytesAct("ones", pattern(0xff, 4096), atOnce))
		if c := ordeal(t, at, acts); c.ProtocolErrors+c.DigestErrors != uint64(len(acts)) {
			t.Errorf("%v: %d acts, counted %+v", at, len(acts), c)
		}
	}
}

// reply is the right answer to the request h of ordeal: 512 bytes for a READ.
func reply(h abi.Header) (abi.Header, []byte) {
	r := abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, CSize: 4, Size: 4}
	r.SetVerifier(goodWelcome().Verifier)
	if h.Cmd == abi.MsgIO && h.RW == 0 {
		r.Size += 512
		return r, pattern('r', 512)
	}
	return r, nil
}

// TestFalseReplies are answers to what was not asked, or not as it was asked.
func TestFalseReplies(t *testing.T) {
	resize := func(n int) func(*abi.Header, *[]byte) {
		return func(h *abi.Header, data *[]byte) {
			*data = append(pattern('r', 512), pattern('x', 8192)...)[:n]
			h.Size = 4 + uint32(n)
		}
	}
	falsehoods := []struct {
		name string
		lie  func(h *abi.Header, data *[]byte)
	}{
		{"id 0", func(h *abi.Header, _ *[]byte) { h.ID = 0 }},
		{"all ones", func(h *abi.Header, _ *[]byte) { h.ID = 1<<64 - 1 }},
		{"next use of the element", func(h *abi.Header, _ *[]byte) { h.ID += 1 << 16 }},
		{"last use of the element", func(h *abi.Header, _ *[]byte) { h.ID -= 1 << 16 }},
		{"a free element", func(h *abi.Header, _ *[]byte) { h.ID ^= 8 }},
		{"an element beyond the reserve", func(h *abi.Header, _ *[]byte) { h.ID |= 0xffff }},
		{"the element alone", func(h *abi.Header, _ *[]byte) { h.ID &= 0xffff }},
		{"next sector", func(h *abi.Header, _ *[]byte) { h.Sector++ }},
		{"sector with the top bit", func(h *abi.Header, _ *[]byte) { h.Sector |= 1 << 63 }},
		{"one byte", resize(1)}, {"511 bytes", resize(511)}, {"513 bytes", resize(513)}, {"8 KiB", resize(8192)},
		{"an error with data", func(h *abi.Header, data *[]byte) { resize(512)(h, data); h.Reserved = 5 }},
		{"another life of the export", func(h *abi.Header, _ *[]byte) { h.Flags++ }},
		{"another life of the export, too", func(h *abi.Header, _ *[]byte) { h.RW ^= 1 << 63 }},
	}
	for _, at := range []stage{atRecovery, atEstablished} {
		var acts []act
		for _, f := range falsehoods {
			acts = append(acts, act{f.name, func(_ *line, h abi.Header) []byte {
				r, data := reply(h)
				f.lie(&r, &data)
				return frame(r, data, crc)
			}, atOnce})
		}
		wrong := resize(0)
		if at == atRecovery {
			wrong = resize(512)
		}
		acts = append(acts, act{"a READ's answer to a WRITE, or the other way", func(_ *line, h abi.Header) []byte {
			r, data := reply(h)
			wrong(&r, &data)
			return frame(r, data, crc)
		}, atOnce})
		if c := ordeal(t, at, acts); c.ProtocolErrors != uint64(len(acts)) {
			t.Errorf("%v: %d acts, counted %+v", at, len(acts), c)
		}
	}
}

// TestEveryFlippedBitOfAnAnswer: no damage of one bit completes a request.
func TestEveryFlippedBitOfAnAnswer(t *testing.T) {
	for at, size := range map[stage]int{atRecovery: 52, atEstablished: 52 + 512} {
		var acts []act
		for i := range size * 8 {
			if i >= 52*8 && i%8 != i/8%8 {
				continue // data: one bit of each byte
			}
			acts = append(acts, act{fmt.Sprintf("bit %d", i), func(_ *line, h abi.Header) []byte {
				r, data := reply(h)
				b := frame(r, data, crc)
				b[i/8] ^= 1 << (i % 8)
				return b
			}, either})
		}
		ordeal(t, at, acts)
	}
}

// TestAnswerCutAtEveryByte: the peer closes, or falls silent, in the middle.
func TestAnswerCutAtEveryByte(t *testing.T) {
	for at, size := range map[stage]int{atRecovery: 52, atEstablished: 52 + 512} {
		var acts []act
		for n := range size {
			part := func(h abi.Header) []byte {
				r, data := reply(h)
				return frame(r, data, crc)[:n]
			}
			acts = append(acts, act{fmt.Sprintf("closes after %d", n), func(l *line, h abi.Header) []byte {
				_, _ = l.Write(part(h))
				l.Close()
				return nil
			}, atOnce})
			if n%16 == 0 {
				acts = append(acts, act{fmt.Sprintf("stalls after %d", n), func(_ *line, h abi.Header) []byte { return part(h) }, soon})
			}
		}
		ordeal(t, at, acts)
	}
}
