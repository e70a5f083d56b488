package crypt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func writeKey(t *testing.T, name string, b []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func refusedFile(t *testing.T, path string, want error, says string) {
	t.Helper()
	b, err := ReadKeyFile(path)
	if b != nil || !errors.Is(err, want) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
		t.Errorf("%s: %x, %v", path, b, err)
	}
}

// TestN25KeyFileModes: nobody else may read or write it.
func TestN25KeyFileModes(t *testing.T) {
	for mode := range os.FileMode(0o1000) {
		path := writeKey(t, "key", golden(1), mode)
		if mode&0o077 != 0 {
			// Who is not root cannot even open some of them.
			if os.Geteuid() == 0 || mode&0o400 != 0 {
				refusedFile(t, path, unix.EACCES, "chmod 600")
			}
			continue
		}
		b, err := ReadKeyFile(path)
		if readable := os.Geteuid() == 0 || mode&0o400 != 0; readable && (err != nil || !bytes.Equal(b, golden(1))) || !readable && err == nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	path := writeKey(t, "key", golden(1), 0o600)
	if err := os.Chmod(path, 0o600|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); err != nil {
		t.Errorf("a mode that gives nobody anything: %v", err)
	}
}

// TestN25KeyFileOwner: only the owner of the process; a real file of another user
// if the test may make one, and in any case the judgement of one.
func TestN25KeyFileOwner(t *testing.T) {
	for uid, good := range map[uint32]bool{0: true, 1: false, 65534: false, 1<<32 - 1: false} {
		st := unix.Stat_t{Mode: unix.S_IFREG | 0o600, Uid: uid}
		if err := checkKeyFile("key", &st, 0); (err == nil) != good || !good && (!errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "chown")) {
			t.Errorf("owner %d: %v", uid, err)
		}
	}
	path := writeKey(t, "key", golden(1), 0o600)
	if err := os.Chown(path, 65534, -1); err == nil {
		refusedFile(t, path, unix.EACCES, "belongs to user 65534")
	} else if os.Geteuid() == 0 {
		t.Error(err)
	}
}

// TestN25KeyFileKinds: what is no regular file is refused at once, without a read.
func TestN25KeyFileKinds(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := MakeKeyFile(in("real")); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink("real", in("link")), os.Symlink("nowhere", in("dangling")), os.Symlink("loop", in("loop")),
		unix.Mkfifo(in("fifo"), 0o600), os.Mkdir(in("dir"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	refusedFile(t, in("link"), unix.ELOOP, "symbolic link")
	refusedFile(t, in("dangling"), unix.ELOOP, "symbolic link")
	refusedFile(t, in("loop"), unix.ELOOP, "symbolic link")
	refusedFile(t, in("fifo"), unix.EINVAL, "not a regular file")
	refusedFile(t, in("dir"), unix.EINVAL, "not a regular file")
	refusedFile(t, in("nothing"), unix.ENOENT, "key gen")
	refusedFile(t, in("real")+"/below", unix.ENOTDIR, "key file")
	refusedFile(t, "/dev/zero", unix.EINVAL, "not a regular file")
	refusedFile(t, "/dev/null", unix.EINVAL, "not a regular file")
	refusedFile(t, "", unix.ENOENT, "key gen")
	refusedFile(t, in(strings.Repeat("a", 300)), unix.ENAMETOOLONG, "key file")
	if _, err := ReadKeyFile("a\x00b"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a NUL: %v", err)
	}
	// A file of /proc says that it is empty and is not.
	if _, err := ReadKeyFile("/proc/self/environ"); err == nil {
		t.Error("/proc/self/environ is a key")
	}
}

// TestN25KeyFileContents: 16 to 1024 bytes that somebody has drawn.
func TestN25KeyFileContents(t *testing.T) {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = randomStream().Read(b)
		return b
	}
	for _, n := range []int{16, 17, 32, 64, 1023, 1024} {
		b, err := ReadKeyFile(writeKey(t, "key", random(n), 0o600))
		if err != nil || !bytes.Equal(b, random(n)) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// Bytes of which none is text are not all alike.
	if _, err := ReadKeyFile(writeKey(t, "key", []byte("\xff\xfe\xfd\xfc\x80\x81\x82\x83\xff\xfe\xfd\xfc\x80\x81\x82\x83"), 0o600)); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 1, 15, 1025, 4096, 1 << 20} {
		refusedFile(t, writeKey(t, "key", random(n), 0o600), unix.EINVAL, "16 to 1024 bytes")
	}
	for _, text := range []string{"correct horse battery staple", "correct horse battery staple\n", strings.Repeat("0123456789abcdef", 4), "пароль, который никто не знает"} {
		refusedFile(t, writeKey(t, "key", []byte(text), 0o600), unix.EINVAL, "printable text")
	}
	refusedFile(t, writeKey(t, "key", make([]byte, 32), 0o600), unix.EINVAL, "again and again")
	refusedFile(t, writeKey(t, "key", bytes.Repeat([]byte{0xFF}, 1024), 0o600), unix.EINVAL, "again and again")
}

// TestMakeKeyFile: made once, for the owner only whatever the umask, and good.
func TestMakeKeyFile(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o777)
	defer unix.Umask(old)
	seen := map[string]bool{}
	for _, name := range []string{"a", "b", "c"} {
		path := filepath.Join(dir, name)
		if err := MakeKeyFile(path); err != nil {
			t.Fatal(err)
		}
		b, err := ReadKeyFile(path)
		if err != nil || len(b) != 32 || seen[string(b)] {
			t.Fatalf("%x, %v", b, err)
		}
		seen[string(b)] = true
		st, err := os.Lstat(path)
		if err != nil || st.Mode() != 0o600 {
			t.Fatalf("mode %v, %v", st.Mode(), err)
		}
		if err := MakeKeyFile(path); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "another name") {
			t.Errorf("twice: %v", err)
		}
		if again, err := ReadKeyFile(path); err != nil || !bytes.Equal(again, b) {
			t.Errorf("replaced: %v", err)
		}
	}
	if err := os.Symlink("victim", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := MakeKeyFile(filepath.Join(dir, "link")); !errors.Is(err, unix.EEXIST) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "victim")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("through a link: %v", err)
	}
	if err := MakeKeyFile(filepath.Join(dir, "no", "where")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no directory: %v", err)
	}
	// A disk that is full leaves nothing behind that looks like a key.
	if err := MakeKeyFile("/dev/full"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a device: %v", err)
	}
}
