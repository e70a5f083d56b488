//go:build vm

// VM: uml
// MODULES: nbd loop
// PROGRAMS: modprobe mkfs.ext4 mkswap sleep

package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

const kernelSize = 16 << 20

// openKernel is the driver of this machine until the test ends.
func openKernel(t testing.TB) *Driver {
	t.Helper()
	d, err := OpenDriver(zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// newDisk is a device of kernelSize and its configuration.
func newDisk(t testing.TB) (*memory, DiskConfig) {
	t.Helper()
	m := newMemorySized(t, kernelSize, 256<<10, 128, 8<<20)
	m.logged = true
	return m, DiskConfig{
		Device: m.device("vol0"), Backend: "dst:vol0:" + t.Name(), Partscan: true,
		Link: filepath.Join(t.TempDir(), "vol0"),
		Lost: func(err error) { t.Errorf("lost: %v", err) },
		Log:  zerolog.New(zerolog.NewTestWriter(t)),
	}
}

// attach attaches c and sees to it that it is detached at the end.
func attach(t testing.TB, d *Driver, c DiskConfig) *Disk {
	t.Helper()
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Detach(true); err != nil {
			t.Error(err)
		}
		k.Close()
		quiet(t, k)
	})
	return k
}

// quiet waits until the kernel has let go of k: its node has no size.
func quiet(t testing.TB, k *Disk) {
	t.Helper()
	until(t, "the kernel lets go of "+k.path, func() bool { return k.d.host.backend(k.index) != k.c.Backend })
}

// detach detaches k, which nobody uses.
func detach(t testing.TB, k *Disk) {
	t.Helper()
	if err := k.Detach(false); err != nil {
		t.Fatal(err)
	}
	k.Close()
	quiet(t, k)
	if got := k.Size(); got != 0 {
		t.Errorf("%s has %d bytes after its detach", k.path, got)
	}
	if _, err := os.Lstat(k.c.Link); !os.IsNotExist(err) {
		t.Errorf("the link is still there: %v", err)
	}
}

// disk is a device opened around the page cache, with memory to do so.
type disk struct {
	*os.File
	t   testing.TB
	buf []byte
}

func direct(t testing.TB, path string, flags int) *disk {
	t.Helper()
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf, err := mempool.Pages(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); mempool.FreePages(buf) })
	return &disk{f, t, buf}
}

// fill writes n bytes of value at offset.
func (f *disk) fill(value byte, n int, offset int64) error {
	b := f.buf[:n]
	for i := range b {
		b[i] = value
	}
	_, err := f.WriteAt(b, offset)
	return err
}

func (f *disk) must(what string, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
}

// ask is an ioctl whose argument is a range.
func (f *disk) ask(request uint, offset, length uint64) error {
	var arg [16]byte
	binary.NativeEndian.PutUint64(arg[:], offset)
	binary.NativeEndian.PutUint64(arg[8:], length)
	return ioctl(f.File, request, &arg[0])
}

func (m *memory) at(offset int64, n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.mem[offset : offset+int64(n)])
}

func queueOf(k *Disk, name string) string { return read(k.d.host.block(k.index, "queue", name)) }

// zeroes tells whether this kernel has WRITE_ZEROES for NBD.
func zeroes() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		panic(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		panic(err)
	}
	return major > 6 || major == 6 && minor >= 12
}

// kernelSaid is what the kernel wrote to its log since the last call with the
// same file.
func kernelSaid(t testing.TB, f *os.File) (lines []string) {
	t.Helper()
	b := make([]byte, 8192)
	for {
		n, err := unix.Read(int(f.Fd()), b)
		if err == unix.EAGAIN {
			return lines
		}
		if err == unix.EPIPE {
			continue // overwritten
		}
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(b[:n]), ";")
		line, _, _ := strings.Cut(text, "\n")
		lines = append(lines, line)
	}
}

// said tells whether one of these lines has these words.
func said(t testing.TB, f *os.File, words string) bool {
	t.Helper()
	return slices.ContainsFunc(kernelSaid(t, f), func(line string) bool { return strings.Contains(line, words) })
}

func kernelLog(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "/dev/kmsg")
	t.Cleanup(func() { f.Close() })
	if _, err := unix.Seek(fd, 0, 2); err != nil {
		t.Fatal(err)
	}
	return f
}

// orderly are the lines that the driver writes when a device is attached and
// detached in good order.
var orderly = regexp.MustCompile(`^(block nbd\d+: (NBD_DISCONNECT|Disconnected due to user request\.|shutting down sockets)|nbd\d+: detected capacity change from 0 to \d+|set_capacity_and_notify: \d+ callbacks suppressed)$`)

func TestKernelDevice(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	k := attach(t, d, c)
	if path, ok := Find(c.Backend); !ok || path != k.Path() {
		t.Errorf("found %q, %v, want %q", path, ok, k.Path())
	}
	if got := follow(c.Link); got != k.Path() {
		t.Errorf("the link leads to %q, want %q", got, k.Path())
	}
	for name, want := range map[string]string{"io_timeout": "5000", "max_sectors_kb": "256", "write_cache": "write back", "fua": "1",
		"logical_block_size": "512", "rotational": "0"} {
		if got := queueOf(k, name); got != want {
			t.Errorf("queue/%s is %q, want %q", name, got, want)
		}
	}
	if got := k.Size(); got != kernelSize {
		t.Errorf("%d bytes, want %d", got, kernelSize)
	}
	f := direct(t, k.Path(), os.O_RDWR)
	f.must("write", f.fill(0x5a, 1<<20, 1<<20))
	if got := m.at(1<<20, 1<<20); !bytes.Equal(got, bytes.Repeat([]byte{0x5a}, 1<<20)) {
		t.Error("the device has something else than was written")
	}
	clear(f.buf)
	_, err := f.ReadAt(f.buf, 1<<20)
	f.must("read", err)
	if !bytes.Equal(f.buf, m.at(1<<20, 1<<20)) {
		t.Error("something else was read than the device has")
	}
	for _, a := range m.took() {
		if a.length > 256<<10 {
			t.Errorf("a request of %d bytes", a.length)
		}
	}
	f.Close()
	detach(t, k)
	if _, ok := Find(c.Backend); ok {
		t.Error("found after its detach")
	}
}

// TestKernelRequests: what programs do arrives as the right operation.
func TestKernelRequests(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	k := attach(t, d, c)
	f := direct(t, k.Path(), os.O_RDWR)
	expect := func(what string, want ...asked) {
		t.Helper()
		got := m.took()
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: the device was asked %v, not %v", what, got, w)
			}
		}
	}
	f.must("write", f.fill(1, 4096, 8192))
	expect("write", asked{trans.Write, 0, 8192, 4096})
	f.must("fsync", f.Sync())
	expect("fsync", asked{trans.Flush, 0, 0, 0})
	s := direct(t, k.Path(), os.O_RDWR|unix.O_DSYNC)
	f.must("O_DSYNC", s.fill(2, 4096, 4096))
	expect("O_DSYNC", asked{trans.Write, abi.FlagFUA, 4096, 4096})
	f.must("BLKDISCARD", f.ask(unix.BLKDISCARD, 1<<20, 8<<20))
	expect("BLKDISCARD", asked{trans.Discard, 0, 1 << 20, 8 << 20})
	f.must("write", f.fill(3, 1<<20, 0))
	m.took()
	f.must("BLKZEROOUT", f.ask(unix.BLKZEROOUT, 0, 1<<20))
	if zeroes() {
		expect("BLKZEROOUT", asked{trans.Zero, abi.FlagNoHole, 0, 1 << 20})
		f.must("fallocate", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
		expect("PUNCH_HOLE", asked{trans.Zero, 0, 0, 1 << 20})
	}
	if !bytes.Equal(m.at(0, 1<<20), make([]byte, 1<<20)) {
		t.Error("BLKZEROOUT left something")
	}
	m.fail[4096] = unix.EIO
	if err := f.fill(4, 4096, 4096); !errors.Is(err, unix.EIO) {
		t.Errorf("a write that failed: %v", err)
	}
}

func TestKernelReadOnly(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	m.info.ReadOnly = true
	m.info.BlockMin, m.info.BlockPref = 4096, 4096
	m.info.Size -= 512 // not a whole block
	k := attach(t, d, c)
	if got := read(d.host.block(k.index, "ro")); got != "1" {
		t.Errorf("ro is %q", got)
	}
	if got := k.Size(); got != kernelSize-4096 {
		t.Errorf("%d bytes, want whole blocks only", got)
	}
	if f, err := os.OpenFile(k.Path(), os.O_RDWR, 0); err == nil {
		if _, err := f.Write(make([]byte, 4096)); !errors.Is(err, unix.EPERM) {
			t.Errorf("a write to a read-only device: %v", err)
		}
		f.Close()
	} else if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	f := direct(t, k.Path(), os.O_RDONLY)
	_, err := f.ReadAt(f.buf, 0)
	f.must("read", err)
	f.Close()
	detach(t, k)
	for _, a := range m.took() {
		if a.op != trans.Read {
			t.Errorf("a read-only device was asked to %v", a.op)
		}
	}
}

// TestKernelStickyFlags: what an earlier user of the same nbdN offered may be
// asked of the next, who did not, and is done.
func TestKernelStickyFlags(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	first := attach(t, d, c)
	index := first.index
	detach(t, first)
	m, c := newDisk(t)
	m.info.Features = abi.FeatureFlush | abi.FeatureFUA | abi.FeatureRotational
	k := attach(t, d, c)
	if k.index != index {
		t.Fatalf("nbd%d, want nbd%d again", k.index, index)
	}
	if got := queueOf(k, "discard_max_bytes"); got != "0" {
		t.Errorf("discard_max_bytes is %s", got)
	}
	if zeroes() && queueOf(k, "rotational") != "1" {
		t.Error("not rotational")
	}
	f := direct(t, k.Path(), os.O_RDWR)
	f.must("write", f.fill(3, 1<<20, 0))
	f.must("BLKZEROOUT", f.ask(unix.BLKZEROOUT, 0, 1<<20))
	if !bytes.Equal(m.at(0, 1<<20), make([]byte, 1<<20)) {
		t.Error("BLKZEROOUT left something")
	}
}

func TestKernelBadInput(t *testing.T) {
	d := openKernel(t)
	for name, tt := range map[string]struct {
		change func(*memory, *DiskConfig)
		errno  unix.Errno
		words  string
	}{
		"small blocks":    {func(m *memory, _ *DiskConfig) { m.info.BlockMin = 256 }, unix.EINVAL, "attach socket"},
		"large blocks":    {func(m *memory, _ *DiskConfig) { m.info.BlockMin = 8192 }, unix.EINVAL, "attach socket"},
		"no size":         {func(m *memory, _ *DiskConfig) { m.info.Size = 511 }, unix.EINVAL, "less than one block"},
		"huge":            {func(m *memory, _ *DiskConfig) { m.info.Size = 1 << 63 }, unix.EINVAL, "more than a device"},
		"no backend":      {func(_ *memory, c *DiskConfig) { c.Backend = "" }, unix.EINVAL, "backend"},
		"two lines":       {func(_ *memory, c *DiskConfig) { c.Backend = "a\nb" }, unix.EINVAL, "backend"},
		"near link":       {func(_ *memory, c *DiskConfig) { c.Link = "vol0" }, unix.EINVAL, "absolute"},
		"link to nowhere": {func(_ *memory, c *DiskConfig) { c.Link = "/run/absent/dst/vol0" }, unix.ENOENT, "/run/absent/dst/vol0"},
		"a file in its place": {func(_ *memory, c *DiskConfig) {
			if err := os.WriteFile(c.Link, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, unix.EEXIST, "remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			m, c := newDisk(t)
			tt.change(m, &c)
			k, err := d.Attach(c)
			if err == nil {
				_ = k.Detach(true)
				k.Close()
			}
			if !errors.Is(err, tt.errno) || !strings.Contains(fmt.Sprint(err), tt.words) {
				t.Errorf("%v, want %v with %q", err, tt.errno, tt.words)
			}
			if c.Backend != "" {
				until(t, "nothing is left", func() bool { _, ok := Find(c.Backend); return !ok })
			}
		})
	}
}

// TestKernelResize: the size changes while requests are under way.
func TestKernelResize(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	m.info.Size = 4 << 20
	k := attach(t, d, c)
	f := direct(t, k.Path(), os.O_RDWR)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := f.fill(byte(n), 4096, n%64*4096); err != nil {
				done <- err
				return
			}
		}
	}()
	for _, size := range []uint64{kernelSize, 2 << 20, kernelSize / 2, kernelSize + 511} {
		m.mu.Lock()
		m.info.Size = min(size, kernelSize)
		m.mu.Unlock()
		if err := k.Resize(size); err != nil {
			t.Error(err)
		}
		if got := k.Size(); got != size&^511 {
			t.Errorf("%d bytes, want %d", got, size)
		}
	}
	close(stop)
	f.must("a write during a resize", <-done)
	if err := k.Resize(100); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a size of 100 bytes: %v", err)
	}
	for _, name := range []string{"io_timeout", "max_sectors_kb"} {
		if got := queueOf(k, name); got != map[string]string{"io_timeout": "5000", "max_sectors_kb": "256"}[name] {
			t.Errorf("queue/%s is %s after the resize", name, got)
		}
	}
}

// TestKernelPartitions: a partition table makes devices, or none.
func TestKernelPartitions(t *testing.T) {
	d := openKernel(t)
	for _, scan := range []bool{true, false} {
		t.Run(fmt.Sprint(scan), func(t *testing.T) {
			m, c := newDisk(t)
			copy(m.mem, mbr())
			c.Partscan = scan
			k := attach(t, d, c)
			want := 0
			if scan {
				want = 2
			}
			// Without, they are there for a moment, at the first open.
			settled := func() bool { return len(m.took()) == 0 && len(d.host.parts(k.index)) == want }
			until(t, "the partitions are read", func() bool { return len(m.took()) > 0 })
			until(t, "the partitions are as they should be", settled)
			m.mu.Lock()
			m.info.Size = kernelSize / 2
			m.mu.Unlock()
			if err := k.Resize(kernelSize / 2); err != nil {
				t.Fatal(err)
			}
			until(t, "the partitions are read again", func() bool { return len(m.took()) > 0 })
			until(t, "the partitions are as they should be after a resize", settled)
			if scan {
				until(t, "the node of the partition", func() bool { return number(k.Path()+"p2") != "" })
				f := direct(t, k.Path()+"p2", os.O_RDWR)
				f.must("write to a partition", f.fill(7, 4096, 0))
				if b := m.at(2<<20, 1); b[0] != 7 {
					t.Error("a write to the second partition went elsewhere")
				}
			}
		})
	}
}

// mbr is a partition table with two partitions of 1 MiB, at 1 and 2 MiB.
func mbr() []byte {
	b := make([]byte, 512)
	for i := range 2 {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], uint32(i+1)*2048)
		binary.LittleEndian.PutUint32(e[12:], 2048)
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

// within fails if f takes longer.
func within(t testing.TB, most time.Duration, what string, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took > most {
		t.Errorf("%s took %v, want at most %v", what, took, most)
	}
}

func ioctl(f *os.File, request uint, arg *byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

func swapCall(trap uintptr, path *byte) error {
	if _, _, errno := unix.Syscall(trap, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
