package remote

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// withKey lets a node have k, whatever its peer has.
func withKey(k *crypt.Key) func(*Config) { return func(c *Config) { c.Key = k } }

// says waits until a link broke for a reason with these words.
func (b *bench) says(t *testing.T, words string) {
	t.Helper()
	time.Sleep(3 * time.Second)
	if !b.was(words) {
		t.Errorf("no link broke with %q: %+v", words, b.node.Status().Transitions)
	}
}

// TestN15RefusedKey: an export that closes without a word has refused the key, and
// that is what is shown, with what to compare.
func TestN15RefusedKey(t *testing.T) {
	ours, theirs := gcmKey(t, 1), gcmKey(t, 2)
	for name, answer := range map[string]func(p *peer, l *line){
		"does not know the key":     func(p *peer, l *line) { _ = l.protect(theirs) },
		"closes at once":            func(p *peer, l *line) {},
		"closes within message 1":   func(p *peer, l *line) { _, _ = io.ReadFull(l, make([]byte, 20)) },
		"closes behind message 1":   func(p *peer, l *line) { _, _ = io.ReadFull(l, make([]byte, 84)) },
		"closes behind its own":     func(p *peer, l *line) { _ = l.protect(ours) },
		"closes behind HELLO":       func(p *peer, l *line) { _ = l.protect(ours); _, _ = p.hear(l) },
		"is plain, and lacks a key": func(p *peer, l *line) { _, _ = io.ReadFull(l, make([]byte, abi.HeaderSize)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer()
				p.play = func(l *line) bool { answer(p, l); return true }
				b := start(t, p, withKey(ours))
				b.says(t, "the peer refused the key")
				if s := b.node.Status(); !strings.Contains(s.Reason, ours.ID().String()) || !strings.Contains(s.Reason, "key files") {
					t.Errorf("%q", s.Reason)
				}
				want := []abi.Key{{ID: ours.ID(), Cipher: "gcm(aes)"}}
				if got := b.node.Status().Keys; !slices.Equal(got, want) {
					t.Errorf("keys %+v", got)
				}
				b.node.Close()
			})
		})
	}
}

// answer2 is message 2 for the client on l, as the right peer makes it, and the
// secrets behind it.
func (l *line) answer2(k *crypt.Key) (msg2 []byte, s crypt.Secrets, err error) {
	var msg1 [crypt.HandshakeMax]byte
	if _, err = io.ReadFull(l, msg1[:crypt.HandshakeHead]); err != nil {
		return nil, s, err
	}
	total, err := crypt.MessageSize(msg1[:crypt.HandshakeHead])
	if err != nil {
		return nil, s, err
	}
	if _, err = io.ReadFull(l, msg1[crypt.HandshakeHead:total]); err != nil {
		return nil, s, err
	}
	s, _, msg2, err = crypt.Respond(msg1[:total], func(abi.KeyID) *crypt.Key { return k })
	return msg2, s, err
}

// TestN12HostileAnswer: whatever answers in place of the right peer, the node leaves
// at once, says who may be wrong and counts it; then the right one is served.
func TestN12HostileAnswer(t *testing.T) {
	k := gcmKey(t, 1)
	speak(t, k)
	var old []byte // a message 2 of an earlier connection
	welcome := goodWelcome()
	welcome.Epoch = 1
	attrs := welcome.Append(nil)
	type hostile struct {
		name string
		make func(msg2 []byte) []byte
	}
	acts := []hostile{
		{"zeroes", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"ones", func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, len(b)) }},
		{"a web server", func(b []byte) []byte { return append([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), make([]byte, 64)...) }},
		{"a mark in clear", func([]byte) []byte {
			return frame(abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkWelcome, ID: 7}, make([]byte, 64), crypt.DigestNone)
		}},
		{"a WELCOME in clear", func([]byte) []byte {
			return frame(abi.Header{Cmd: abi.MsgWelcome, CSize: 4, Size: uint32(4 + len(attrs))}, attrs, crc)
		}},
		{"the answer of another connection", func([]byte) []byte { return old }},
	}
	for bit := range 8 * crypt.ReplySize {
		acts = append(acts, hostile{fmt.Sprintf("bit %d wrong", bit), func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b }})
	}
	bubble(t, func(t *testing.T) {
		p := newPeer()
		var next atomic.Int32 // connections
		p.play = func(l *line) bool {
			msg2, s, err := l.answer2(k)
			s.Wipe()
			if err != nil {
				t.Error(err)
			}
			n := int(next.Add(1)) - 1
			if n == 0 {
				old = msg2
				return true
			}
			if n > len(acts) {
				return true
			}
			a := acts[n-1]
			_, _ = l.Write(a.make(msg2))
			began := time.Now()
			if _, err := io.Copy(io.Discard, l); err != nil || time.Since(began) != 0 {
				t.Errorf("%s: the node left after %v, %v", a.name, time.Since(began), err)
			}
			return true
		}
		b := start(t, p, withKey(k))
		b.submit(trans.Read, 0, make([]byte, 512))
		for int(next.Load()) <= len(acts) {
			time.Sleep(time.Second)
		}
		if !b.was("does not have the key") || len(b.done) != 0 {
			t.Errorf("%+v, %d requests", b.node.Status().Transitions, len(b.done))
		}
		if n := b.node.Counters().AuthErrors; n != uint64(len(acts)) {
			t.Errorf("%d of %d counted", n, len(acts))
		}
		p.set(func(p *peer) { p.play = nil })
		if errno, _ := b.wait(); errno != 0 {
			t.Error(errno)
		}
		b.node.Close()
	})
}

// TestN10AnswerCutAtEveryByte: the peer closes within its message, three times after
// each byte, or falls silent there.
func TestN10AnswerCutAtEveryByte(t *testing.T) {
	k := gcmKey(t, 1)
	speak(t, k)
	bubble(t, func(t *testing.T) {
		p := newPeer()
		next := 0
		p.play = func(l *line) bool {
			n, silent := next/4, next%4 == 3
			if next++; n >= crypt.ReplySize {
				p.set(func(p *peer) { p.play = nil })
				return false
			}
			msg2, s, err := l.answer2(k)
			s.Wipe()
			if err != nil {
				t.Error(err)
			}
			_, _ = l.Write(msg2[:n])
			if silent {
				began := time.Now()
				_, _ = io.Copy(io.Discard, l)
				if took := time.Since(began); took != handshakeTimeout {
					t.Errorf("silent after %d bytes: the node left after %v", n, took)
				}
			}
			return true
		}
		b := start(t, p, withKey(k))
		if errno, _ := b.do(trans.Write, 0, pattern('w', 512)); errno != 0 {
			t.Error(errno)
		}
		if !b.was("the peer refused the key") || !b.was("said nothing") {
			t.Errorf("%+v", b.node.Status().Transitions)
		}
		b.node.Close()
	})
}

// TestN14NothingBeforeTheChannel: what a peer says in clear behind its message 2, or
// at once, is no record.
func TestN14NothingBeforeTheChannel(t *testing.T) {
	k := gcmKey(t, 1)
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool {
			msg2, s, err := l.answer2(k)
			s.Wipe()
			if err != nil {
				t.Error(err)
			}
			w := goodWelcome()
			w.Epoch = uint64(l.n)
			body := w.Append(nil)
			p.serving.Go(func() { _, _ = io.Copy(io.Discard, l) })
			_, _ = l.Write(append(msg2, frame(abi.Header{Cmd: abi.MsgWelcome, CSize: 4, Size: uint32(4 + len(body))}, body, crc)...))
			return true
		}
		b := start(t, p, withKey(k))
		b.submit(trans.Write, 0, pattern('w', 512))
		time.Sleep(10 * time.Second)
		if c := b.node.Counters(); c.AuthErrors < 5 || len(b.done) != 0 {
			t.Errorf("counted %+v, %d requests", c, len(b.done))
		}
		if _, ok := b.node.Info(); ok {
			t.Error("it believed a WELCOME in clear")
		}
		b.node.Close()
	})
}

// TestN15ForgedRecords: bytes that are not the peer's break an established link, in
// every way there is; none of them completes a request, and each is counted.
func TestN15ForgedRecords(t *testing.T) {
	k := gcmKey(t, 1)
	speak(t, k)
	for name, harm := range map[string]func(*harmful, []byte) []byte{
		"a flipped bit":      func(_ *harmful, b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"a flipped length":   func(_ *harmful, b []byte) []byte { b[0] ^= 0x80; return b },
		"the last again":     func(h *harmful, b []byte) []byte { return append(bytes.Clone(h.last), b...) },
		"one left out":       func(*harmful, []byte) []byte { return nil },
		"what the node said": func(h *harmful, b []byte) []byte { return bytes.Clone(h.heard) },
		"zeroes":             func(_ *harmful, b []byte) []byte { return make([]byte, len(b)) },
		"a frame in clear": func(_ *harmful, b []byte) []byte {
			return frame(abi.Header{Cmd: abi.MsgIOResponse, ID: 1 << 16}, pattern('x', 512), crypt.DigestNone)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer()
				copy(p.disk, pattern('r', 4096))
				var bad *harmful
				p.play = func(l *line) bool {
					if bad == nil {
						bad = &harmful{Stream: l.Stream, harm: harm}
						l.Stream = bad
					}
					return false
				}
				b := start(t, p, withKey(k))
				b.state(t, abi.StateEstablished)
				for range 5 {
					b.do(trans.Read, 0, make([]byte, 512))
				}
				bad.armed.Store(true)
				errno, data := b.do(trans.Read, 512, make([]byte, 512))
				if errno != 0 || !bytes.Equal(data, pattern('r', 512)) {
					t.Errorf("%v, %q", errno, data[:8])
				}
				if c := b.node.Counters(); c.AuthErrors != 1 || c.Breaks != 1 {
					t.Errorf("counted %+v", c)
				}
				b.node.Close()
			})
		})
	}
}

// harmful changes one record that the peer sends, when it is armed.
type harmful struct {
	conn.Stream
	harm        func(*harmful, []byte) []byte
	armed       atomic.Bool
	last, heard []byte
}

func (h *harmful) Write(b []byte) (int, error) {
	if h.armed.CompareAndSwap(true, false) {
		sent := h.harm(h, bytes.Clone(b))
		_, err := h.Stream.Write(sent)
		return len(b), err
	}
	h.last = bytes.Clone(b)
	return h.Stream.Write(b)
}

func (h *harmful) Read(b []byte) (int, error) {
	n, err := h.Stream.Read(b)
	if n > 0 {
		h.heard = bytes.Clone(b[:n])
	}
	return n, err
}
