package export

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// file is the Store of a regular file or a block device.
type file struct {
	fd    int
	block bool
	geo   Geometry
}

// busyPause is how long a call that the kernel answered with EAGAIN waits
// before it is made again.
const busyPause = time.Millisecond

// measureFile finds out what can be done with a regular file.
func (f *file) measureFile(g *Geometry, c *Config, st *unix.Stat_t) error {
	g.Size = uint64(st.Size)
	g.BlockMin = abi.SectorSize
	g.BlockPref = blockPref(uint64(st.Blksize), g.BlockMin)
	g.Direct = c.Flags&abi.NodeFlagDirect != 0
	if g.Direct {
		var err error
		if g.BlockMin, err = directAlign(f.fd); err != nil {
			return fmt.Errorf("device %s: %w", c.Device, err)
		}
		g.BlockPref = max(g.BlockPref, g.BlockMin)
		return nil
	}
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(f.fd, &fs) }); err != nil {
		return err
	}
	g.Instant = uint32(fs.Type) == unix.TMPFS_MAGIC || uint32(fs.Type) == unix.RAMFS_MAGIC
	g.Cached = g.Instant || f.probeNowait()
	g.Late = uint32(fs.Type) == unix.NFS_SUPER_MAGIC
	return nil
}

// measure is how many bytes there are now.
func (f *file) measure() (uint64, error) {
	if f.block { // its inode tells nothing; nobody else uses this descriptor's position
		end, err := unix.Seek(f.fd, 0, unix.SEEK_END)
		return uint64(end), err
	}
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(f.fd, &st) })
	return uint64(st.Size), err
}

// probeNowait tells whether the file system answers reads that must not wait.
func (f *file) probeNowait() bool {
	var b [1]byte
	_, err := retryInt(func() (int, error) { return unix.Preadv2(f.fd, [][]byte{b[:]}, 0, unix.RWF_NOWAIT) })
	return err == nil || err == unix.EAGAIN
}

// directAlign is the alignment that O_DIRECT on the file wants, in bytes.
func directAlign(fd int) (uint32, error) {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) })
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return 4096, nil // an older kernel does not tell; no file system wants more
	}
	switch {
	case st.Dio_offset_align == 0:
		return 0, fmt.Errorf("the file system cannot bypass the page cache: export it buffered: %w", unix.EINVAL)
	case st.Dio_offset_align > 64<<10 || st.Dio_mem_align > 4096:
		return 0, fmt.Errorf("bypassing the page cache needs an alignment of %d bytes, at most 65536 is supported: export it buffered: %w",
			max(st.Dio_offset_align, st.Dio_mem_align), unix.EINVAL)
	}
	return max(st.Dio_offset_align, abi.SectorSize), nil
}

// blockPref makes a preferred block size of what the system says, a power of
// two from least to 64 KiB.
func blockPref(n uint64, least uint32) uint32 {
	if n&(n-1) != 0 || n < uint64(least) {
		return max(least, 4096)
	}
	return uint32(min(n, 64<<10))
}

// ReadAt is Store's.
func (f *file) ReadAt(b []byte, off uint64, wait bool) error {
	for len(b) > 0 {
		n, err := f.read(b, off, wait || f.geo.Instant)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && wait:
			time.Sleep(busyPause)
			continue
		case err != nil:
			return err
		case n < len(b) && !wait && !f.geo.Instant:
			return unix.EAGAIN
		case n == 0: // somebody made the file shorter
			return unix.EIO
		}
		b, off = b[n:], off+uint64(n)
	}
	return nil
}

func (f *file) read(b []byte, off uint64, wait bool) (int, error) {
	if wait {
		return unix.Pread(f.fd, b, int64(off))
	}
	if !f.geo.Cached {
		return 0, unix.EAGAIN
	}
	n, err := unix.Preadv2(f.fd, [][]byte{b}, int64(off), unix.RWF_NOWAIT)
	if err == unix.EOPNOTSUPP {
		err = unix.EAGAIN
	}
	return n, err
}

// WriteAt is Store's.
func (f *file) WriteAt(b []byte, off uint64, durable bool) error {
	for len(b) > 0 {
		n, err := f.write(b, off, durable && f.geo.FUA)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			time.Sleep(busyPause)
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.EIO
		}
		b, off = b[n:], off+uint64(n)
	}
	return nil
}

func (f *file) write(b []byte, off uint64, durable bool) (int, error) {
	if durable {
		return unix.Pwritev2(f.fd, [][]byte{b}, int64(off), unix.RWF_DSYNC)
	}
	return unix.Pwrite(f.fd, b, int64(off))
}

// Flush is Store's.
func (f *file) Flush() error { return retry(func() error { return unix.Fdatasync(f.fd) }) }

// Close is Store's; the lock goes with it.
func (f *file) Close() error { return unix.Close(f.fd) }

// Erase is Store's.
func (f *file) Erase(off, n uint64, how Erasure) error {
	var err error
	switch {
	case how == EraseDiscard && f.block:
		err = f.blockRange(unix.BLKDISCARD, off, n)
	case how == EraseAllocate && f.block:
		err = f.blockRange(unix.BLKZEROOUT, off, n)
	case how == EraseAllocate:
		err = f.allocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	default:
		err = f.allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if err != unix.EOPNOTSUPP && err != unix.ENOTTY && err != unix.ENOSYS {
		return err
	}
	if how == EraseDiscard {
		return nil
	}
	if f.block {
		return f.blockRange(unix.BLKZEROOUT, off, n)
	}
	return f.writeZeroes(off, n)
}

func (f *file) allocate(mode uint32, off, n uint64) error {
	return retry(func() error { return unix.Fallocate(f.fd, mode, int64(off), int64(n)) })
}

// writeZeroes is what is left where nothing faster is known.
func (f *file) writeZeroes(off, n uint64) error {
	zero := zeroes()
	for n > 0 {
		some := min(n, uint64(len(zero)))
		if err := f.WriteAt(zero[:some], off, false); err != nil {
			return err
		}
		off, n = off+some, n-some
	}
	return nil
}
