package export

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestResizeGrows: a larger file is offered after Resize: whoever is served is
// cut, comes back as the same client and reaches the new end.
func TestResizeGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Config{Device: path, StateDir: t.TempDir()}, nil)
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "size before", c.welcome.Size, 1<<20)
	if err := os.Truncate(path, 2<<20+100); err != nil {
		t.Fatal(err)
	}
	want(t, "past the end", c.write(2048, pattern(512, 1), 0), unix.EINVAL)
	if err := w.Node.Resize(0); err != nil {
		t.Fatal(err)
	}
	c.gone()
	want(t, "offered", w.Node.Size(), 2<<20)
	verifier := c.welcome.Verifier
	c = w.client(helloOf(1, 2, abi.PermRW))
	want(t, "size after", c.welcome.Size, 2<<20)
	want(t, "verifier", c.welcome.Verifier, verifier)
	want(t, "the new end", c.write(4095, pattern(512, 2), 0), 0)
	if err := w.Node.Resize(2 << 20); err != nil {
		t.Fatal(err)
	}
	want(t, "the same size cuts nobody", c.flush(), 0)
}

// TestResizeRefused: what is promised stays, and what is not there is not
// offered.
func TestResizeRefused(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	for limit, errno := range map[uint64]error{1 << 19: unix.EBUSY, 1<<20 + 512: unix.ERANGE, 100: unix.EINVAL} {
		if err := w.Node.Resize(limit); !errors.Is(err, errno) {
			t.Errorf("to %d: %v, want %v", limit, err, errno)
		}
	}
	want(t, "size", w.Node.Size(), 1<<20)
	want(t, "still served", c.write(2047, pattern(512, 1), 0), 0)
	c.st.Close()
	eventually(t, "the client is gone", func() bool { return w.Node.Resize(1<<19) == nil })
	c = w.client(helloOf(1, 2, abi.PermRW))
	want(t, "size", c.welcome.Size, 1<<19)
	want(t, "past the end", c.write(1024, pattern(512, 1), 0), unix.EINVAL)
}

// TestResizeKeepsIdentity: a store that is recognised by its size, too, is the
// same one when it is opened with the new size.
func TestResizeKeepsIdentity(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Device: filepath.Join(dir, "image"), StateDir: dir}
	if err := os.WriteFile(c.Device, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := func() *Identity {
		f, err := os.Open(c.Device)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		id, err := keepIdentity(sizeKey(c, uint64(info.Size())), c)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := kept()
	if err := os.Truncate(c.Device, 8192); err != nil {
		t.Fatal(err)
	}
	if err := before.Resized(8192); err != nil {
		t.Fatal(err)
	}
	want(t, "id after the growth", kept().ID, before.ID)
	if err := before.Save(abi.ID{1}, abi.ID{2}); err != nil {
		t.Fatal(err)
	}
	want(t, "tenure after the growth", kept().Tenure, abi.ID{1})
}
