package export

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// stages of a connection.
const (
	stageFresh    = iota // nothing was said
	stageMarked          // CFG was exchanged
	stageWelcomed        // requests may come
	stageForged          // a key was proved; raw bytes follow
	stagePlain           // the same; they are sealed
)

// bare is a connection that can be closed in one direction.
func (w *world) bare(stage int, id byte) (*client, *net.TCPConn) {
	w.t.Helper()
	ap, _ := w.Addrs()[0].AddrPort()
	nc, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(ap))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	c := &client{t: w.t, st: nc}
	switch stage {
	case stageMarked:
		err = c.mark()
	case stageWelcomed:
		err = c.greet(helloOf(id, 1, abi.PermRW))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return c, nc
}

// rest reads what the export still sends and counts it by message. All of it
// must be whole frames.
func rest(r io.Reader, d crypt.Digest) (map[abi.Msg]int, error) {
	got := make(map[abi.Msg]int)
	for {
		h, _, err := recvFrame(r, d)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			return got, nil
		case err != nil:
			return got, err
		}
		got[h.Cmd]++
	}
}

// lengths are the values that every length field is tried with.
func lengths(limit uint32) []uint32 {
	return []uint32{0, 1, 4, abi.HeaderSize - 1, abi.HeaderSize, limit - 1, limit, limit + 1, abi.MaxRequest + 4, abi.MaxRequest + 5,
		1<<31 - 1, 1 << 31, 1<<32 - 1}
}

// TestEveryMessageInEveryState sends each message with each length, nothing
// behind it, and ends: the export must end too, answer only what is a request,
// and serve the next one as before.
func TestEveryMessageInEveryState(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{MaxPages: 4}, disk)
	const limit = 4 * 4096
	id := byte(0)
	for stage := stageFresh; stage <= stageWelcomed; stage++ {
		for cmd := abi.Msg(0); cmd < 20; cmd++ {
			for _, size := range lengths(limit) {
				for _, csize := range []uint32{0, 4, 1<<32 - 1} {
					h := abi.Header{Cmd: cmd, Size: size, CSize: csize, RW: uint64(size) & 1}
					if stage == stageFresh && cmd == abi.MsgCFG {
						h.Flags = abi.MarkHello
					}
					id++
					if fault := tryHeader(w, stage, id, h); fault != "" {
						t.Errorf("stage %d, %+v: %s", stage, h, fault)
					}
				}
			}
		}
	}
	want(t, "FLUSH at the end", w.client(helloOf(200, 1000, abi.PermRead)).flush(), 0)
}

func tryHeader(w *world, stage int, id byte, h abi.Header) string {
	hello := helloOf(id, 0, abi.PermRW)
	c, nc := w.bare(min(stage, stageMarked), id)
	defer nc.Close()
	digest := crypt.DigestNone
	if stage > stageFresh {
		digest = crypt.DigestCRC32C
	}
	if stage == stageWelcomed {
		hello.ClientID[1], hello.Epoch, hello.Mode = byte(h.Cmd), uint64(time.Now().UnixNano()), abi.PermRead
		b := hello.Append(nil)
		if _, err := nc.Write(frame(digest, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)); err != nil {
			return err.Error()
		}
		c.hello = hello
		if err := c.answer(); err != nil {
			return err.Error()
		}
	}
	b := make([]byte, abi.HeaderSize+digest.Size())
	h.Put(b)
	digest.Seal(b, nil)
	if _, err := nc.Write(b); err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		return err.Error()
	}
	if err := nc.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err.Error()
	}
	got, err := rest(nc, digest)
	if err != nil {
		return "instead of an end: " + err.Error()
	}
	if got[abi.MsgIOResponse] > 0 {
		request := h.Cmd == abi.MsgIO || h.Cmd == abi.MsgFlush || h.Cmd == abi.MsgDiscard || h.Cmd == abi.MsgWriteZeroes
		if stage != stageWelcomed || !request || h.CSize != 4 {
			return fmt.Sprintf("answered with %v", got)
		}
	}
	if got[abi.MsgWelcome] > 0 {
		return "welcomed"
	}
	return ""
}

func TestMalformedHellos(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	good := helloOf(1, 1, abi.PermRW)
	b := good.Append(nil)
	change := func(f func(b []byte) []byte) []byte { return f(append([]byte(nil), b...)) }
	for name, attrs := range map[string][]byte{
		"nothing":         {},
		"cut":             b[:len(b)-1],
		"length beyond":   change(func(b []byte) []byte { b[2], b[3] = 0xff, 0xff; return b }),
		"given twice":     append(append([]byte(nil), b...), b[:8]...),
		"unknown, must":   append(append([]byte(nil), b...), 0x80|0x1f, 0, 0, 0),
		"long name":       change(func(b []byte) []byte { return append([]byte{0x80, 1, 0, 40}, append(make([]byte, 40), b[8:]...)...) }),
		"mode 0":          (&abi.Hello{Export: "vol0", ClientID: abi.ID{1}, Epoch: 1, Digest: "crc32c"}).Append(nil),
		"epoch 0":         (&abi.Hello{Export: "vol0", ClientID: abi.ID{1}, Mode: 3, Digest: "crc32c"}).Append(nil),
		"client id 0":     (&abi.Hello{Export: "vol0", Epoch: 1, Mode: 3, Digest: "crc32c"}).Append(nil),
		"name with a NUL": (&abi.Hello{Export: "vol0\x00", ClientID: abi.ID{1}, Epoch: 1, Mode: 3, Digest: "crc32c"}).Append(nil),
		"path as name":    (&abi.Hello{Export: "../vol0", ClientID: abi.ID{1}, Epoch: 1, Mode: 3, Digest: "crc32c"}).Append(nil),
	} {
		c, nc := w.bare(stageMarked, 1)
		if _, err := nc.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)); err != nil {
			t.Fatal(err)
		}
		var r *abi.Refuse
		if err := c.answer(); !errors.As(err, &r) || r.Text == "" || len(r.Text) > abi.TextMax {
			t.Errorf("%s: %v", name, err)
		}
		nc.Close()
	}
	// Unknown ones that need not be understood are skipped.
	c, nc := w.bare(stageMarked, 1)
	defer nc.Close()
	attrs := append(append([]byte(nil), b...), 0x00, 0x1f, 0, 2, 1, 2)
	if _, err := nc.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)); err != nil {
		t.Fatal(err)
	}
	c.hello = good
	if err := c.answer(); err != nil {
		t.Error(err)
	}
}

func TestOriginalClientGetsNoAnswer(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c, nc := w.bare(stageFresh, 1)
	defer nc.Close()
	b := make([]byte, abi.HeaderSize)
	(&abi.Header{Cmd: abi.MsgCFG}).Put(b)
	if _, err := c.st.Write(b); err != nil {
		t.Fatal(err)
	}
	if n, err := c.st.Read(b); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestWrongDigestBreaksTheConnection(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	for at, h := range map[int]abi.Header{
		7:    {Cmd: abi.MsgIO, Size: 4096},
		100:  {Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 4 + 4096},
		4000: {Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 4 + 4096},
		50:   {Cmd: abi.MsgPing, Size: 4},
		40:   {Cmd: abi.MsgDiscard, Size: 4096},
		33:   {Cmd: abi.MsgFlush, Size: 4},
	} {
		var data []byte
		if h.RW != 0 {
			data = pattern(4096, 1)
		}
		b := frame(crypt.DigestCRC32C, h, data)
		b[at] ^= 1
		before := w.Counters().DigestErrors
		c := w.client(helloOf(byte(at), 1, abi.PermRW))
		if _, err := c.st.Write(b); err != nil {
			t.Fatal(err)
		}
		if got, err := rest(c.st, c.digest); err != nil || got[abi.MsgIOResponse] != 0 {
			t.Errorf("%v with byte %d wrong: %v, %v", h.Cmd, at, got, err)
		}
		eventually(t, "it is counted", func() bool { return w.Counters().DigestErrors == before+1 })
	}
	wantBytes(t, "store", m.bytes(0, 1<<20), make([]byte, 1<<20))
}

// TestFloods sends without ever reading: memory stays bounded, others are
// served, and the flood ends.
func TestFloods(t *testing.T) {
	for name, h := range map[string]abi.Header{
		"PING": {Cmd: abi.MsgPing, Size: 4},
		"READ": {Cmd: abi.MsgIO, Size: 1 << 20},
		"bad":  {Cmd: abi.MsgDiscard, Size: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, disk := memDisk(8 << 20)
			w := newWorld(t, Config{Keepalive: 100 * time.Millisecond, Arena: 8 << 20}, disk)
			flood := helloOf(1, 1, abi.PermRead)
			flood.Keepalive = 100
			c := w.client(flood)
			ended := make(chan error, 1)
			go func() {
				b := frame(c.digest, h, nil)
				for range 10 {
					b = append(b, b...)
				}
				for {
					if _, err := c.st.Write(b); err != nil {
						ended <- err
						return
					}
				}
			}()
			calm := helloOf(2, 1, abi.PermRW)
			calm.Keepalive = 60_000 // it answers no PINGs here
			other := w.client(calm)
			for i := range 50 {
				want(t, "WRITE of another", other.write(0, pattern(4096, byte(i)), 0), 0)
			}
			eventually(t, "the flood is cut off", func() bool { return w.Counters().Breaks == 1 })
			if err := <-ended; err == nil {
				t.Error("no error")
			}
			if used := w.budget.Used(); used > 2*(8<<20+inBuffer) {
				t.Errorf("%d bytes in use", used)
			}
			want(t, "FLUSH of another", other.flush(), 0)
		})
	}
}

func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c, nc := w.bare(stageWelcomed, 1)
	defer nc.Close()
	for i := range uint64(5) {
		if err := c.send(abi.Header{Cmd: abi.MsgPing, ID: i}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := rest(nc, c.digest); err != nil {
		t.Error(err)
	}
	eventually(t, "it is gone", func() bool { return len(w.Status().Sessions) == 0 })
}

// TestN04Names: a name of any length and of any bytes is a name that is not here, or
// no name; nothing of it comes back.
func TestN04Names(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	good := helloOf(1, 1, abi.PermRW)
	rest := good.Append(nil)[8:] // behind the name
	names := [][]byte{[]byte("vol0\x00"), []byte("vol0/"), []byte("../vol0"), []byte("/dev/sda"), []byte("\xff\xfe\xfd"), []byte("vol0 "), []byte("VOL0"),
		[]byte("%s%n"), []byte("\x1b[2J"), {0}}
	for _, n := range []int{1, abi.NameMax, abi.NameMax + 1, 255, 256, 257, 800, 4096, 65535} {
		names = append(names, []byte(strings.Repeat("q", n)))
	}
	for _, name := range names {
		attrs := append(append([]byte{0x80, 1, byte(len(name) >> 8), byte(len(name))}, name...), rest...)
		c, nc := w.bare(stageMarked, 1)
		if _, err := nc.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)); err != nil && !ended(err) {
			t.Fatal(err)
		}
		err := c.answer()
		var r *abi.Refuse
		switch {
		case errors.As(err, &r):
			if strings.Contains(r.Text, string(name)) && len(name) > 1 {
				t.Errorf("%.40q is echoed: %q", name, r.Text)
			}
		case !ended(err):
			t.Errorf("%.40q: %v", name, err)
		}
		nc.Close()
	}
	want(t, "sessions", len(w.Status().Sessions), 0)
	want(t, "FLUSH", w.client(good).flush(), 0)
}
