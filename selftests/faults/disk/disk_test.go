package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mounted is a disk of 1 MiB, and a descriptor of its file.
func mounted(t *testing.T) (*Disk, int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("must be root")
	}
	dir := t.TempDir()
	d, err := New(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(dir, "disk"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, fd
}

func put(t *testing.T, fd int, fill byte, off, n int) {
	t.Helper()
	if got, err := unix.Pwrite(fd, bytes.Repeat([]byte{fill}, n), int64(off)); err != nil || got != n {
		t.Fatalf("write of %d bytes at %d: %d, %v", n, off, got, err)
	}
}

// holds checks that the n bytes at off are all fill.
func holds(t *testing.T, fd int, fill byte, off, n int) {
	t.Helper()
	b := make([]byte, n)
	if got, err := unix.Pread(fd, b, int64(off)); err != nil || got != n {
		t.Fatalf("read of %d bytes at %d: %d, %v", n, off, got, err)
	}
	if i := bytes.IndexFunc(b, func(r rune) bool { return byte(r) != fill }); fill < 0x80 && i >= 0 {
		t.Fatalf("byte %d is %d, want %d", off+i, b[i], fill)
	}
}

func TestLoss(t *testing.T) {
	d, fd := mounted(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	put(t, fd, 1, 0, 1<<20)
	if err := unix.Fdatasync(fd); err != nil {
		t.Fatal(err)
	}
	put(t, fd, 2, 4096, 8192)
	if _, err := unix.Pwritev2(fd, [][]byte{bytes.Repeat([]byte{3}, 4096)}, 65536, unix.RWF_DSYNC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<19, 4096); err != nil {
		t.Fatal(err)
	}
	holds(t, fd, 2, 4096, 8192)
	holds(t, fd, 0, 1<<19, 4096)
	if n := d.Stats().Dirty; n != (8192+4096)/Sector {
		t.Errorf("%d dirty sectors", n)
	}
	if n := d.Lose(0.5, rnd); n == 0 || n == 24 {
		t.Errorf("%d of 24 sectors lost with a probability of one half", n)
	}
	put(t, fd, 4, 0, 512)
	if n := d.Lose(1, rnd); n != 1 {
		t.Errorf("%d sectors lost", n)
	}
	holds(t, fd, 1, 0, 4096)
	holds(t, fd, 3, 65536, 4096)
	holds(t, fd, 1, 12288, 1024)
}

func TestFaults(t *testing.T) {
	d, fd := mounted(t)
	one := []byte{7}
	hit := d.Order(Write, &Fault{After: 1, Count: 1, Errno: unix.EIO})
	put(t, fd, 1, 0, 512)
	if _, err := unix.Pwrite(fd, one, 0); err != unix.EIO {
		t.Errorf("second write: %v", err)
	}
	<-hit
	put(t, fd, 2, 0, 512)
	d.Order(Read, &Fault{Errno: unix.EIO})
	for range 3 {
		if _, err := unix.Pread(fd, one, 0); err != unix.EIO {
			t.Errorf("read: %v", err)
		}
	}
	d.Order(Read, nil)
	holds(t, fd, 2, 0, 512)
	d.Order(Sync, &Fault{Count: 1, Errno: unix.EIO})
	if err := unix.Fdatasync(fd); err != unix.EIO {
		t.Errorf("fdatasync: %v", err)
	}
	holds(t, fd, 2, 0, 512)
	if err := unix.Fdatasync(fd); err != nil {
		t.Errorf("a second fdatasync: %v", err)
	}
	if n := d.Evict(); n != 1 {
		t.Errorf("%d sectors were given up, want 1", n)
	}
	holds(t, fd, 0, 0, 512)
	d.Order(Sync, &Fault{Count: 1, Errno: unix.EIO})
	if _, err := unix.Pwritev2(fd, [][]byte{one}, 0, unix.RWF_DSYNC); err != unix.EIO {
		t.Errorf("durable write: %v", err)
	}
}

func TestStall(t *testing.T) {
	d, fd := mounted(t)
	hit := d.Order(Write, &Fault{Count: 1, Stall: time.Hour})
	done := make(chan error)
	go func() {
		_, err := unix.Pwrite(fd, bytes.Repeat([]byte{9}, 512), 0)
		done <- err
	}()
	<-hit
	put(t, fd, 8, 0, 1024)
	holds(t, fd, 8, 0, 1024)
	if d.Stats().Held != 1 {
		t.Error("nothing is held")
	}
	d.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	holds(t, fd, 9, 0, 512)
	holds(t, fd, 8, 512, 512)
}

func TestRoom(t *testing.T) {
	d, fd := mounted(t)
	d.Room(1024)
	put(t, fd, 1, 0, 1024)
	if _, err := unix.Pwrite(fd, make([]byte, 512), 4096); err != unix.ENOSPC {
		t.Errorf("full: %v", err)
	}
	put(t, fd, 2, 0, 1024)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 512); err != nil {
		t.Fatal(err)
	}
	put(t, fd, 3, 4096, 512)
	d.Room(-1)
	put(t, fd, 3, 8192, 65536)
}

func TestAttributes(t *testing.T) {
	_, fd := mounted(t)
	b := make([]byte, 32)
	if _, err := unix.Fgetxattr(fd, "trusted.x", b); err != unix.ENODATA {
		t.Errorf("none: %v", err)
	}
	if err := unix.Fsetxattr(fd, "trusted.x", []byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Fgetxattr(fd, "trusted.x", b); err != nil || string(b[:n]) != "abc" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if n, err := unix.Fgetxattr(fd, "trusted.x", nil); err != nil || n != 3 {
		t.Errorf("length %d, %v", n, err)
	}
	if _, err := unix.Fgetxattr(fd, "trusted.x", b[:2]); !errors.Is(err, unix.ERANGE) {
		t.Errorf("too short: %v", err)
	}
}

func TestDo(t *testing.T) {
	d := newDisk(1 << 20)
	tests := []struct {
		line, says string
		bad        bool
	}{
		{line: "stats", says: "ok read 0 write 0 sync 0 erase 0 hit 0 held 0 dirty 0"},
		{line: "fail write with EIO after 3 times 1", says: "ok"},
		{line: "stall sync for 20ms after 0 times 0", says: "ok"},
		{line: "heal write", says: "ok"},
		{line: "release", says: "ok"},
		{line: "room 4096", says: "ok"},
		{line: "room -1", says: "ok"},
		{line: "lose 50", says: "ok 0"},
		{line: "evict", says: "ok 0"},
		{line: "fail write with EIEIO after 3 times 1", bad: true},
		{line: "fail write with EIO times 3 after 1", bad: true},
		{line: "fail flush with EIO after 3 times 1", bad: true},
		{line: "fail write with EIO after x times 1", bad: true},
		{line: "fail write with EIO after 1 times x", bad: true},
		{line: "stall write for ever after 1 times 1", bad: true},
		{line: "heal", bad: true},
		{line: "heal all", bad: true},
		{line: "room", bad: true},
		{line: "room all", bad: true},
		{line: "lose all", bad: true},
		{line: "", bad: true},
	}
	for _, tt := range tests {
		says, err := d.Do(tt.line)
		if (err != nil) != tt.bad || !tt.bad && says != tt.says {
			t.Errorf("%q: %q, %v", tt.line, says, err)
		}
	}
	var out strings.Builder
	if err := d.Serve(strings.NewReader("stats\nnonsense\n"), &out); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); !strings.HasPrefix(lines[0], "ok read") || !strings.HasPrefix(lines[1], "error: ") {
		t.Errorf("said %q", out.String())
	}
}
