package conn_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dst/abi"
	"dst/dataplane/conn"

	"golang.org/x/sys/unix"
)

// TestSocketPlaces: a socket is made only where nobody else can take its place,
// and what lies there already is left alone, unless it is a socket whose
// process is dead.
func TestSocketPlaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root for directories of other users")
	}
	const nobody = 65534
	dir := func(path string, mode os.FileMode, uid int) error {
		return errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode), os.Chown(path, uid, -1))
	}
	for _, c := range []struct {
		name  string
		make  func(at string) error
		path  string
		want  error // nil: it listens
		words string
	}{
		{"a directory of root", func(at string) error { return dir(at+"/d", 0o755, 0) }, "d/s", nil, ""},
		{"a private one", func(at string) error { return dir(at+"/d", 0o700, 0) }, "d/s", nil, ""},
		{"below one that all may use", func(at string) error {
			return errors.Join(dir(at+"/d", 0o777|os.ModeSticky, 0), dir(at+"/d/e", 0o700, 0))
		}, "d/e/s", nil, ""},
		{"by a link of root", func(at string) error { return errors.Join(dir(at+"/d", 0o700, 0), os.Symlink("d", at+"/l")) }, "l/s", nil, ""},
		{"by a link that leads up", func(at string) error {
			return errors.Join(dir(at+"/d", 0o700, 0), dir(at+"/e", 0o700, 0), os.Symlink("../d", at+"/e/l"))
		}, "e/l/s", nil, ""},
		{"none", func(string) error { return nil }, "d/s", unix.ENOENT, "directory"},
		{"a file", func(at string) error { return os.WriteFile(at+"/d", nil, 0o600) }, "d/s", unix.ENOTDIR, "directory"},
		{"one that all may write", func(at string) error { return dir(at+"/d", 0o777, 0) }, "d/s", unix.EPERM, "chmod go-w"},
		{"one that the group may write", func(at string) error { return dir(at+"/d", 0o770, 0) }, "d/s", unix.EPERM, "chmod go-w"},
		{"one that all may use", func(at string) error { return dir(at+"/d", 0o777|os.ModeSticky, 0) }, "d/s", unix.EPERM, "chmod go-w"},
		{"one of somebody else", func(at string) error { return dir(at+"/d", 0o700, nobody) }, "d/s", unix.EPERM, "uid 65534"},
		{"below one of somebody else", func(at string) error {
			return errors.Join(dir(at+"/d", 0o700, 0), dir(at+"/d/e", 0o700, 0), os.Chown(at+"/d", nobody, -1))
		}, "d/e/s", unix.EPERM, "uid 65534"},
		{"by a link of somebody else", func(at string) error {
			return errors.Join(dir(at+"/t", 0o777|os.ModeSticky, 0), dir(at+"/d", 0o700, 0), os.Symlink(at+"/d", at+"/t/l"), os.Lchown(at+"/t/l", nobody, -1))
		}, "t/l/s", unix.EPERM, "uid 65534"},
		{"by a link that lies where all may write", func(at string) error {
			return errors.Join(dir(at+"/t", 0o777, 0), dir(at+"/d", 0o700, 0), os.Symlink(at+"/d", at+"/t/l"))
		}, "t/l/s", unix.EPERM, "chmod go-w"},
		{"links without end", func(at string) error { return os.Symlink("l", at+"/l") }, "l/s", unix.ELOOP, "directory"},
		{"a link in its place", func(at string) error { return errors.Join(dir(at+"/d", 0o700, 0), os.Symlink("target", at+"/d/s")) },
			"d/s", unix.EEXIST, "left alone"},
		{"a file in its place", func(at string) error { return errors.Join(dir(at+"/d", 0o700, 0), os.WriteFile(at+"/d/s", nil, 0o600)) },
			"d/s", unix.EEXIST, "left alone"},
		{"a dead socket in its place", func(at string) error { return errors.Join(dir(at+"/d", 0o700, 0), deadSocket(at+"/d/s")) }, "d/s", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := t.TempDir()
			if err := c.make(at); err != nil {
				t.Fatal(err)
			}
			before := tree(t, at)
			l, err := conn.Listen(abi.UnixAddr(filepath.Join(at, c.path)))
			if err == nil {
				defer l.Close()
			}
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, want %v with %q", err, c.want, c.words)
			}
			if after := tree(t, at); err != nil && after != before {
				t.Errorf("left %s, found %s", after, before)
			}
		})
	}
}

// TestSocketOfAnother: what took the place of a listener's socket is not
// removed with it, whatever it is.
func TestSocketOfAnother(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link":   func(path string) error { return os.Symlink("elsewhere", path) },
		"socket": deadSocket,
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := conn.Listen(abi.UnixAddr(path))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Rename(path, path+".gone"), put(path), l.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the %s was removed: %v", name, err)
		}
	}
}

// deadSocket is what a process that was killed leaves.
func deadSocket(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// tree is what lies below a directory, with modes.
func tree(t *testing.T, at string) string {
	t.Helper()
	var all []string
	err := filepath.Walk(at, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			all = append(all, info.Mode().String()+" "+path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}
