package export

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
)

// backing makes the places where a store can be, by name.
func backing(t *testing.T, size int64) map[string]Config {
	t.Helper()
	state := t.TempDir()
	image := func(dir string) string {
		path := filepath.Join(dir, "image")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return path
	}
	all := map[string]Config{
		"file":        {Device: image(t.TempDir())},
		"file direct": {Device: image(t.TempDir()), Flags: abi.NodeFlagDirect},
		"tmpfs":       {Device: image(tmpfs(t))},
		"device":      {Device: loop(t, image(t.TempDir()))},
		"device buffered": {Device: loop(t, image(t.TempDir())),
			Flags: abi.NodeFlagBuffered},
	}
	for name, c := range all {
		c.Name, c.StateDir = "vol0", state
		all[name] = c
	}
	return all
}

// needRoot skips what only root can set up; whoever runs all tests runs them as
// root and counts skips as failures.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root for mounts and loop devices")
	}
}

func tmpfs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("dst-test", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// loop attaches a loop device to the file.
func loop(t testing.TB, path string) string {
	t.Helper()
	needRoot(t)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("SKIP: no loop devices here: %v", err)
	}
	defer control.Close()
	back, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(back.Fd()))
		if err == unix.EBUSY { // somebody was faster
			dev.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
				t.Error(err)
			}
			dev.Close()
		})
		return name
	}
	t.Fatal("no free loop device")
	return ""
}

func openDisk(t testing.TB, c Config) *Disk {
	t.Helper()
	d, err := Open(&c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pages is page-aligned memory with a pattern.
func pages(t testing.TB, n int, seed byte) []byte {
	t.Helper()
	b, err := mempool.Pages(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mempool.FreePages(b) })
	copy(b, pattern(n, seed))
	return b[:n]
}

func TestStores(t *testing.T) {
	const size = 8 << 20
	for name, c := range backing(t, size) {
		t.Run(name, func(t *testing.T) {
			d := openDisk(t, c)
			defer d.Store.Close()
			g := d.Geometry
			want(t, "size", g.Size, size)
			want(t, "direct", g.Direct, c.Flags&abi.NodeFlagDirect != 0 || name == "device")
			want(t, "instant", g.Instant, name == "tmpfs")
			if g.BlockMin != 512 && g.BlockMin != 4096 || g.BlockPref < g.BlockMin {
				t.Errorf("geometry %+v", g)
			}
			for _, durable := range []bool{false, true} {
				in := pages(t, 1<<20, 3)
				out := pages(t, 1<<20, 0)
				if err := d.Store.WriteAt(in, 4096, durable); err != nil {
					t.Fatal(err)
				}
				if err := d.Store.ReadAt(out, 4096, true); err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "read back", out, in)
			}
			if err := d.Store.Flush(); err != nil {
				t.Fatal(err)
			}
			eraseAll(t, d)
		})
	}
}

// eraseAll erases in each way and looks at what is left.
func eraseAll(t *testing.T, d *Disk) {
	t.Helper()
	whole, part := pages(t, 4<<20, 5), pages(t, 4<<20, 0)
	for how := EraseDiscard; how <= EraseAllocate; how++ {
		if err := d.Store.WriteAt(whole, 0, false); err != nil {
			t.Fatal(err)
		}
		if err := d.Store.Erase(1<<20, 2<<20, how); err != nil {
			t.Fatalf("erase %d: %v", how, err)
		}
		if err := d.Store.ReadAt(part, 0, true); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "before", part[:1<<20], whole[:1<<20])
		wantBytes(t, "behind", part[3<<20:], whole[3<<20:])
		if how != EraseDiscard {
			wantBytes(t, "zeroes", part[1<<20:3<<20], make([]byte, 2<<20))
		}
	}
}

// blocks is how much of the file is allocated, in bytes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestEraseAndTheSpaceOnDisk(t *testing.T) {
	c := Config{Device: filepath.Join(t.TempDir(), "image"), StateDir: t.TempDir()}
	if err := os.WriteFile(c.Device, pattern(8<<20, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, c)
	defer d.Store.Close()
	for _, step := range []struct {
		how  Erasure
		left int64 // of 8 MiB, when 4 MiB were erased
	}{{EraseAllocate, 8 << 20}, {EraseZero, 4 << 20}, {EraseDiscard, 4 << 20}} {
		if err := errors.Join(d.Store.Erase(0, 4<<20, step.how), d.Store.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := blocks(t, c.Device); got < step.left-64<<10 || got > step.left+64<<10 {
			t.Errorf("after erase %d: %d bytes allocated, want about %d", step.how, got, step.left)
		}
	}
}

func TestWrittenZeroes(t *testing.T) {
	c := backing(t, 8<<20)["file direct"]
	d := openDisk(t, c)
	defer d.Store.Close()
	f := d.Store.(*file)
	full := pages(t, 8<<20, 1)
	if err := f.WriteAt(full, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := f.writeZeroes(1<<20, 3<<20+4096); err != nil {
		t.Fatal(err)
	}
	got := pages(t, 8<<20, 2)
	if err := f.ReadAt(got, 0, true); err != nil {
		t.Fatal(err)
	}
	clear(full[1<<20 : 4<<20+4096])
	wantBytes(t, "zeroes", got, full)
	if uintptr(unsafe.Pointer(&zeroes()[0]))%4096 != 0 {
		t.Error("zeroes are not page aligned")
	}
}

func TestTruncatedStoreIsAnError(t *testing.T) {
	for name, c := range backing(t, 1<<20) {
		if strings.HasPrefix(name, "device") {
			continue
		}
		d := openDisk(t, c)
		defer d.Store.Close()
		if err := os.Truncate(c.Device, 64<<10); err != nil {
			t.Fatal(err)
		}
		b := pages(t, 128<<10, 0)
		for _, off := range []uint64{0, 64 << 10, 512 << 10} {
			if err := d.Store.ReadAt(b, off, true); !errors.Is(err, unix.EIO) {
				t.Errorf("%s: READ at %d beyond the end: %v, want EIO", name, off, err)
			}
			if err := d.Store.ReadAt(b, off, false); err == nil {
				t.Errorf("%s: inline READ at %d beyond the end brought something", name, off)
			}
		}
	}
}

func TestCachedReadsDoNotWait(t *testing.T) {
	c := backing(t, 1<<20)["file"]
	d := openDisk(t, c)
	defer d.Store.Close()
	if !d.Geometry.Cached {
		t.Fatal("the file system of the tests does not know RWF_NOWAIT")
	}
	in, out := pages(t, 64<<10, 9), pages(t, 64<<10, 0)
	if err := errors.Join(d.Store.WriteAt(in, 0, false), d.Store.ReadAt(out, 0, false)); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "cached", out, in)
	// The kernel drops pages when it can, not when it is told.
	f := d.Store.(*file)
	for range 1000 {
		if err := errors.Join(f.Flush(), unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED)); err != nil {
			t.Fatal(err)
		}
		err := d.Store.ReadAt(out, 0, false)
		if err == errWouldWait {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "still cached", out, in)
	}
	t.Error("a read never had to wait")
}

func TestStoreCallsDoNotAllocate(t *testing.T) {
	for name, c := range backing(t, 1<<20) {
		d := openDisk(t, c)
		defer d.Store.Close()
		b := pages(t, 4096, 1)
		for call, f := range map[string]func() error{
			"write":   func() error { return d.Store.WriteAt(b, 0, false) },
			"durable": func() error { return d.Store.WriteAt(b, 0, true) },
			"read":    func() error { return d.Store.ReadAt(b, 0, true) },
			"cached": func() error {
				if err := d.Store.ReadAt(b, 0, false); err != errWouldWait {
					return err
				}
				return nil
			},
			"zero":  func() error { return d.Store.Erase(0, 4096, EraseZero) },
			"flush": func() error { return d.Store.Flush() },
		} {
			if n := testing.AllocsPerRun(20, func() {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}); n > 0 {
				t.Errorf("%s: %s allocates %v times", name, call, n)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int64{"image": 1<<20 + 100, "small": 511, "locked": 1 << 20} {
		if err := errors.Join(os.WriteFile(at(name), nil, 0o600), os.Truncate(at(name), size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(at("image"), at("link")), os.Symlink(at("nothing"), at("dangling")),
		unix.Mkfifo(at("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	held := openDisk(t, Config{Device: at("locked"), StateDir: state})
	defer held.Store.Close()
	tests := []struct {
		device string
		size   uint64
		flags  abi.NodeFlag
		want   unix.Errno
		words  string
	}{
		{at("nothing"), 0, 0, unix.ENOENT, "create it first"},
		{"image", 0, 0, unix.EINVAL, "absolute path"},
		{dir, 0, 0, unix.ENOTBLK, "neither a regular file nor a block device"},
		{at("fifo"), 0, 0, unix.ENOTBLK, "neither"},
		{"/dev/null", 0, 0, unix.ENOTBLK, "neither"},
		{at("link"), 0, 0, unix.ELOOP, "give the file's own path"},
		{at("dangling"), 0, 0, unix.ENOENT, "leads nowhere"},
		{at("locked"), 0, 0, unix.EBUSY, "stop that first"},
		{at("locked"), 0, abi.NodeFlagReadOnly, unix.EBUSY, "stop that first"},
		{at("small"), 0, 0, unix.EINVAL, "less than one block"},
		{at("image"), 100, 0, unix.EINVAL, "less than one block"},
		{at("image"), 1 << 21, 0, unix.ERANGE, "give a smaller one"},
	}
	for _, tt := range tests {
		d, err := Open(&Config{Device: tt.device, Size: tt.size, Flags: tt.flags, StateDir: state})
		if err == nil {
			d.Store.Close()
		}
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s size %d: %v, want %v with %q", tt.device, tt.size, err, tt.want, tt.words)
		}
	}
	d := openDisk(t, Config{Device: at("image"), StateDir: state})
	defer d.Store.Close()
	want(t, "size rounded down", d.Geometry.Size, 1<<20)
	want(t, "warnings", len(d.Warnings), 1)
}

func TestDeviceIsExclusive(t *testing.T) {
	c := backing(t, 1<<20)["device"]
	d := openDisk(t, c)
	if _, err := Open(&c); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second export of a device: %v", err)
	}
	if err := d.Store.Close(); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(c.Device, link); err != nil {
		t.Fatal(err)
	}
	c.Device, c.Size = link, 512<<10
	d = openDisk(t, c)
	want(t, "size", d.Geometry.Size, 512<<10)
	d.Store.Close()
}

func TestReadOnlyStores(t *testing.T) {
	for name, c := range backing(t, 1<<20) {
		c.Flags |= abi.NodeFlagReadOnly
		d := openDisk(t, c)
		b := pages(t, 4096, 1)
		if err := d.Store.WriteAt(b, 0, false); err == nil {
			t.Errorf("%s: written although opened read-only", name)
		}
		if err := d.Store.ReadAt(b, 0, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(name, "device") { // files have readers side by side
			openDisk(t, c).Store.Close()
		}
		d.Store.Close()
	}
}

func TestIdentityOutlivesTheDaemon(t *testing.T) {
	for name, c := range backing(t, 1<<20) {
		d := openDisk(t, c)
		id := d.Identity
		if id.ID == (abi.ID{}) || id.Tenure == (abi.ID{}) || id.Last != (abi.ID{}) {
			t.Fatalf("%s: %+v", name, id)
		}
		d.Store.Close()
		d = openDisk(t, c)
		if d.Identity.Tenure != id.Tenure { // nobody had the place, and clients who share it never will
			t.Errorf("%s: tenure %v, and %v after reopening", name, id.Tenure, d.Identity.Tenure)
		}
		id = d.Identity
		tenure, last := randomID(), randomID()
		if err := id.Save(tenure, last); err != nil {
			t.Fatal(err)
		}
		d.Store.Close()
		d = openDisk(t, c)
		if d.Identity.ID != id.ID || d.Identity.Tenure != tenure || d.Identity.Last != last {
			t.Errorf("%s: %+v after reopening", name, d.Identity)
		}
		d.Store.Close()
	}
}

func TestKeeper(t *testing.T) {
	k := &keeper{path: filepath.Join(t.TempDir(), "store")}
	id := Identity{ID: randomID(), Tenure: randomID(), Last: randomID()}
	if err := k.save(id.ID, id.Tenure, id.Last); err != nil {
		t.Fatal(err)
	}
	var got Identity
	if err := k.load(&got); err != nil || got.ID != id.ID || got.Tenure != id.Tenure || got.Last != id.Last {
		t.Fatalf("%+v, %v", got, err)
	}
	st, err := os.Stat(k.path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	good, _ := os.ReadFile(k.path)
	for _, bad := range [][]byte{nil, good[:40], bytes.ToUpper(good)[:len(good)-5], bytes.ReplaceAll(good, []byte("\n"), []byte("z\n")),
		append(bytes.Repeat([]byte("00"), 64), good...)} {
		if err := os.WriteFile(k.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.load(&got); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	k.path = filepath.Join(t.TempDir(), "no such directory", "store")
	if err := k.save(id.ID, id.Tenure, id.Last); err == nil {
		t.Error("saved nowhere")
	}
}

func TestIdentityWithoutAttributes(t *testing.T) {
	// ramfs has no extended attributes of the trusted kind.
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("dst-test", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	c := Config{Device: filepath.Join(dir, "image")}
	if err := os.WriteFile(c.Device, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Open(&c); !errors.Is(err, unix.EINVAL) {
		if err == nil {
			d.Store.Close()
		}
		t.Errorf("without a state directory: %v", err)
	}
	c.StateDir = t.TempDir()
	d := openDisk(t, c)
	id := d.Identity.ID
	d.Store.Close()
	d = openDisk(t, c)
	want(t, "id", d.Identity.ID, id)
	d.Store.Close()
}

func TestBlockPref(t *testing.T) {
	for _, tt := range []struct {
		n           uint64
		least, want uint32
	}{{4096, 512, 4096}, {0, 512, 4096}, {100, 512, 4096}, {1 << 20, 512, 64 << 10}, {512, 4096, 4096}, {3000, 8192, 8192}} {
		want(t, "blockPref", blockPref(tt.n, tt.least), tt.want)
	}
}
