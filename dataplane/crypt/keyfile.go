package crypt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeSize is the size of a key file that is made, in bytes.
const makeSize = 32

// ReadKeyFile reads a key: KeyMin to KeyMax bytes in a regular file that is the
// caller's own, no symbolic link, and that nobody else may read or write. It
// never waits. The caller wipes what it returns. Errors are sentences: those of
// open(2) and read(2), EACCES for owner and mode, EINVAL for the contents.
func ReadKeyFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO does not wait for its other end.
	const how = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := unix.Open(path, how, 0)
	for errors.Is(err, unix.EINTR) { // the runtime's own signals, on a slow file system
		fd, err = unix.Open(path, how, 0)
	}
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("key file %s is a symbolic link: name the file itself: %w", path, err)
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("key file %s does not exist: make one with `dstctl key gen FILE` and copy it to the other end: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	if err := checkKeyFile(path, &st, os.Geteuid()); err != nil {
		return nil, err
	}
	// One byte more than allowed shows a file that has grown since.
	b := make([]byte, KeyMax+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(b)
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	if err := checkKeyBytes(path, b[:n]); err != nil {
		clear(b)
		return nil, err
	}
	return b[:n], nil
}

// checkKeyFile tells what is wrong with the file of a key of user euid.
func checkKeyFile(path string, st *unix.Stat_t, euid int) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("key file %s is not a regular file: make one with `dstctl key gen FILE`: %w", path, unix.EINVAL)
	case st.Uid != uint32(euid):
		return fmt.Errorf("key file %s belongs to user %d: its owner knows the key, chown it to user %d: %w", path, st.Uid, euid, unix.EACCES)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("key file %s has mode %04o, others may use it: chmod 600 it, and make a new key if others have read it: %w", path, st.Mode&0o7777, unix.EACCES)
	}
	return nil
}

// checkKeyBytes tells what is wrong with the contents of a key file.
func checkKeyBytes(path string, b []byte) error {
	switch {
	case len(b) < KeyMin || len(b) > KeyMax:
		return fmt.Errorf("key file %s does not hold %d to %d bytes: make one with `dstctl key gen FILE`: %w", path, KeyMin, KeyMax, unix.EINVAL)
	case bytes.Count(b, b[:1]) == len(b):
		return fmt.Errorf("key file %s holds one byte again and again, as after a crash: make one with `dstctl key gen FILE`: %w", path, unix.EINVAL)
	case isText(b):
		return fmt.Errorf("key file %s holds printable text, which can be guessed: make a random one with `dstctl key gen FILE`: %w", path, unix.EINVAL)
	}
	return nil
}

// MakeKeyFile makes a key file of 32 random bytes that only its owner can read and
// that is on the disk when it returns. It replaces nothing: EEXIST if there is
// one. Other errors: those of open(2), write(2) and fsync(2).
func MakeKeyFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s exists, and a key that is in use must not be lost: take another name: %w", path, unix.EEXIST)
	case err != nil:
		return fmt.Errorf("make a key file: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = fmt.Errorf("make a key file: %w", errors.Join(err, os.Remove(path)))
		}
	}()
	var key [makeSize]byte
	defer clear(key[:])
	rand.Read(key[:])
	if err := f.Chmod(0o600); err != nil { // whatever the umask is
		return err
	}
	if _, err := f.Write(key[:]); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir puts the names of a directory on the disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
