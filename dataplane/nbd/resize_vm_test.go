//go:build vm

package nbd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// busy waits until the kernel waits for a device's requests, or has done without
// that what was asked: an older one resizes at once.
func busy(t testing.TB, done <-chan error) {
	t.Helper()
	until(t, "the kernel waits for requests", func() bool {
		files, _ := filepath.Glob("/proc/self/task/*/wchan")
		return len(done) > 0 || slices.ContainsFunc(files, func(path string) bool { return strings.Contains(read(path), "freeze") })
	})
}

// TestKernelStopWithResize: a daemon is stopped while the kernel waits, for a new
// size, for a request that the link answers late. It hangs up after that, and the
// next daemon can take the device.
func TestKernelStopWithResize(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	m.info.Size = 4 << 20
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	hasty(t, k)
	f := direct(t, k.Path(), os.O_RDWR)
	m.hold(true)
	write := after(func() error { return f.fill(9, 4096, 0) })
	until(t, "a write is under way", func() bool { return m.submitted() > 0 })
	resized := after(func() error { return k.Resize(8 << 20) })
	busy(t, resized)
	stopped := after(func() error { defer k.Close(); return k.Calm() })
	m.hold(false)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := <-resized; err != nil {
		t.Error(err)
	}
	next, nc := newDisk(t)
	nc.Link = c.Link
	n := attach(t, d, nc)
	// Where a resize waits for nothing, the daemon may have ended before the write.
	if err := <-write; err != nil {
		t.Error(err)
	}
	if n.Size() != 8<<20 {
		t.Errorf("%d bytes, want what the last daemon asked for", n.Size())
	}
	f.must("a write by the next daemon", f.fill(7, 4096, 0))
	f.Close()
	if !bytes.Equal(next.at(0, 4096), bytes.Repeat([]byte{7}, 4096)) {
		t.Error("the write went elsewhere")
	}
}

// TestKernelBusyWithResize: whoever asks the kernel while it waits for a request
// gets an answer in bounded time, and so does who ends.
func TestKernelBusyWithResize(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	m.info.Size = 4 << 20
	k := attach(t, d, c)
	f := direct(t, k.Path(), os.O_RDWR)
	m.hold(true)
	write := after(func() error { return f.fill(9, 4096, 0) })
	until(t, "a write is under way", func() bool { return m.submitted() > 0 })
	resized := after(func() error { return k.Resize(8 << 20) })
	busy(t, resized)
	waits := len(resized) == 0
	within(t, 2*answerTime, "OpenDriver", func() {
		next, err := OpenDriver(zerolog.Nop())
		if err == nil {
			err = next.Close()
		}
		if err != nil && !errors.Is(err, unix.ETIMEDOUT) || err == nil && waits && len(resized) == 0 {
			t.Errorf("another driver: %v", err)
		}
	})
	if waits {
		if err := <-resized; !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("the resize: %v", err)
		}
		within(t, 2*answerTime, "Calm", func() {
			if err := k.Calm(); !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("calm before the kernel is: %v", err)
			}
		})
	}
	m.hold(false)
	f.must("write", <-write)
	if err := k.Calm(); err != nil {
		t.Error(err)
	}
	if got := k.Size(); got != 8<<20 {
		t.Errorf("%d bytes after a resize that took its time", got)
	}
	f.Close()
}
