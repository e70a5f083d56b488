//go:build vm

package nbd

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func entries(t testing.TB, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// cycle attaches, writes, and detaches once.
func cycle(t testing.TB, d *Driver, c DiskConfig) {
	k, err := d.Attach(c)
	if err != nil {
		t.Error(err)
		return
	}
	f, err := os.OpenFile(k.Path(), os.O_RDWR, 0)
	if err == nil {
		if _, err = f.WriteAt([]byte("one sector is enough to be noticed"), 4096); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := k.Detach(false); err != nil {
		t.Error(err)
	}
	k.Close()
}

// TestKernelCycles: a hundred times in a row, and nothing is left.
func TestKernelCycles(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	cycle(t, d, c)
	log, files, blocks := kernelLog(t), entries(t, "/proc/self/fd"), entries(t, "/sys/block")
	for range 100 {
		cycle(t, d, c)
	}
	if n := entries(t, "/proc/self/fd"); n > files {
		t.Errorf("%d open files, %d before", n, files)
	}
	if n := entries(t, "/sys/block"); n != blocks {
		t.Errorf("%d block devices, %d before", n, blocks)
	}
	for _, line := range kernelSaid(t, log) {
		if !orderly.MatchString(line) {
			t.Errorf("the kernel said %q", line)
		}
	}
	if _, ok := Find(c.Backend); ok {
		t.Error("a device is left")
	}
}

// TestKernelStorm: sixteen at once, more than once, and more than there are
// devices at first.
func TestKernelStorm(t *testing.T) {
	d := openKernel(t)
	_, taken := newDisk(t)
	taken.Backend += "first"
	attach(t, d, taken)
	var all sync.WaitGroup
	for i := range 16 {
		_, c := newDisk(t)
		c.Backend += string(rune('a' + i))
		all.Go(func() {
			for range 4 {
				cycle(t, d, c)
			}
		})
	}
	all.Wait()
	for i := range 16 {
		if path, ok := Find(taken.Backend + string(rune('a'+i))); ok {
			t.Errorf("%s is left", path)
		}
	}
}

// TestKernelFlushAtDetach: what was written and never flushed by its writer is
// flushed before the device goes; if that fails, the device stays.
func TestKernelFlushAtDetach(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	k := attach(t, d, c)
	f := direct(t, k.Path(), os.O_RDWR)
	f.must("write", f.fill(1, 4096, 0))
	f.Close()
	m.took()
	m.mu.Lock()
	m.fail[0] = unix.EIO
	m.mu.Unlock()
	if err := k.Detach(false); err == nil {
		t.Fatal("detached though the flush failed")
	}
	m.mu.Lock()
	m.fail[0] = 0
	m.mu.Unlock()
	detach(t, k)
	flushes := 0
	for _, a := range m.took() {
		if a.op.String() == "flush" {
			flushes++
		}
	}
	if flushes < 2 {
		t.Errorf("%d flushes", flushes)
	}
}
