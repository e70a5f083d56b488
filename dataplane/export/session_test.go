package export

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

func TestRequests(t *testing.T) {
	m, disk := memDisk(4 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "size", c.welcome.Size, 4<<20)
	want(t, "mode", c.welcome.Mode, abi.PermRW)
	want(t, "store id", c.welcome.StoreID, disk.Identity.ID)

	data := pattern(64<<10, 1)
	want(t, "WRITE", c.write(8, data, 0), 0)
	got, errno := c.read(8, 64<<10)
	want(t, "READ", errno, 0)
	wantBytes(t, "READ", got, data)
	wantBytes(t, "store", m.bytes(4096, 64<<10), data)
	want(t, "FLUSH", c.flush(), 0)
	want(t, "WRITE FUA", c.write(0, data[:512], abi.FlagFUA|abi.FlagPreflush), 0)
	want(t, "WRITE_ZEROES", c.erase(abi.MsgWriteZeroes, 8, 4096, abi.FlagNoHole), 0)
	want(t, "DISCARD", c.erase(abi.MsgDiscard, 16, 4096, abi.FlagFUA), 0)
	wantBytes(t, "zeroes", m.bytes(4096, 8192), make([]byte, 8192))
	if err := c.send(abi.Header{Cmd: abi.MsgPing, ID: 77}, nil); err != nil {
		t.Fatal(err)
	}
	h, _, err := c.recv()
	if err != nil || h.Cmd != abi.MsgPong || h.ID != 77 {
		t.Fatalf("PING answered by %+v, %v", h, err)
	}
	count := *w.Counters()
	want(t, "counters", count, abi.Counters{Reads: 1, Writes: 2, Flushes: 1, Discards: 1, Zeroes: 1, ReadBytes: 64 << 10,
		WrittenBytes: 64<<10 + 512, Connects: 1})
}

func TestRequestsReachFiles(t *testing.T) {
	for name, conf := range backing(t, 4<<20) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, conf, nil)
			c := w.client(helloOf(1, 1, abi.PermRW))
			data := pattern(128<<10, 7)
			want(t, "WRITE", c.write(16, data, 0), 0)
			want(t, "WRITE FUA", c.write(1024, data, abi.FlagFUA), 0)
			want(t, "FLUSH", c.flush(), 0)
			want(t, "WRITE_ZEROES", c.erase(abi.MsgWriteZeroes, 16, 8192, 0), 0)
			want(t, "DISCARD", c.erase(abi.MsgDiscard, 4096, 1<<20, 0), 0)
			clear(data[:8192])
			got, errno := c.read(16, 128<<10)
			want(t, "READ", errno, 0)
			wantBytes(t, "READ", got, data)
			if name == "file" {
				b, err := os.ReadFile(conf.Device)
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "file", b[8192:8192+len(data)], data)
			}
			want(t, "BYE", c.send(abi.Header{Cmd: abi.MsgBye}, nil), nil)
			c.gone()
		})
	}
}

// TestJudge is every limit of every request.
func TestJudge(t *testing.T) {
	const size, limit = 1 << 20, 64 << 10
	m, disk := memDisk(size)
	disk.Geometry.BlockMin = 4096
	w := newWorld(t, Config{MaxPages: limit / 4096}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	tests := []struct {
		name   string
		h      abi.Header
		data   int
		errno  unix.Errno
		cannot bool // is refused without a look at the range
	}{
		{"read the end", abi.Header{Cmd: abi.MsgIO, Sector: size/512 - 8, Size: 4096}, 0, 0, false},
		{"read past the end", abi.Header{Cmd: abi.MsgIO, Sector: size/512 - 8, Size: 8192}, 0, unix.EINVAL, false},
		{"read at the end", abi.Header{Cmd: abi.MsgIO, Sector: size / 512, Size: 4096}, 0, unix.EINVAL, false},
		{"read far away", abi.Header{Cmd: abi.MsgIO, Sector: 1 << 62, Size: 4096}, 0, unix.EINVAL, false},
		{"read wrapping", abi.Header{Cmd: abi.MsgIO, Sector: 1<<64 - 8, Size: 4096}, 0, unix.EINVAL, false},
		{"read wrapping bytes", abi.Header{Cmd: abi.MsgIO, Sector: 1 << 55, Size: 4096}, 0, unix.EINVAL, false},
		{"read unaligned length", abi.Header{Cmd: abi.MsgIO, Sector: 0, Size: 4095}, 0, unix.EINVAL, false},
		{"read unaligned offset", abi.Header{Cmd: abi.MsgIO, Sector: 1, Size: 4096}, 0, unix.EINVAL, false},
		{"read the largest", abi.Header{Cmd: abi.MsgIO, Size: limit}, 0, 0, false},
		{"read too large", abi.Header{Cmd: abi.MsgIO, Size: limit + 4096}, 0, unix.EINVAL, false},
		{"read 4 GiB", abi.Header{Cmd: abi.MsgIO, Size: 1<<32 - 4096}, 0, unix.EINVAL, false},
		{"read ahead", abi.Header{Cmd: abi.MsgIO, Size: 4096, Flags: abi.FlagReadAhead}, 0, 0, false},
		{"read with FUA", abi.Header{Cmd: abi.MsgIO, Size: 4096, Flags: abi.FlagFUA}, 0, unix.EINVAL, false},
		{"read with strange rw", abi.Header{Cmd: abi.MsgIO, Size: 4096, RW: 2}, 0, unix.EINVAL, false},
		{"read with reserved", abi.Header{Cmd: abi.MsgIO, Size: 4096, Reserved: 1}, 0, unix.EINVAL, false},
		{"write nothing", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, 0, unix.EINVAL, false},
		{"write past the end", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Sector: size/512 - 8}, 8192, unix.EINVAL, false},
		{"write unaligned", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Sector: 8}, 512, unix.EINVAL, false},
		{"write odd", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Sector: 8}, 1, unix.EINVAL, false},
		{"write the largest", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, limit, 0, false},
		{"write too large", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, limit + 4096, unix.EINVAL, false},
		{"write the wire's largest", abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, abi.MaxRequest, unix.EINVAL, false},
		{"write with strange rw", abi.Header{Cmd: abi.MsgIO, RW: 3}, 4096, unix.EINVAL, false},
		{"write with NO_HOLE", abi.Header{Cmd: abi.MsgIO, RW: 1, Flags: abi.FlagNoHole}, 4096, unix.EINVAL, false},
		{"write with unknown flag", abi.Header{Cmd: abi.MsgIO, RW: 1, Flags: 1 << 40}, 4096, unix.EINVAL, false},
		{"flush with a flag", abi.Header{Cmd: abi.MsgFlush, Flags: 1}, 0, unix.EINVAL, false},
		{"discard all", abi.Header{Cmd: abi.MsgDiscard, Size: size}, 0, 0, false},
		{"discard more", abi.Header{Cmd: abi.MsgDiscard, Size: size + 4096}, 0, unix.EINVAL, false},
		{"discard unaligned", abi.Header{Cmd: abi.MsgDiscard, Size: 4097}, 0, unix.EINVAL, false},
		{"zero all", abi.Header{Cmd: abi.MsgWriteZeroes, Size: size, Flags: abi.FlagFUA | abi.FlagNoHole}, 0, 0, false},
		{"zero past the end", abi.Header{Cmd: abi.MsgWriteZeroes, Sector: 8, Size: size}, 0, unix.EINVAL, false},
		{"zero with rw", abi.Header{Cmd: abi.MsgWriteZeroes, Size: 4096, RW: 1}, 0, unix.EINVAL, false},
		{"zero with preflush", abi.Header{Cmd: abi.MsgWriteZeroes, Size: 4096, Flags: abi.FlagPreflush}, 0, unix.EINVAL, false},
	}
	for _, tt := range tests {
		before := m.bytes(0, size)
		got, _ := c.do(tt.h, pattern(tt.data, 3))
		if got.Errno() != tt.errno {
			t.Errorf("%s: errno %v, want %v", tt.name, got.Errno(), tt.errno)
		}
		if tt.errno != 0 {
			wantBytes(t, tt.name, m.bytes(0, size), before)
		}
		if _, errno := c.read(0, 4096); errno != 0 {
			t.Fatalf("after %q the stream is out of step", tt.name)
		}
	}
	// Sizes of 0 need a hand: send takes 0 for "as it is".
	for _, h := range []abi.Header{{Cmd: abi.MsgIO}, {Cmd: abi.MsgDiscard}, {Cmd: abi.MsgWriteZeroes}} {
		if _, err := c.st.Write(frame(c.digest, h, nil)); err != nil {
			t.Fatal(err)
		}
		if r, _, err := c.reply(); err != nil || r.Errno() != unix.EINVAL {
			t.Errorf("%v of nothing: %v, %v", h.Cmd, r.Errno(), err)
		}
	}
}

func TestReadOnlyClientCannotWrite(t *testing.T) {
	m, disk := memDisk(1 << 20)
	copy(m.b, pattern(1<<20, 9))
	before := m.bytes(0, 1<<20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRead))
	want(t, "mode", c.welcome.Mode, abi.PermRead)
	want(t, "WRITE", c.write(0, pattern(4096, 1), 0), unix.EPERM)
	want(t, "WRITE FUA", c.write(0, pattern(4096, 1), abi.FlagFUA|abi.FlagPreflush), unix.EPERM)
	want(t, "DISCARD", c.erase(abi.MsgDiscard, 0, 4096, 0), unix.EPERM)
	want(t, "WRITE_ZEROES", c.erase(abi.MsgWriteZeroes, 0, 4096, 0), unix.EPERM)
	want(t, "FLUSH", c.flush(), 0)
	_, errno := c.read(0, 4096)
	want(t, "READ", errno, 0)
	wantBytes(t, "store", m.bytes(0, 1<<20), before)
}

// held makes the first write wait until it is let go.
func held(m *memStore) (begun, release chan struct{}) {
	begun, release = make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	m.setGate(func(call string, _, _ uint64) error {
		if call == "write" && once.CompareAndSwap(false, true) {
			close(begun)
			<-release
		}
		return nil
	})
	return begun, release
}

// ghost is the ghost write: the store holds W1, the link breaks, the client
// comes again, resends W1 and writes W2. It returns what the block is at last.
func ghost(t *testing.T, fence bool) []byte {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Keepalive: 20 * time.Millisecond}, disk)
	if !fence {
		w.Unfence()
	}
	begun, release := held(m)
	w1, w2 := pattern(4096, 1), pattern(4096, 2)
	c := w.client(helloOf(1, 1, abi.PermRW))
	if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: 1}, w1); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := c.st.Close(); err != nil {
		t.Fatal(err)
	}
	c = w.dial()
	done := make(chan struct{})
	go func() {
		// The store lets W1 go when the fence shows that it waits for it, or, if
		// nothing waits, after the client has written W2.
		defer close(done)
		if fence {
			eventually(t, "the old session drains", func() bool {
				return slices.ContainsFunc(w.Status().Sessions, func(s abi.Session) bool { return s.Draining })
			})
			close(release)
		}
	}()
	if err := c.greet(helloOf(1, 2, abi.PermRW)); err != nil {
		t.Fatal(err)
	}
	<-done
	want(t, "resent W1", c.write(0, w1, 0), 0)
	want(t, "W2", c.write(0, w2, 0), 0)
	if !fence {
		close(release)
		eventually(t, "the ghost is gone", func() bool { return len(w.Status().Sessions) == 1 })
	}
	return m.bytes(0, 4096)
}

func TestGhostWriteIsFencedOff(t *testing.T) {
	wantBytes(t, "block", ghost(t, true), pattern(4096, 2))
}

// TestGhostWriteWithoutTheFence shows that the test above can fail.
func TestGhostWriteWithoutTheFence(t *testing.T) {
	wantBytes(t, "block", ghost(t, false), pattern(4096, 1))
}

func TestFenceSendsDraining(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Keepalive: 10 * time.Millisecond}, disk)
	begun, release := held(m)
	old := w.client(helloOf(1, 1, abi.PermRW))
	if err := old.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	c := w.dial()
	if err := c.say(helloOf(1, 2, abi.PermRW)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if h, _, err := recvFrame(c.st, crypt.DigestCRC32C); err != nil || h.Cmd != abi.MsgDraining {
			t.Fatalf("while the fence waits: %v, %v", h.Cmd, err)
		}
	}
	old.gone()
	close(release)
	if err := c.answer(); err != nil {
		t.Fatal(err)
	}
}

func TestSlowRequestStallsNobody(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Workers: 3}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	begun, release := held(m)
	if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: 900}, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	// Writes that overlap it wait without a worker; all else goes on.
	for i := range uint64(10) {
		if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: 901 + i}, pattern(512, 2)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		want(t, "WRITE meanwhile", c.write(64, pattern(4096, byte(i)), 0), 0)
		_, errno := c.read(64, 4096)
		want(t, "READ meanwhile", errno, 0)
	}
	want(t, "FLUSH meanwhile", c.flush(), 0)
	if st := w.Status(); st.InFlight == 0 || st.Sessions[0].Workers > 3 {
		t.Errorf("status %+v", st.Sessions)
	}
	close(release)
	for i := range uint64(11) {
		h, _, err := c.reply()
		if err != nil || h.ID != 900+i || h.Errno() != 0 {
			t.Fatalf("%+v, %v: overlapping writes are not in order", h, err)
		}
	}
}

func TestBackPressure(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{Workers: 2, Depth: 8, Keepalive: 20 * time.Millisecond}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "depth", c.welcome.Depth, 8)
	release := make(chan struct{})
	m.setGate(func(call string, _, _ uint64) error {
		if call == "read" {
			<-release
		}
		return nil
	})
	const n = 200
	sent := make(chan error, 1)
	go func() {
		for i := range uint64(n) {
			if err := c.send(abi.Header{Cmd: abi.MsgIO, Size: 4096, ID: i}, nil); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, "both workers are busy", func() bool { return w.Status().InFlight == 2 })
	// The export does not read now, but it lives, and does not blame the client.
	for pings := 0; pings < 8; {
		h, _, err := c.recv()
		if err != nil {
			t.Fatalf("cut although it is the export that does not read: %v", err)
		}
		if h.Cmd == abi.MsgPing {
			pings++
		}
	}
	want(t, "in flight", w.Status().InFlight, 2)
	close(release)
	seen := make(map[uint64]bool)
	for len(seen) < n {
		h, _, err := c.recv()
		if err != nil {
			t.Fatal(err)
		}
		if h.Cmd == abi.MsgIOResponse {
			seen[h.ID] = true
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestStoreErrorOfAWrite(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c, reader := w.client(helloOf(1, 1, abi.PermRW)), w.client(helloOf(2, 1, abi.PermRead))
	m.setGate(func(call string, _, _ uint64) error {
		if call == "write" {
			return unix.EIO
		}
		return nil
	})
	h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(4096, 1))
	want(t, "errno", h.Errno(), unix.EIO)
	if v := h.Verifier(); v == c.welcome.Verifier || v != w.Status().Verifier {
		t.Error("the answer does not carry the new verifier")
	}
	reader.gone()
	c.gone()
	again := w.client(helloOf(1, 2, abi.PermRW))
	want(t, "verifier", again.welcome.Verifier, h.Verifier())
	want(t, "tenure", again.welcome.Tenure, c.welcome.Tenure)
}

func TestStoreWithoutRoom(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	m.setGate(func(call string, _, _ uint64) error {
		if call == "write" {
			return unix.ENOSPC
		}
		return nil
	})
	for range 3 {
		h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(4096, 1))
		want(t, "errno", h.Errno(), unix.ENOSPC)
		want(t, "verifier", h.Verifier(), c.welcome.Verifier)
	}
	m.setGate(nil)
	h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(4096, 1))
	want(t, "with room", h.Errno(), 0)
}

func TestStoreErrorOfAFlush(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	m.setGate(func(call string, _, _ uint64) error {
		if call == "flush" {
			return unix.EIO
		}
		return nil
	})
	if err := c.send(abi.Header{Cmd: abi.MsgFlush, ID: 5}, nil); err != nil {
		t.Fatal(err)
	}
	h, _, err := c.recv()
	if err != nil || h.Errno() != unix.EIO || h.Verifier() == c.welcome.Verifier || h.Verifier() != w.Status().Verifier {
		t.Fatalf("a failed FLUSH was answered %+v, %v", h, err)
	}
	c.gone()
	c = w.client(helloOf(1, 2, abi.PermRW))
	h, _ = c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Flags: abi.FlagFUA}, pattern(512, 1))
	want(t, "FUA", h.Errno(), unix.EIO)
	c.gone()
}

func TestStoreErrorOfARead(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	m.setGate(func(call string, off, _ uint64) error {
		if call == "read" && off == 0 {
			return unix.EIO
		}
		return nil
	})
	_, errno := c.read(0, 4096)
	want(t, "READ", errno, unix.EIO)
	_, errno = c.read(8, 4096)
	want(t, "READ elsewhere", errno, 0)
	want(t, "verifier", w.Status().Verifier, c.welcome.Verifier)
}

func TestShortenedFileGivesNoStaleBytes(t *testing.T) {
	conf := Config{Device: filepath.Join(t.TempDir(), "image"), StateDir: t.TempDir()}
	if err := os.WriteFile(conf.Device, pattern(1<<20, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, conf, nil)
	c := w.client(helloOf(1, 1, abi.PermRW))
	if _, errno := c.read(0, 1<<20); errno != 0 {
		t.Fatal(errno)
	}
	if err := os.Truncate(conf.Device, 100<<10); err != nil {
		t.Fatal(err)
	}
	for _, sector := range []uint64{0, 512} {
		data, errno := c.read(sector, 256<<10)
		want(t, "READ past the file's end", errno, unix.EIO)
		want(t, "bytes of it", len(data), 0)
	}
	_, errno := c.read(0, 64<<10)
	want(t, "READ before it", errno, 0)
}

// recorded notes the calls of a store.
func recorded(m *memStore) (calls func() []string) {
	var mu sync.Mutex
	var all []string
	m.setGate(func(call string, _, _ uint64) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, call)
		return nil
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestStableExports(t *testing.T) {
	for _, flag := range []abi.NodeFlag{abi.NodeFlagShared, abi.NodeFlagWritethrough} {
		m, disk := memDisk(1 << 20)
		w := newWorld(t, Config{Flags: flag}, disk)
		calls := recorded(m)
		c := w.client(helloOf(1, 1, abi.PermRW))
		if c.welcome.Features&abi.FeatureStable == 0 {
			t.Error("STABLE is not announced")
		}
		h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1))
		if h.Errno() != 0 || h.Reserved&abi.Stable == 0 {
			t.Errorf("%v: answer %+v is not STABLE", flag, h)
		}
		if got := calls(); !slices.Equal(got, []string{"write", "flush"}) {
			t.Errorf("%v: the store was called for %v", flag, got)
		}
	}
}

func TestBarrierReachesTheStore(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	calls := recorded(m)
	c := w.client(helloOf(1, 1, abi.PermRW))
	h, _ := c.do(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Flags: abi.FlagFUA | abi.FlagPreflush}, pattern(512, 1))
	if h.Errno() != 0 || h.Reserved&abi.Stable == 0 {
		t.Errorf("answer %+v", h)
	}
	if got := calls(); !slices.Equal(got, []string{"flush", "write", "flush"}) {
		t.Errorf("the store was called for %v", got)
	}
}

func TestLongErasureStopsAtTheFence(t *testing.T) {
	m, disk := memDisk(256 << 20)
	w := newWorld(t, Config{Keepalive: 20 * time.Millisecond}, disk)
	first, release := make(chan struct{}), make(chan struct{})
	var chunks atomic.Int32
	m.setGate(func(call string, _, n uint64) error {
		if call == "discard" {
			if n > EraseChunk {
				return errors.New("too much at once")
			}
			if chunks.Add(1) == 1 {
				close(first)
				<-release
			}
		}
		return nil
	})
	c := w.client(helloOf(1, 1, abi.PermRW))
	if err := c.send(abi.Header{Cmd: abi.MsgDiscard, Size: 256 << 20}, nil); err != nil {
		t.Fatal(err)
	}
	<-first
	c.st.Close()
	eventually(t, "the session is over", func() bool { return w.holder() == nil })
	close(release)
	w.client(helloOf(1, 2, abi.PermRW))
	want(t, "chunks done", chunks.Load(), 1)
}
