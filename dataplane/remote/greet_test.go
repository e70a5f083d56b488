package remote

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// mark is the right answer to the CFG frame h.
func mark(h abi.Header) abi.Header {
	return abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkWelcome, ID: h.ID}
}

// TestMarkOfAStranger: who does not say the new mark is left at once.
func TestMarkOfAStranger(t *testing.T) {
	markAct := func(name string, change func(h *abi.Header), f fate) act {
		return act{name, func(_ *line, h abi.Header) []byte {
			m := mark(h)
			change(&m)
			return frame(m, nil, crypt.DigestNone)
		}, f}
	}
	ordeal(t, atMark, []act{
		{"an original peer's echo", func(_ *line, h abi.Header) []byte { return frame(h, nil, crypt.DigestNone) }, atOnce},
		markAct("no mark", func(h *abi.Header) { h.Flags = 0 }, atOnce),
		markAct("mark of one bit less", func(h *abi.Header) { h.Flags ^= 1 }, atOnce),
		markAct("another nonce", func(h *abi.Header) { h.ID++ }, atOnce),
		markAct("the nonce backwards", func(h *abi.Header) { h.ID = ^h.ID }, atOnce),
		markAct("nonce 0", func(h *abi.Header) { h.ID = 0 }, atOnce),
		markAct("an answer in place of CFG", func(h *abi.Header) { h.Cmd = abi.MsgIOResponse }, atOnce),
		markAct("right, then silence", func(*abi.Header) {}, soon),
		bytesAct("nothing", nil, soon),
		bytesAct("zeroes", make([]byte, 4096), atOnce),
		bytesAct("ones", pattern(0xff, 4096), atOnce),
		bytesAct("a web server", []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n400 Bad Request"), atOnce),
		bytesAct("a short banner", []byte("SSH-2.0-OpenSSH_9.2p1\r\n"), soon),
		bytesAct("an NBD server", append([]byte("NBDMAGICIHAVEOPT\x00\x03"), make([]byte, 64)...), atOnce),
	})
}

// TestOriginalPeerIsNamed: the one stranger who can be recognised is.
func TestOriginalPeerIsNamed(t *testing.T) {
	for _, c := range []struct {
		flags uint64
		says  string
	}{{abi.MarkHello, "original dst of 2009"}, {0, "does not speak this protocol"}} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.play = func(l *line) bool {
				h, _, _ := l.recv(crypt.DigestNone)
				h.Flags = c.flags
				_, _ = l.Write(frame(h, nil, crypt.DigestNone))
				return true
			}
			b := start(t, p, nil)
			time.Sleep(3 * time.Second)
			if s := b.node.Status(); !strings.Contains(s.Reason, c.says) {
				t.Fatalf("mark %#x: %q", c.flags, s.Reason)
			}
			b.node.Close()
		})
	}
}

// TestHandshakeCutAtEveryByte is N10: the peer closes after each byte of its
// half of the handshake, three times, or falls silent there.
func TestHandshakeCutAtEveryByte(t *testing.T) {
	w := goodWelcome()
	w.Epoch = 1
	size := abi.HeaderSize + len(frame(abi.Header{}, w.Append(nil), crc))
	var acts []act
	for n := range size {
		for range 3 {
			acts = append(acts, act{fmt.Sprintf("closes after %d", n), func(l *line, h abi.Header) []byte {
				partly(l, h, n)
				l.Close()
				return nil
			}, atOnce})
		}
		acts = append(acts, act{fmt.Sprintf("stalls after %d", n), func(l *line, h abi.Header) []byte {
			partly(l, h, n)
			return nil
		}, soon})
	}
	ordeal(t, atMark, acts)
}

// partly says the first n bytes of the handshake to the client whose CFG was h.
func partly(l *line, h abi.Header, n int) {
	m := frame(mark(h), nil, crypt.DigestNone)
	if _, err := l.Write(m[:min(n, len(m))]); err != nil || n <= len(m) {
		return
	}
	_, attrs, err := l.recv(crc)
	if err != nil {
		return
	}
	var hello abi.Hello
	_ = hello.Parse(attrs)
	w := goodWelcome()
	w.Epoch = hello.Epoch
	body := w.Append(nil)
	_, _ = l.Write(frame(abi.Header{Cmd: abi.MsgWelcome, Size: uint32(4 + len(body)), CSize: 4}, body, crc)[:n-len(m)])
}

// attrs are the attributes of a WELCOME one by one, as they are on the wire.
type attrs [][]byte

func attrsOf(w abi.Welcome) (a attrs) {
	for b := w.Append(nil); len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		a, b = append(a, slices.Clone(b[:n])), b[n:]
	}
	return a
}

// attr is one attribute of n bytes.
func attr(kind uint16, n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(n)), make([]byte, n)...)
}

// welcomeAct says a WELCOME of a changed in some way.
func welcomeAct(name string, change func(a attrs) attrs) act {
	return act{name, func(_ *line, h abi.Header) []byte {
		w := goodWelcome()
		w.Epoch = h.ID
		body := slices.Concat(change(attrsOf(w))...)
		return frame(abi.Header{Cmd: abi.MsgWelcome, CSize: 4, Size: uint32(4 + len(body))}, body, crc)
	}, atOnce}
}

// TestWelcomeOfBadAttributes: missing, double, of a wrong length, unknown.
func TestWelcomeOfBadAttributes(t *testing.T) {
	optional := []abi.WireAttr{abi.WireFeatures, abi.WireKeepalive, abi.WireTenure, abi.WireBlockPref}
	var acts []act
	for i, raw := range attrsOf(goodWelcome()) {
		kind := abi.WireAttr(binary.BigEndian.Uint16(raw) & 0x7fff)
		if !slices.Contains(optional, kind) {
			acts = append(acts, welcomeAct(fmt.Sprintf("without %d", kind), func(a attrs) attrs { return slices.Delete(a, i, i+1) }))
		}
		acts = append(acts,
			welcomeAct(fmt.Sprintf("%d twice", kind), func(a attrs) attrs { return append(a, a[i]) }),
			welcomeAct(fmt.Sprintf("%d of 0 bytes", kind), func(a attrs) attrs { a[i] = attr(uint16(kind), 0); return a }),
			welcomeAct(fmt.Sprintf("%d a byte shorter", kind), func(a attrs) attrs { a[i] = attr(uint16(kind), len(a[i])-5); return a }),
			welcomeAct(fmt.Sprintf("%d a byte longer", kind), func(a attrs) attrs { a[i] = attr(uint16(kind), len(a[i])-3); return a }),
			welcomeAct(fmt.Sprintf("%d says more than there is", kind), func(a attrs) attrs {
				binary.BigEndian.PutUint16(a[i][2:], 0xffff)
				return a
			}))
	}
	for _, kind := range []uint16{0x8000, 0x8000 | 1, 0x8000 | 20, 0x8000 | 31, 0x8000 | 32, 0xffff} {
		acts = append(acts, welcomeAct(fmt.Sprintf("unknown %#x", kind), func(a attrs) attrs { return append(a, attr(kind, 3)) }))
	}
	for n := 1; n <= 3; n++ {
		acts = append(acts, welcomeAct(fmt.Sprintf("%d bytes left over", n), func(a attrs) attrs { return append(a, make([]byte, n)) }))
	}
	acts = append(acts, welcomeAct("nothing", func(attrs) attrs { return nil }),
		welcomeAct("too much", func(a attrs) attrs { return append(a, attr(99, abi.TLVMax)) }),
		act{"refusal of nothing", func(*line, abi.Header) []byte {
			return frame(abi.Header{Cmd: abi.MsgRefuse, CSize: 4, Size: 4}, nil, crc)
		}, atOnce})
	ordeal(t, atHello, acts)
}

// TestWelcomeOfAbsurdValues: every value is judged before it is used.
func TestWelcomeOfAbsurdValues(t *testing.T) {
	var acts []act
	for name, change := range map[string]func(w *abi.Welcome){
		"size 2^63":                  func(w *abi.Welcome) { w.Size = 1 << 63 },
		"size 2^64-1":                func(w *abi.Welcome) { w.Size = 1<<64 - 1 },
		"size 0":                     func(w *abi.Welcome) { w.Size = 0 },
		"size below a block":         func(w *abi.Welcome) { w.Size, w.BlockMin = 4095, 4096 },
		"block 513":                  func(w *abi.Welcome) { w.BlockMin = 513 },
		"block 0":                    func(w *abi.Welcome) { w.BlockMin = 0 },
		"block 256":                  func(w *abi.Welcome) { w.BlockMin = 256 },
		"block 128 KiB":              func(w *abi.Welcome) { w.BlockMin = 128 << 10 },
		"block 2^31":                 func(w *abi.Welcome) { w.BlockMin = 1 << 31 },
		"best block 0":               func(w *abi.Welcome) { w.BlockPref = 0 },
		"best block 3000":            func(w *abi.Welcome) { w.BlockPref = 3000 },
		"largest request < block":    func(w *abi.Welcome) { w.MaxSize, w.BlockMin = 4096, 64<<10 },
		"largest request 0":          func(w *abi.Welcome) { w.MaxSize = 0 },
		"largest request 4095":       func(w *abi.Welcome) { w.MaxSize = 4095 },
		"largest request 32 MiB + 1": func(w *abi.Welcome) { w.MaxSize = abi.MaxRequest + 1 },
		"largest request 2^32-1":     func(w *abi.Welcome) { w.MaxSize = 1<<32 - 1 },
		"depth 0":                    func(w *abi.Welcome) { w.Depth = 0 },
		"mode 0":                     func(w *abi.Welcome) { w.Mode = 0 },
		"write only":                 func(w *abi.Welcome) { w.Mode = abi.PermWrite },
		"mode 4":                     func(w *abi.Welcome) { w.Mode = 4 | abi.PermRW },
		"epoch 0":                    func(w *abi.Welcome) { w.Epoch = 0 },
		"last epoch":                 func(w *abi.Welcome) { w.Epoch-- },
		"next epoch":                 func(w *abi.Welcome) { w.Epoch++ },
		"no store":                   func(w *abi.Welcome) { w.StoreID = abi.ID{} },
	} {
		acts = append(acts, act{name, func(_ *line, h abi.Header) []byte {
			w := goodWelcome()
			w.Epoch = h.ID
			change(&w)
			body := w.Append(nil)
			return frame(abi.Header{Cmd: abi.MsgWelcome, CSize: 4, Size: uint32(4 + len(body))}, body, crc)
		}, atOnce})
	}
	ordeal(t, atHello, acts)
}

// TestWelcomeOfLargeValues: what is large and allowed works.
func TestWelcomeOfLargeValues(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		w := &p.welcome
		w.Depth, w.Keepalive, w.Size, w.MaxSize, w.Features = 1<<32-1, 1<<32-1, 1<<63-1, abi.MaxRequest, 1<<64-1
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Read, 4096, make([]byte, 4096)); errno != 0 {
			t.Fatal(errno)
		}
		info, _ := b.node.Info()
		if info.Size != 1<<63-512 || info.MaxSize != 1<<20 {
			t.Fatalf("%+v", info)
		}
		p.set(func(p *peer) { p.mute, p.dialErr = true, unix.EHOSTUNREACH })
		time.Sleep(4 * time.Hour)
		if !b.was("no sign of life") {
			t.Fatal("a peer that announced 49 days was waited for")
		}
	})
}

// TestUnknownOptionalAttributesAreSkipped: a later version may say more.
func TestUnknownOptionalAttributesAreSkipped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.play = func(l *line) bool {
			hello, err := p.meet(l)
			if err != nil {
				return true
			}
			a := welcomeAct("", func(a attrs) attrs { return append(attrs{attr(77, 0), attr(0x7fff, 300), attr(0, 1)}, a...) })
			_, _ = l.Write(a.do(l, abi.Header{ID: hello.Epoch}))
			h, data, err := l.recv(crc)
			if err == nil {
				_ = p.answer(l, &h, data)
			}
			return true
		}
		b := start(t, p, nil)
		if errno, _ := b.do(trans.Read, 0, make([]byte, 512)); errno != 0 {
			t.Fatal(errno)
		}
		if c := b.node.Counters(); c.Connects != 1 {
			t.Fatalf("%+v", c)
		}
	})
}

// TestRefusalIsSafeToPrint: the peer's sentence reaches logs and terminals.
func TestRefusalIsSafeToPrint(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.refuse = &abi.Refuse{Code: abi.RefuseBusy, Errno: unix.EBUSY, Text: "red \x1b[31m\x00\n\xff " + strings.Repeat("x", 1000)}
		b := start(t, p, nil)
		time.Sleep(time.Second)
		s := b.node.Status().Reason
		if !strings.Contains(s, "red ?[31m??? xxx") || len(s) > 300 {
			t.Fatalf("%d bytes: %q", len(s), s)
		}
		b.node.Close()
	})
}

// TestLaterLinkMustKeepThePromise: a WELCOME that would serve less than the
// device offers its users is not used, and a better one later is.
func TestLaterLinkMustKeepThePromise(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *abi.Welcome)
		says   string
	}{
		{"smaller requests", func(w *abi.Welcome) { w.MaxSize = 4096 }, "max-pages"},
		{"larger blocks", func(w *abi.Welcome) { w.BlockMin = 4096 }, "max-pages"},
		{"read-only", func(w *abi.Welcome) { w.Mode = abi.PermRead }, "old rule"},
		{"no flush", func(w *abi.Welcome) { w.Features = 0 }, "no longer does"},
	} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			b := start(t, p, nil)
			b.state(t, abi.StateEstablished)
			p.set(func(p *peer) { p.on = hold(func(*abi.Header) bool { return true }) })
			b.submit(trans.Flush, 0, nil) // and no verifier that changes once counts twice
			synctest.Wait()
			good := p.welcome
			p.set(func(p *peer) { c.change(&p.welcome); p.welcome.Verifier[3]++; p.on = nil })
			p.cut()
			time.Sleep(20 * time.Second)
			if s := b.node.Status(); s.State == abi.StateFailed || !strings.Contains(s.Reason, c.says) {
				t.Fatalf("%s: %v %q", c.name, s.State, s.Reason)
			}
			p.set(func(p *peer) { p.welcome = good; p.welcome.Verifier[3]++ })
			if errno, _ := b.wait(); errno != 0 {
				t.Fatal(c.name, errno)
			}
		})
	}
}

// TestReadOnlyNodeStaysReadOnly: more than was asked for is not taken.
func TestReadOnlyNodeStaysReadOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, newPeer(), func(c *Config) { c.ReadOnly = true })
		b.state(t, abi.StateEstablished)
		if info, _ := b.node.Info(); !info.ReadOnly {
			t.Fatal("a read-only node took a writable device")
		}
		if s := b.node.Status(); s.Perm != abi.PermRead {
			t.Fatal(s.Perm)
		}
	})
}

// TestSizesAreWholeBlocks: neither the device nor its largest request ends in
// the middle of a block.
func TestSizesAreWholeBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		p.welcome.BlockMin, p.welcome.Size, p.welcome.MaxSize = 4096, 1<<20-512, 10000
		b := start(t, p, func(c *Config) { c.Size = 100_000 })
		b.state(t, abi.StateEstablished)
		if info, _ := b.node.Info(); info.Size != 24*4096 || info.MaxSize != 8192 || info.BlockPref != 4096 {
			t.Fatalf("%+v", info)
		}
	})
}

// TestDrainingIsLife: the fence of the export may take its time; but it does
// not last longer than fail-after.
func TestDrainingIsLife(t *testing.T) {
	for _, limit := range []time.Duration{0, 20 * time.Second} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.play = func(l *line) bool {
				hello, err := p.meet(l)
				for range 60 {
					if err == nil {
						time.Sleep(time.Second)
						err = l.send(abi.Header{Cmd: abi.MsgDraining}, nil, crc)
					}
				}
				if err == nil {
					w := p.welcome
					w.Epoch = hello.Epoch
					_ = l.send(abi.Header{Cmd: abi.MsgWelcome}, w.Append(nil), crc)
					h, data, _ := l.recv(crc)
					_ = p.answer(l, &h, data)
				}
				return true
			}
			b := start(t, p, func(c *Config) { c.FailAfter = limit })
			began := time.Now()
			errno, _ := b.do(trans.Read, 0, make([]byte, 512))
			took := time.Since(began)
			if limit == 0 && (errno != 0 || took != time.Minute) || limit != 0 && (errno != unix.EIO || took > limit+2*time.Second) {
				t.Fatalf("%v after %v", errno, took)
			}
		})
	}
}

// TestCloseInTheHandshake: whatever the peer does not say, Close returns at
// once, and says nothing into the handshake.
func TestCloseInTheHandshake(t *testing.T) {
	for n := range 60 {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			p.play = func(l *line) bool {
				h, err := atMark.reach(p, l)
				if err == nil {
					partly(l, h, n)
				}
				if b := make([]byte, 1); n > abi.HeaderSize {
					if got, _ := l.Read(b); got != 0 {
						t.Errorf("a byte was said in the handshake")
					}
				}
				return true
			}
			b := start(t, p, nil)
			synctest.Wait()
			began := time.Now()
			b.node.Close()
			if d := time.Since(began); d != 0 {
				t.Errorf("after %d bytes Close took %v", n, d)
			}
		})
	}
}

// TestUnstartedNodeAnswersOnClose: what was submitted to it is not forgotten.
func TestUnstartedNodeAnswersOnClose(t *testing.T) {
	b := assemble(t, newPeer(), make([]byte, SavedSize), nil)
	b.submit(trans.Write, 0, pattern('x', 512))
	b.node.Close()
	if errno, _ := b.wait(); errno != unix.ESHUTDOWN {
		t.Fatal(errno)
	}
	b.node.Close()
	b.node.Start() // too late, and no error
	if errno, _ := b.do(trans.Flush, 0, nil); errno != unix.ESHUTDOWN {
		t.Fatal(errno)
	}
}
