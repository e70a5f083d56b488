package conn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// dirLockTime is how long somebody else may work on a directory's sockets, and
// lockName the file there that is locked meanwhile.
const (
	dirLockTime = 2 * time.Second
	lockName    = ".dst-lock"
)

// socketPath is a Unix socket in the file system, told from a successor with the
// same name by its inode.
type socketPath struct {
	path     string
	dev, ino uint64
}

// unixPath is the path a names, as the kernel reads it; "" for other families,
// unnamed and abstract addresses.
func unixPath(a abi.Addr) string {
	if a.Family() != unix.AF_UNIX {
		return ""
	}
	path, _, _ := strings.Cut(a.Sockaddr[2:], "\x00")
	return path
}

// ListenUnix listens on a Unix stream socket at path with exactly this mode,
// whatever the umask, from the first moment. A socket left there by a dead
// process is replaced; EEXIST if something else is there, EADDRINUSE if somebody
// listens. EPERM if anybody but root and this user can put something else in its
// place.
func ListenUnix(path string, mode os.FileMode) (*Listener, error) {
	return listenUnix(abi.UnixAddr(path), path, mode)
}

func listenUnix(a abi.Addr, path string, mode os.FileMode) (*Listener, error) {
	if err := SafeWay(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	fd, err := newSocket(a)
	if err != nil {
		return nil, listenError(a, err)
	}
	var place *socketPath
	err = lockDir(path, func() error {
		if err := makeWay(a, path); err != nil {
			return err
		}
		place, err = bindPath(fd, a, path, mode)
		return err
	})
	if err != nil {
		closeFD(fd)
		return nil, listenError(a, err)
	}
	return newListener(fd, a, place)
}

// bindPath makes the socket file and listens.
func bindPath(fd int, a abi.Addr, path string, mode os.FileMode) (*socketPath, error) {
	// The file gets the socket's own mode less the umask: never more than asked.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return nil, err
	}
	if err := withAddr(unix.SYS_BIND, fd, a); err != nil {
		return nil, err
	}
	place := &socketPath{path: path}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err == nil {
		place.dev, place.ino = uint64(st.Dev), st.Ino
		if st.Mode&0o777 != uint32(mode.Perm()) { // the umask took something
			err = unix.Chmod(path, uint32(mode.Perm()))
		}
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		_ = place.removeLocked()
		return nil, err
	}
	return place, nil
}

// makeWay removes a socket that nobody listens on; nothing else is touched.
func makeWay(a abi.Addr, path string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("there is a file that is not a socket, it is left alone: %w", unix.EEXIST)
	}
	fd, err := newSocket(a)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	switch err := withAddr(unix.SYS_CONNECT, fd, a); err {
	case unix.ECONNREFUSED: // a socket without a process
		place := socketPath{path: path, dev: uint64(st.Dev), ino: st.Ino}
		return place.removeLocked()
	case unix.ENOENT:
		return nil
	case nil, unix.EAGAIN, unix.EINPROGRESS, unix.EPROTOTYPE: // one of another type lives too
		return unix.EADDRINUSE
	default:
		return err
	}
}

// remove unlinks the socket if the path still leads to it.
func (p *socketPath) remove() error { return lockDir(p.path, p.removeLocked) }

func (p *socketPath) removeLocked() error {
	var st unix.Stat_t
	if err := unix.Lstat(p.path, &st); err != nil || uint64(st.Dev) != p.dev || st.Ino != p.ino {
		return nil // gone, or somebody else's
	}
	if err := unix.Unlink(p.path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove %s: %w", p.path, err)
	}
	return nil
}

// lockDir does f while no other listener makes or removes a socket in the
// directory of path: between the look and the unlink of one, another one could
// put its socket there. The lock is on a file of our own, for the directory
// itself can be locked by whoever may read it, and for ever.
func lockDir(path string, f func() error) error {
	name := filepath.Join(filepath.Dir(path), lockName)
	for end := time.Now().Add(dirLockTime); ; time.Sleep(fullBacklog) {
		fd, err := tryLock(name)
		switch {
		case err == nil:
			defer closeFD(fd)
			defer func() { _ = unix.Unlink(name) }() // while it is locked: see tryLock
			return f()
		case err != unix.EWOULDBLOCK || time.Now().After(end):
			return fmt.Errorf("lock %s: %w", name, err)
		}
	}
}

// tryLock locks the file with that name, which is made if there is none, and
// which whoever has the lock removes before he lets it go. Errors: EWOULDBLOCK if
// somebody else has it, or has just removed it; EPERM if others could lock it.
func tryLock(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = lockOurs(fd, name)
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

func lockOurs(fd int, name string) error {
	var st, there unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		return err
	case st.Mode&^0o700 != unix.S_IFREG || st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it is not a file that nobody else can open: remove it: %w", unix.EPERM)
	}
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case err == unix.EINTR:
		return unix.EWOULDBLOCK
	case err != nil:
		return err
	}
	// The lock of a file that is not there any more keeps nobody out.
	if unix.Lstat(name, &there) != nil || there.Dev != st.Dev || there.Ino != st.Ino {
		return unix.EWOULDBLOCK
	}
	return nil
}
