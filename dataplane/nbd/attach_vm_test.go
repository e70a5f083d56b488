//go:build vm

package nbd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKernelTakesWhatIsFreedLate: the daemon before is slow to go, and something
// is in the link's place: the device is served all the same, in the end.
func TestKernelTakesWhatIsFreedLate(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	f := direct(t, k.Path(), os.O_RDWR)
	if err := errors.Join(os.Remove(c.Link), os.WriteFile(c.Link, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	m, nc := newDisk(t)
	told := make(chan error, 64)
	nc.Link, nc.Stop, nc.Trouble = c.Link, make(chan struct{}), func(err error) { told <- err }
	var n *Disk
	taken := after(func() error { n, err = d.Attach(nc); return err })
	if err := <-told; !errors.Is(err, unix.EBUSY) {
		t.Errorf("served by the daemon before: %v", err)
	}
	k.Close()
	within(t, 20*time.Second, "Attach", func() { f.must("attach", <-taken) })
	if len(told) == 0 {
		t.Fatal("nobody was told that it is served")
	}
	var last error
	for len(told) > 0 {
		last = <-told
	}
	if last != nil {
		t.Errorf("served, and the trouble is: %v", last)
	}
	f.must("write", f.fill(5, 4096, 0))
	if m.at(0, 1)[0] != 5 {
		t.Error("the write went elsewhere")
	}
	if why := n.Plain(); !errors.Is(why, unix.EEXIST) {
		t.Errorf("there is no link, because: %v", why)
	}
	f.Close()
	if err := n.Detach(false); err != nil {
		t.Error(err)
	}
	n.Close()
	quiet(t, n)
	if info, err := os.Lstat(filepath.Clean(c.Link)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("what was in the link's place: %v", err)
	}
}
