//go:build vm

package nbd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// TestKernelUsers: whoever has the device is named, and keeps it.
func TestKernelUsers(t *testing.T) {
	d := openKernel(t)
	for name, tt := range map[string]struct {
		take func(t *testing.T, k *Disk) (release func())
		want string
	}{
		"mount": {func(t *testing.T, k *Disk) func() {
			dir := filepath.Join(t.TempDir(), "a place")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			run(t, "mkfs.ext4", "-q", k.c.Link)
			if err := unix.Mount(k.c.Link, dir, "ext4", 0, ""); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}
		}, "mounted on .*/a place"},
		"swap": {func(t *testing.T, k *Disk) func() {
			run(t, "mkswap", k.Path())
			swap(t, unix.SYS_SWAPON, k.Path())
			return func() { swap(t, unix.SYS_SWAPOFF, k.Path()) }
		}, "swap"},
		"process": {func(t *testing.T, k *Disk) func() {
			f, err := os.Open(k.Path())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd := exec.Command("sleep", "1000")
			cmd.Stdin = f
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { _, _ = cmd.Process.Kill(), cmd.Wait() }
		}, "open in process [0-9]+ (sleep)"},
		"loop": {func(t *testing.T, k *Disk) func() {
			f, err := os.OpenFile("/dev/loop0", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.OpenFile(k.Path(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_FD, int(b.Fd())); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
					t.Error(err)
				}
				f.Close()
			}
		}, "held by loop0"},
		"claim": {func(t *testing.T, k *Disk) func() {
			fd, err := unix.Open(k.Path(), unix.O_RDONLY|unix.O_EXCL, 0)
			if err != nil {
				t.Fatal(err)
			}
			return func() { unix.Close(fd) }
		}, "something in the kernel"}, // as far as this process can see
	} {
		t.Run(name, func(t *testing.T) {
			_, c := newDisk(t)
			k := attach(t, d, c)
			release := tt.take(t, k)
			err := k.Detach(false)
			parts := strings.SplitN(tt.want, ".*", 2)
			parts = append(strings.SplitN(parts[0], "[0-9]+", 2), parts[1:]...)
			if text := fmt.Sprint(err); !errors.Is(err, unix.EBUSY) ||
				slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) }) {
				t.Errorf("%v, want EBUSY with %s", err, tt.want)
			}
			f := direct(t, k.Path(), os.O_RDONLY)
			_, err = f.ReadAt(f.buf[:4096], 0)
			f.must("read after a detach that was refused", err)
			f.Close()
			release()
			detach(t, k)
		})
	}
}

func swap(t testing.TB, trap uintptr, path string) {
	t.Helper()
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := swapCall(trap, p); err != nil {
		t.Fatalf("swap %s: %v", path, err)
	}
}

// TestKernelMountedPartition: the whole device is in use by a mounted
// partition, and a detach by force ends the mount's I/O.
func TestKernelMountedPartition(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	copy(m.mem, mbr())
	k := attach(t, d, c)
	part := k.Path() + "p1"
	until(t, "the node of the partition", func() bool { return number(part) != "" })
	dir := t.TempDir()
	run(t, "mkfs.ext4", "-q", part)
	if err := unix.Mount(part, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := k.Detach(false); !errors.Is(err, unix.EBUSY) || !strings.Contains(fmt.Sprint(err), "mounted on "+dir) {
		t.Errorf("%v", err)
	}
	within(t, 4*time.Second, "Detach by force", func() {
		if err := k.Detach(true); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Create(filepath.Join(dir, "file"))
	if err == nil {
		_, err = io.WriteString(f, "words")
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		t.Error("a file was written to a device that is gone")
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
	k.Close()
	quiet(t, k)
}

// TestKernelForeign: devices of others are not touched, nor links to them.
func TestKernelForeign(t *testing.T) {
	d := openKernel(t)
	_, theirs := newDisk(t)
	theirs.Backend, theirs.Link = "somebody:else", ""
	other := attach(t, d, theirs)
	_, c := newDisk(t)
	if err := os.Symlink(other.Path(), c.Link); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Attach(c); !errors.Is(err, unix.EEXIST) || !strings.Contains(fmt.Sprint(err), "somebody:else") {
		t.Errorf("a link to somebody's device was taken: %v", err)
	}
	if err := os.Remove(c.Link); err != nil {
		t.Fatal(err)
	}
	// A link to a device that is idle is stale.
	if err := os.Symlink("/dev/nbd15", c.Link); err != nil {
		t.Fatal(err)
	}
	k := attach(t, d, c)
	if k.Path() == other.Path() || follow(c.Link) != k.Path() {
		t.Errorf("%s, the link leads to %s", k.Path(), follow(c.Link))
	}
	if err := os.Remove(c.Link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other.Path(), c.Link); err != nil {
		t.Fatal(err)
	}
	if err := k.Detach(false); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if follow(c.Link) != other.Path() {
		t.Error("a link that leads elsewhere was removed")
	}
	f := direct(t, other.Path(), os.O_RDWR)
	f.must("a write to the other device", f.fill(1, 4096, 0))
}
