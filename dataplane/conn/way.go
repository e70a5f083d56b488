package conn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// wayLinks is how many symbolic links may lie on the way to a directory, as for
// the kernel (MAXSYMLINKS).
const wayLinks = 40

// SafeWay checks that nobody but root and this user can put something else in
// the place of what lies in dir, at any step of the way there: whoever can would
// be who the clients of a socket talk to. Others may write to a directory with
// the sticky bit on the way, but not to the last one: they could be there first.
// Errors: EPERM naming the directory and the remedy, and those of lstat(2).
func SafeWay(dir string) error {
	at, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	rest := strings.Split(at, "/")[1:]
	at = "/"
	for links := 0; ; {
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return fmt.Errorf("directory %s: %w", dir, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if links++; links > wayLinks {
				return fmt.Errorf("directory %s: %w", dir, unix.ELOOP)
			}
			to, err := os.Readlink(at)
			if err == nil {
				err = ours("link", at, &st)
			}
			if err != nil {
				return err
			}
			rest = append(strings.Split(to, "/"), rest...)
			if at = filepath.Dir(at); filepath.IsAbs(to) {
				at = "/"
			}
		} else if err := safeStep(at, &st, len(rest) == 0); err != nil {
			return err
		}
		if len(rest) == 0 {
			return nil
		}
		at, rest = filepath.Join(at, rest[0]), rest[1:]
	}
}

// safeStep checks one directory of the way.
func safeStep(at string, st *unix.Stat_t, last bool) error {
	switch sticky := st.Mode&unix.S_ISVTX != 0; {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("directory %s: %w", at, unix.ENOTDIR)
	case st.Mode&0o022 != 0 && (last || !sticky):
		return fmt.Errorf("directory %s can be written by others, who could take the socket's place: chmod go-w it or choose another: %w", at, unix.EPERM)
	}
	return ours("directory", at, st)
}

// ours checks whose a step of the way is.
func ours(what, at string, st *unix.Stat_t) error {
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s %s belongs to uid %d, who could put something else in the socket's place: choose a directory of root: %w", what, at, st.Uid, unix.EPERM)
	}
	return nil
}
