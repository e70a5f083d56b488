package nbd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// TestLeftDeviceIsTriedFor: a device that a daemon left may be mounted: a kernel
// that is busy, or a lack of something, is no reason to give it up. One try is
// all that others get.
func TestLeftDeviceIsTriedFor(t *testing.T) {
	m := newMemory(t, 4, 4*testMax)
	sys := t.TempDir()
	dir := filepath.Join(sys, "block", "nbd3")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "backend"), []byte("dst:vol0:1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &Driver{host: host{sys: sys, dev: "/dev"}, turn: make(chan struct{}, 1)} // somebody has the turn
		c := DiskConfig{Device: m.device("vol0"), Backend: "dst:vol0:1"}
		if k, err := d.Attach(c); k != nil || !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("one try: %v", err)
		}
		stop, told := make(chan struct{}), make(chan error)
		c.Stop, c.Trouble = stop, func(err error) { told <- err }
		end := make(chan error)
		go func() {
			_, err := d.Attach(c)
			end <- err
		}()
		for range 3 {
			if err := <-told; !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("told: %v", err)
			}
		}
		close(stop)
		if err := <-end; !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("stopped: %v", err)
		}
	})
}

func TestPassing(t *testing.T) {
	for _, err := range []error{unix.EBUSY, unix.ETIMEDOUT, unix.ENOMEM, unix.EMFILE, unix.ENFILE, os.ErrDeadlineExceeded} {
		if !passing(fmt.Errorf("attach: %w", err)) {
			t.Errorf("%v is for ever", err)
		}
	}
	for _, err := range []error{unix.EPERM, unix.EINVAL, unix.ENODEV, unix.EEXIST, errors.New("?")} {
		if passing(fmt.Errorf("attach: %w", err)) {
			t.Errorf("%v passes", err)
		}
	}
}
