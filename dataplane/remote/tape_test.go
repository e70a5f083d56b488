package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// tape is a stream in memory: what its peer says is decided by what the node
// writes first, then it ends. Nothing of it needs time.
type tape struct {
	mu     sync.Mutex
	more   sync.Cond
	in     []byte // what the node will read
	ended  bool
	closed chan struct{}
	writes int
	said   func(n int, b []byte) (reply []byte, end bool) // to the nth write
}

func newTape(said func(n int, b []byte) ([]byte, bool)) *tape {
	t := &tape{said: said, closed: make(chan struct{})}
	t.more.L = &t.mu
	return t
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		reply, end := t.said(t.writes, b)
		t.writes++
		t.in, t.ended = append(t.in, reply...), end
		t.more.Broadcast()
	}
	return len(b), nil
}

func (t *tape) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.in) == 0 && !t.ended {
		t.more.Wait()
	}
	if len(t.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, t.in)
	t.in = t.in[n:]
	return n, nil
}

func (t *tape) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
	default:
		close(t.closed)
	}
	t.ended = true
	t.more.Broadcast()
	return nil
}

func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// asked are the requests that are in flight when the fuzzer's bytes come.
var asked = []struct {
	op     trans.Op
	offset uint64
	length uint32
}{
	{trans.Read, 8192, 512}, {trans.Write, 4096, 1024}, {trans.Flush, 0, 0}, {trans.Read, 0, 4096},
	{trans.Discard, 1 << 16, 4096}, {trans.Zero, 1 << 17, 512}, {trans.Write, 4608, 1024}, // waits for the other
}

// play runs a node with the requests of asked over one connection that is s,
// and gives them when all have come back and the node is gone.
func play(t *testing.T, memory *trans.Memory, d crypt.Digest, s *tape) []*trans.Trans {
	c := Config{Name: "vol0", Export: "vol0", Peers: []abi.Addr{abi.UnixAddr("/peer")}, MaxSize: 1 << 20, Depth: 8,
		Keepalive: time.Hour, LogAge: time.Hour, Digest: d, Memory: memory, Page: make([]byte, SavedSize), ClientID: abi.ID{9}}
	first := true
	n, err := New(c, Env{Log: zerolog.Nop(), Notify: func(abi.Event) {},
		Dial: func(context.Context, abi.Addr) (conn.Stream, error) {
			if !first {
				return nil, unix.ECONNREFUSED
			}
			first = false
			return s, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{node: n, done: make(chan *trans.Trans, len(asked)+1)}
	for _, a := range asked {
		x, _ := n.Reserve().Get(a.op, a.length, nil)
		x.Front, x.Offset = u, a.offset
		copy(x.Data, pattern(0xa5, len(x.Data)))
		n.Submit(x)
	}
	n.Start()
	<-s.closed
	n.Close()
	memory.Log.Trim(memory.Log.Tail(), 1)
	memory.Log.Haunt()
	memory.Log.Lay(0, math.MaxUint64)
	if info, ok := n.Info(); ok {
		sane(t, info)
	}
	all := make([]*trans.Trans, len(asked))
	for range asked {
		x := <-u.done
		if slot := int(x.ID & 0xffff); all[slot] != nil {
			t.Fatalf("request %d came back twice", slot)
		} else {
			all[slot] = x
		}
	}
	if len(u.done) != 0 {
		t.Fatal("a request came back twice")
	}
	return all
}

// sane holds what a device promises to its users, whatever the peer said.
func sane(t *testing.T, i Info) {
	block := uint64(i.BlockMin)
	if i.Size == 0 || i.Size >= 1<<63 || i.Size%block != 0 || i.MaxSize < i.BlockMin || i.MaxSize > 1<<20 ||
		uint64(i.MaxSize)%block != 0 || i.BlockMin < 512 || i.BlockPref < i.BlockMin {
		t.Fatalf("the device has the shape %+v", i)
	}
}

// memoryOnce is the memory that the runs of one worker share.
func memoryOnce(f *testing.F) *trans.Memory {
	m := openMemory(f, &Config{Page: make([]byte, SavedSize), Depth: 8, ClientID: abi.ID{9}})
	f.Cleanup(func() { _ = m.Close() })
	return m
}

// giveBack returns what play gave.
func giveBack(memory *trans.Memory, all []*trans.Trans) {
	for _, x := range all {
		if x.Data != nil {
			memory.Arena.Put(x.Data)
		}
	}
}

// modes of FuzzPeer's first argument.
const (
	bare   = iota // no digests
	sealed        // the digests of the fuzzer's frames are made right
	raw           // as they come
)

// FuzzPeer sends the bytes after a right handshake, with requests of all kinds
// in flight, and compares what they do with a decoder of its own.
func FuzzPeer(f *testing.F) {
	memory := memoryOnce(f)
	for _, s := range peerSeeds() {
		f.Add(s.mode, s.bytes)
	}
	f.Fuzz(func(t *testing.T, mode byte, b []byte) {
		d := crc
		if mode %= 3; mode == bare {
			d = crypt.DigestNone
		}
		if mode == sealed {
			b = seal(bytes.Clone(b))
		}
		s := newTape(func(n int, said []byte) ([]byte, bool) {
			if n == 0 {
				return firstWords(said), false
			}
			return append(secondWords(), b...), true
		})
		all := play(t, memory, d, s)
		done, data := expected(d, b)
		for slot, x := range all {
			errno, ok := done[slot]
			if !ok {
				errno = unix.ESHUTDOWN
			}
			if x.Err != errno {
				t.Fatalf("request %d: %v, expected %v", slot, x.Err, errno)
			}
			if want := data[slot]; ok && !bytes.HasPrefix(x.Data, want) {
				t.Fatalf("request %d: wrong data", slot)
			}
		}
		giveBack(memory, all)
	})
}

// firstWords answers the CFG frame b.
func firstWords(b []byte) []byte {
	var h abi.Header
	h.Parse(b)
	return frame(mark(h), nil, crypt.DigestNone)
}

// secondWords is the WELCOME to epoch 1.
func secondWords() []byte {
	w := goodWelcome()
	w.Epoch = 1
	body := w.Append(nil)
	return frame(abi.Header{Cmd: abi.MsgWelcome, CSize: 4, Size: uint32(4 + len(body))}, body, crc)
}

// seal puts the right digest behind each header of b as far as it is whole.
func seal(b []byte) []byte {
	var h abi.Header
	for rest := b; len(rest) >= 52; {
		h.Parse(rest)
		n := 52
		if h.Cmd == abi.MsgIOResponse && h.Size > 4 {
			n += int(min(h.Size-4, 1<<20))
		}
		if n > len(rest) {
			break
		}
		crc.Seal(rest, rest[52:n])
		rest = rest[n:]
	}
	return b
}

// expected is which requests of asked the bytes b complete, and with what, by
// a reading of the wire that knows nothing of the node's.
func expected(d crypt.Digest, b []byte) (done map[int]unix.Errno, data map[int][]byte) {
	done, data = map[int]unix.Errno{}, map[int][]byte{}
	size, be := 48+d.Size(), binary.BigEndian
	verifier := goodWelcome().Verifier
	for len(b) >= size {
		head := b[:size]
		cmd, length, csize, status := be.Uint32(head), be.Uint32(head[4:]), be.Uint32(head[8:]), be.Uint32(head[12:])
		id, sector, errno := be.Uint64(head[32:]), be.Uint64(head[40:]), unix.Errno(status&0xffff)
		b = b[size:]
		if csize != uint32(d.Size()) || length < csize {
			return
		}
		length -= csize
		if cmd == uint32(abi.MsgPing) || cmd == uint32(abi.MsgPong) {
			if length != 0 || d.Check(head, nil) != nil {
				return
			}
			continue
		}
		slot := int(id & 0xffff)
		if cmd != uint32(abi.MsgIOResponse) || id>>16 != 1 || slot >= len(asked) {
			return
		}
		a, want := asked[slot], uint32(0)
		if a.op == trans.Read && errno == 0 {
			want = a.length
		}
		_, twice := done[slot]
		if waits := slot == 6 && !has(done, 1); twice || waits || length != want || sector != a.offset/512 || len(b) < int(want) {
			return
		}
		same := bytes.Equal(head[16:32], verifier[:])
		if !same && errno == 0 || d.Check(head, b[:want]) != nil {
			return
		}
		if !same && a.op == trans.Flush {
			return // told, and asked again on the next link
		}
		done[slot], data[slot], b = errno, b[:want], b[want:]
		if !same {
			return // its error was the export's last word
		}
	}
	return
}

func has(m map[int]unix.Errno, slot int) bool { _, ok := m[slot]; return ok }

type peerSeed struct {
	mode  byte
	bytes []byte
}

// peerSeeds are what a good peer says, and slightly worse ones.
func peerSeeds() (seeds []peerSeed) {
	answer := func(slot int, d crypt.Digest, change func(h *abi.Header)) []byte {
		a := asked[slot]
		h := abi.Header{Cmd: abi.MsgIOResponse, ID: 1<<16 | uint64(slot), Sector: a.offset / 512, CSize: uint32(d.Size()), Size: uint32(d.Size())}
		h.SetVerifier(goodWelcome().Verifier)
		var data []byte
		if a.op == trans.Read {
			data = pattern(byte('0'+slot), int(a.length))
			h.Size += a.length
		}
		if change != nil {
			change(&h)
			data = data[:min(len(data), int(h.Size)-d.Size())]
		}
		return frame(h, data, d)
	}
	for mode, d := range []crypt.Digest{bare: crypt.DigestNone, sealed: crc, raw: crc} {
		var all []byte
		for _, slot := range []int{2, 1, 0, 6, 5, 4, 3} {
			all = append(all, answer(slot, d, nil)...)
			all = append(all, frame(abi.Header{Cmd: abi.MsgPing, ID: 5, CSize: uint32(d.Size()), Size: uint32(d.Size())}, nil, d)...)
		}
		refused := func(h *abi.Header) { h.Size, h.Reserved = h.CSize, uint32(unix.EIO) }
		reborn := func(h *abi.Header) { refused(h); h.RW++ }
		again := answer(2, d, nil)
		for _, b := range [][]byte{all, all[:len(all)-700], append(again, again...), answer(6, d, nil),
			append(answer(0, d, refused), answer(1, d, reborn)...),
			answer(1, d, func(h *abi.Header) { h.Reserved = abi.Stable }),
			answer(0, d, func(h *abi.Header) { h.Size = 1<<32 - 1 }), nil} {
			seeds = append(seeds, peerSeed{byte(mode), bytes.Clone(b)})
		}
	}
	return seeds
}

// FuzzHandshake lets the fuzzer say everything. What it says in place of the
// nonce and the digests may be made right, or no run would come far.
func FuzzHandshake(f *testing.F) {
	memory := memoryOnce(f)
	first := firstWords(make([]byte, 48))
	answers := peerSeeds()[8].bytes
	refusal := (&abi.Refuse{Code: abi.RefuseBusy, Errno: unix.EBUSY, Text: "busy"}).Append(nil)
	draining := frame(abi.Header{Cmd: abi.MsgDraining, Size: 4, CSize: 4}, nil, crc)
	for _, help := range []bool{true, false} {
		f.Add(help, append(append(bytes.Clone(first), secondWords()...), answers...))
		f.Add(help, append(append(append(bytes.Clone(first), draining...), draining...), secondWords()...))
		f.Add(help, append(bytes.Clone(first), frame(abi.Header{Cmd: abi.MsgRefuse, Size: uint32(4 + len(refusal)), CSize: 4}, refusal, crc)...))
		f.Add(help, first[:47])
	}
	f.Fuzz(func(t *testing.T, help bool, b []byte) {
		b = bytes.Clone(b)
		s := newTape(func(_ int, said []byte) ([]byte, bool) {
			if help && len(b) >= 48 {
				copy(b[32:40], said[32:40])
				sealAll(b[48:])
			}
			return b, true
		})
		all := play(t, memory, crc, s)
		giveBack(memory, all)
	})
}

// sealAll is seal for frames of the handshake, which all have what they say.
func sealAll(b []byte) {
	var h abi.Header
	for len(b) >= 52 {
		h.Parse(b)
		n := 52 + int(min(uint64(h.Size)-min(uint64(h.Size), 4), 1<<20))
		if n > len(b) {
			return
		}
		crc.Seal(b, b[52:n])
		b = b[n:]
	}
}
