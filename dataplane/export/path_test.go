package export

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStoreIsWhatWasLookedAt: whoever exchanges the path of an export for a
// symbolic link, at whatever moment, does not lead it to another file.
func TestStoreIsWhatWasLookedAt(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	path, file, link, secret := filepath.Join(dir, "path"), filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(t.TempDir(), "secret")
	want := bytes.Repeat([]byte{1}, 4096)
	if err := errors.Join(os.WriteFile(file, want, 0o600), os.WriteFile(secret, bytes.Repeat([]byte{9}, 4096), 0o600),
		os.Symlink(secret, link), os.Link(file, path)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the path is in turn the file and the link
		next := filepath.Join(dir, "next")
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			err := os.Link([]string{file, link}[i%2], next)
			if err = errors.Join(err, os.Rename(next, path)); err != nil {
				t.Error(err)
				return
			}
			_ = os.Remove(next) // a rename to a link of the same inode does nothing
		}
	})
	opened, refused := 0, 0
	for tries := 0; tries < 200000 && (opened < 200 || refused < 200); tries++ {
		d, err := Open(&Config{Device: path, StateDir: state})
		if err != nil { // a link: at the first look, or between that and the open
			refused++
			continue
		}
		opened++
		got := make([]byte, 4096)
		if err := errors.Join(d.Store.ReadAt(got, 0, true), d.Store.Close()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("another file was opened (%v)", err)
		}
	}
	close(stop)
	wg.Wait()
	if opened < 200 || refused < 200 {
		t.Errorf("%d opened, %d refused", opened, refused)
	}
}

// TestStoreIsKept: what takes the path's place later is never touched, and no
// child gets the store.
func TestStoreIsKept(t *testing.T) {
	dir := t.TempDir()
	path, secret := filepath.Join(dir, "path"), filepath.Join(dir, "secret")
	before := bytes.Repeat([]byte{9}, 4096)
	if err := errors.Join(os.WriteFile(path, make([]byte, 4096), 0o600), os.WriteFile(secret, before, 0o600)); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, Config{Device: path, StateDir: t.TempDir()})
	defer d.Store.Close()
	if flags, err := unix.FcntlInt(uintptr(d.Store.(*file).fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
		t.Errorf("flags %d, %v", flags, err)
	}
	if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(secret, path)); err != nil {
		t.Fatal(err)
	}
	written := bytes.Repeat([]byte{3}, 4096)
	err := errors.Join(d.Store.WriteAt(written, 0, true), d.Store.Flush())
	_, merr := d.Measure()
	if err = errors.Join(err, merr); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{secret: before, path + ".moved": written} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what it should be (%v)", name, err)
		}
	}
}
