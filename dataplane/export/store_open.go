package export

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Open opens the store that c names: a regular file, or a block device, by its
// own name or a symbolic link. It is opened once and locked against everybody
// else (a read-only file: against writers). Errors: what the system says with
// what to do; EBUSY if somebody has it; ENOTBLK if it is something else;
// EINVAL, ERANGE for a size that cannot be offered.
func Open(c *Config) (*Disk, error) {
	fd, st, err := openNode(c)
	if err != nil {
		return nil, abi.Blame(abi.AttrNodeDevice, err)
	}
	d, err := newDisk(fd, st, c)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

// newDisk makes the Disk behind fd, which is the caller's again on an error.
func newDisk(fd int, st *unix.Stat_t, c *Config) (*Disk, error) {
	f := &file{fd: fd, block: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	d := &Disk{Store: f}
	d.Geometry.ReadOnly = c.Flags&abi.NodeFlagReadOnly != 0
	var err error
	if f.block {
		err = f.measureBlock(&d.Geometry, c)
	} else {
		err = f.measureFile(&d.Geometry, c, st)
	}
	if err != nil {
		return nil, err
	}
	if err := limitSize(d, c); err != nil {
		return nil, err
	}
	if f.block && !d.Geometry.Direct {
		d.Warnings = append(d.Warnings, "the device is written through the page cache: when a write fails, old data may be read until the next flush; direct avoids that")
	}
	f.geo, d.Measure = d.Geometry, f.measure
	if d.Identity, err = identify(fd, f.block, st, c); err != nil {
		return nil, err
	}
	if d.Identity.Resized != nil {
		d.Warnings = append(d.Warnings, "the store is known by its path and size: another one of this size would pass for it there; "+
			"disks with a serial number, partitions, logical volumes and files with extended attributes have an id of their own")
	}
	return d, nil
}

// limitSize applies the configured size and rounds down to whole blocks.
func limitSize(d *Disk, c *Config) error {
	g := &d.Geometry
	size, rest, err := offer(g.Size, c.Size, g.BlockMin, c.Device)
	if err != nil {
		return err
	}
	g.Size = size
	if rest != 0 {
		d.Warnings = append(d.Warnings, fmt.Sprintf("the last %d bytes are not offered: they are no whole block of %d", rest, g.BlockMin))
	}
	return nil
}

// offer is how many of a device's whole bytes can be offered within the limit
// (0: none), in blocks, and how many more do not make a block.
func offer(whole, limit uint64, block uint32, device string) (size, rest uint64, err error) {
	switch {
	case limit > whole:
		return 0, 0, abi.Blame(abi.AttrNodeSize, fmt.Errorf("size %d is more than the %d bytes of %s: leave the size out or give a smaller one: %w",
			limit, whole, device, unix.ERANGE))
	case limit != 0:
		whole = limit
	}
	rest = whole & uint64(block-1)
	size = whole - rest
	switch {
	case size == 0:
		return 0, 0, abi.Blame(abi.AttrNodeDevice, fmt.Errorf("%s would offer %d bytes, less than one block of %d: make it larger first: %w",
			device, whole, block, unix.EINVAL))
	case size >= 1<<63:
		return 0, 0, fmt.Errorf("%s has more than 2^63-1 bytes: give a smaller size: %w", device, unix.EFBIG)
	}
	return size, rest, nil
}

// openNode finds out what c.Device is before it touches it, then opens that
// very inode for use and locks it.
func openNode(c *Config) (fd int, st *unix.Stat_t, err error) {
	path := c.Device
	if !filepath.IsAbs(path) {
		return -1, nil, fmt.Errorf("device %q: give an absolute path: %w", path, unix.EINVAL)
	}
	st = new(unix.Stat_t)
	probe, err := peekNode(path, st)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(probe)

	flags := unix.O_RDWR | unix.O_CLOEXEC
	if c.Flags&abi.NodeFlagReadOnly != 0 {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	block := st.Mode&unix.S_IFMT == unix.S_IFBLK
	if block {
		flags |= unix.O_EXCL
	}
	direct := c.Flags&abi.NodeFlagDirect != 0 || block && c.Flags&abi.NodeFlagBuffered == 0
	if direct {
		flags |= unix.O_DIRECT
	}
	if fd, err = reopen(probe, flags); err != nil {
		return -1, nil, explainOpen(path, direct, err)
	}
	if !block {
		err = lockFile(fd, path, flags&unix.O_RDWR == 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// peekNode opens path without touching what is behind it and fills st. A
// symbolic link may lead to a block device only (/dev/disk/by-id): one that
// leads to a file could be exchanged by whoever owns the directory.
func peekNode(path string, st *unix.Stat_t) (int, error) {
	real := path
	if err := unix.Lstat(path, st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if real, err = filepath.EvalSymlinks(path); err != nil {
			return -1, fmt.Errorf("device %s: the link leads nowhere: %w", path, underlying(err))
		}
	}
	probe, err := retryInt(func() (int, error) {
		return unix.Open(real, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, explainOpen(path, false, err)
	}
	if err = unix.Fstat(probe, st); err == nil {
		switch kind := st.Mode & unix.S_IFMT; {
		case kind == unix.S_IFBLK, kind == unix.S_IFREG && real == path:
			return probe, nil
		case kind == unix.S_IFREG:
			err = fmt.Errorf("device %s is a symbolic link to a file: give the file's own path, %s: %w", path, real, unix.ELOOP)
		default:
			err = fmt.Errorf("device %s is neither a regular file nor a block device: %w", path, unix.ENOTBLK)
		}
	}
	unix.Close(probe)
	return -1, err
}

// reopen opens the inode behind an O_PATH descriptor for use.
func reopen(probe, flags int) (int, error) {
	return retryInt(func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(probe), flags, 0)
	})
}

// lockFile takes the lock that keeps a file for one export; readers share it.
func lockFile(fd int, path string, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := retry(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is locked, by another export (see dstctl export show) or another program: stop that first: %w", path, unix.EBUSY)
	}
	return err
}

// explainOpen says what to do about a failed open.
func explainOpen(path string, direct bool, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("device %s is in use, mounted or exported already: unmount or stop that first: %w", path, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("device %s does not exist: create it first or correct the path: %w", path, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %s may not be opened: check its permissions: %w", path, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("device %s can only be read: export it read-only: %w", path, err)
	case direct && errors.Is(err, unix.EINVAL):
		return fmt.Errorf("device %s cannot bypass the page cache: export it buffered: %w", path, err)
	}
	return fmt.Errorf("opening device %s: %w", path, err)
}

// underlying is the errno inside err, or err.
func underlying(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// retry calls f again as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// retryInt is retry for calls that give a number.
func retryInt(f func() (int, error)) (n int, err error) {
	err = retry(func() error {
		n, err = f()
		return err
	})
	return n, err
}
