package cutproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a proxy between a dialler and a listener of the test.
type rig struct {
	*Proxy
	t  *testing.T
	ln net.Listener
}

func newRig(t *testing.T, network string) *rig {
	t.Helper()
	listen, addr := "tcp:127.0.0.1:0", "127.0.0.1:0"
	if network == "unix" {
		dir := t.TempDir()
		listen, addr = "unix:"+filepath.Join(dir, "p"), filepath.Join(dir, "t")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(listen, network+":"+ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{p, t, ln}
}

// dial connects through the proxy.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	network, addr, _ := strings.Cut(r.Addr(), ":")
	c, err := net.Dial(network, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// pair returns both ends of a connection through the proxy, indexed by the direction in which each sends.
func (r *rig) pair() [2]net.Conn {
	r.t.Helper()
	near := r.dial()
	far, err := r.ln.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	_ = far.SetDeadline(time.Now().Add(20 * time.Second))
	r.t.Cleanup(func() { far.Close() })
	return [2]net.Conn{near, far}
}

func pattern8(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)
	}
	return b
}

// expect reads exactly want.
func expect(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("%d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("other bytes came out")
	}
}

func TestCutIsByteExact(t *testing.T) {
	data := pattern8(1 << 20)
	for _, network := range []string{"tcp", "unix"} {
		for _, dir := range []Dir{Up, Down} {
			for _, mode := range []Mode{RST, FIN} {
				for _, n := range []int{0, 1, 48, 65535, 65536, 65537, 1 << 20} {
					r := newRig(t, network)
					done := r.CutAfter(dir, uint64(n), mode)
					ends := r.pair()
					go func() { _, _ = ends[dir].Write(data) }()
					got, err := io.ReadAll(ends[1-dir])
					<-done
					if !bytes.Equal(got, data[:n]) {
						t.Errorf("%s dir %d mode %d: %d bytes passed, want %d", network, dir, mode, len(got), n)
					}
					reset := network == "tcp" && mode == RST
					if errors.Is(err, syscall.ECONNRESET) != reset || err != nil && !reset {
						t.Errorf("%s dir %d mode %d after %d: ended with %v", network, dir, mode, n, err)
					}
					if s := r.Stats(); s.Cuts != 1 || s.Bytes[dir] != uint64(n) {
						t.Errorf("stats %+v", s)
					}
				}
			}
		}
	}
}

func TestCutIsForOneConnection(t *testing.T) {
	r := newRig(t, "tcp")
	one, two := r.pair(), r.pair()
	done := r.CutAfter(Up, 10, RST)
	_, _ = one[Up].Write(pattern8(4))
	expect(t, one[Down], pattern8(4))
	_, _ = two[Up].Write(pattern8(8))
	expect(t, two[Down], pattern8(8)[:6])
	<-done
	if _, err := two[Down].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("want a reset, got %v", err)
	}
	_, _ = one[Up].Write(pattern8(4))
	expect(t, one[Down], pattern8(4))
}

// blocked checks that nothing arrives for a little while.
func blocked(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes came, %v", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
}

func TestSilent(t *testing.T) {
	r := newRig(t, "tcp")
	ends := r.pair()
	done := r.CutAfter(Up, 3, Silent)
	_, _ = ends[Up].Write(pattern8(64))
	<-done
	expect(t, ends[Down], pattern8(3))
	blocked(t, ends[Down])
	_, _ = ends[Down].Write(pattern8(9))
	blocked(t, ends[Up])
	ends[Down].Close()
	blocked(t, ends[Up])
	again := r.pair()
	_, _ = again[Up].Write(pattern8(5))
	expect(t, again[Down], pattern8(5))
}

func TestCutNow(t *testing.T) {
	for mode, want := range map[Mode]error{RST: syscall.ECONNRESET, FIN: io.EOF} {
		r := newRig(t, "tcp")
		one, two := r.pair(), r.pair()
		if n := r.CutNow(mode); n != 2 {
			t.Errorf("cut %d connections, want 2", n)
		}
		for _, c := range []net.Conn{one[Up], one[Down], two[Up], two[Down]} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
				t.Errorf("mode %d: %v, want %v", mode, err, want)
			}
		}
		if n := r.CutNow(mode); n != 0 {
			t.Errorf("cut %d connections again", n)
		}
	}
}

func TestBlackhole(t *testing.T) {
	r := newRig(t, "tcp")
	ends := r.pair()
	data := pattern8(8 << 20)
	r.Blackhole(true)
	go func() { _, _ = ends[Up].Write(data) }()
	go func() { _, _ = ends[Down].Write(data) }()
	late := r.dial()
	_, _ = late.Write(pattern8(7))
	blocked(t, ends[Up])
	blocked(t, ends[Down])
	r.Blackhole(false)
	down := make(chan bool)
	go func() { defer close(down); expect(t, ends[Up], data) }()
	expect(t, ends[Down], data)
	<-down
	far, err := r.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, far, pattern8(7))
	far.Close()
}

func TestOneWayLoss(t *testing.T) {
	for _, dir := range []Dir{Up, Down} {
		r := newRig(t, "tcp")
		ends := r.pair()
		r.BlackholeOf(dir, true)
		_, _ = ends[dir].Write(pattern8(5))
		_, _ = ends[1-dir].Write(pattern8(9))
		expect(t, ends[dir], pattern8(9))
		blocked(t, ends[1-dir])
		late := r.dial()
		_, _ = late.Write(pattern8(7))
		blocked(t, late)
		r.BlackholeOf(dir, false)
		expect(t, ends[1-dir], pattern8(5))
		far, err := r.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		expect(t, far, pattern8(7))
		far.Close()
	}
}

func TestHalfClose(t *testing.T) {
	r := newRig(t, "tcp")
	ends := r.pair()
	_, _ = ends[Up].Write(pattern8(3))
	closeWrite(ends[Up])
	if got, err := io.ReadAll(ends[Down]); err != nil || len(got) != 3 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	_, _ = ends[Down].Write(pattern8(5))
	expect(t, ends[Up], pattern8(5))
}

func TestCorrupt(t *testing.T) {
	r := newRig(t, "tcp")
	ends := r.pair()
	want := pattern8(200 << 10)
	done := r.CorruptAt(Down, 100_000)
	go func() { _, _ = ends[Down].Write(pattern8(200 << 10)) }()
	want[100_000] ^= 1
	expect(t, ends[Up], want)
	<-done
}

func TestDelayAndRefuse(t *testing.T) {
	r := newRig(t, "tcp")
	ends := r.pair()
	const delay = 30 * time.Millisecond
	r.Delay(delay)
	start := time.Now()
	_, _ = ends[Up].Write(pattern8(5))
	expect(t, ends[Down], pattern8(5))
	_, _ = ends[Down].Write(pattern8(5))
	expect(t, ends[Up], pattern8(5))
	if took := time.Since(start); took < 2*delay {
		t.Errorf("there and back in %v", took)
	}
	r.Refuse(true)
	refused(r)
}

// refused checks that a new connection is reset, while it is made or afterwards.
func refused(r *rig) {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.Addr(), "tcp:"))
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		r.t.Errorf("want a reset, got %v", err)
	}
}

func TestTargetAbsent(t *testing.T) {
	r := newRig(t, "tcp")
	r.ln.Close()
	refused(r)
	for _, addr := range []string{"", "tcp", "sctp:1.2.3.4:5", "tcp:1.2.3.4"} {
		if _, err := New(addr, "unix:x"); err == nil {
			t.Errorf("%q was taken", addr)
		}
	}
}

func TestDo(t *testing.T) {
	r := newRig(t, "tcp")
	tests := []struct {
		line, says string
		bad        bool
	}{
		{line: "stats", says: "ok accepted 0 live 0 up 0 down 0 cuts 0"},
		{line: "cut now rst", says: "ok 0"},
		{line: "cut after 100 bytes dir up mode fin", says: "ok"},
		{line: "corrupt at 7 dir down", says: "ok"},
		{line: "blackhole on", says: "ok"},
		{line: "blackhole off", says: "ok"},
		{line: "blackhole on dir up", says: "ok"},
		{line: "blackhole off dir down", says: "ok"},
		{line: "refuse on", says: "ok"},
		{line: "refuse off", says: "ok"},
		{line: "delay 20ms", says: "ok"},
		{line: "delay", bad: true},
		{line: "delay x", bad: true},
		{line: "delay -1s", bad: true},
		{line: "cut now", bad: true},
		{line: "cut now soon", bad: true},
		{line: "cut after -1 bytes dir up mode fin", bad: true},
		{line: "cut after 1 bytes dir left mode fin", bad: true},
		{line: "cut after 1 bytes dir up mode no", bad: true},
		{line: "blackhole", bad: true},
		{line: "blackhole on dir left", bad: true},
		{line: "", bad: true},
		{line: "stats now please", bad: true},
	}
	for _, tt := range tests {
		says, err := r.Do(tt.line)
		if says != tt.says || (err != nil) != tt.bad {
			t.Errorf("%q: %q, %v", tt.line, says, err)
		}
	}
	var out strings.Builder
	if err := r.Serve(strings.NewReader("stats\n\nnonsense\n"), &out); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); !strings.HasPrefix(lines[0], "ok accepted") || !strings.HasPrefix(lines[1], "error: ") {
		t.Errorf("said %q", out.String())
	}
}
