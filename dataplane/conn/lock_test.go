package conn_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"

	"golang.org/x/sys/unix"
)

// flock locks path through a description of its own.
func flock(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err == nil {
		t.Cleanup(func() { f.Close() })
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestListenUnixInALockedDirectory: whoever can read a directory can lock it, and
// keeps no listener from its socket, neither at the beginning nor at the end.
func TestListenUnixInALockedDirectory(t *testing.T) {
	dir := t.TempDir()
	flock(t, dir, os.O_RDONLY)
	l, err := conn.Listen(abi.UnixAddr(filepath.Join(dir, "s")))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left there: %v, %v", left, err)
	}
}

// TestListenUnixWaitsForTheLock: who makes a socket in the same directory is
// waited for, but not for ever; what a dead one left is no lock.
func TestListenUnixWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	path, lock := filepath.Join(dir, "s"), filepath.Join(dir, ".dst-lock")
	f := flock(t, lock, os.O_RDWR|os.O_CREATE)
	if _, err := conn.Listen(abi.UnixAddr(path)); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("locked: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { f.Close() })
	l, err := conn.Listen(abi.UnixAddr(path))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// TestListenUnixDistrustsTheLock: what somebody else could have open is not locked.
func TestListenUnixDistrustsTheLock(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(path string) error
		want error
	}{
		"a link":    {func(path string) error { return os.Symlink("elsewhere", path) }, unix.ELOOP},
		"readable":  {func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o644)) }, unix.EPERM},
		"a pipe":    {func(path string) error { return unix.Mkfifo(path, 0o600) }, unix.EPERM},
		"another's": {func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 65534, -1)) }, unix.EPERM},
	} {
		if name == "another's" && os.Geteuid() != 0 {
			continue
		}
		dir := t.TempDir()
		if err := c.put(filepath.Join(dir, ".dst-lock")); err != nil {
			t.Fatal(err)
		}
		if l, err := conn.Listen(abi.UnixAddr(filepath.Join(dir, "s"))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
			if err == nil {
				l.Close()
			}
		}
	}
}
