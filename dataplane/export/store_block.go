package export

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/dataplane/mempool"
)

// measureBlock finds out what can be done with a block device.
func (f *file) measureBlock(g *Geometry, c *Config) error {
	end, err := unix.Seek(f.fd, 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("device %s: asking for its size: %w", c.Device, err)
	}
	logical, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("device %s: asking for its block size: %w", c.Device, err)
	}
	if logical < 512 || logical > 64<<10 || logical&(logical-1) != 0 {
		return fmt.Errorf("device %s has blocks of %d bytes, 512 to 65536 are supported: %w", c.Device, logical, unix.EINVAL)
	}
	g.Size, g.BlockMin = uint64(end), uint32(logical)
	physical, _ := unix.IoctlGetInt(f.fd, unix.BLKPBSZGET)
	g.BlockPref = max(blockPref(uint64(physical), g.BlockMin), 4096)
	g.Direct, err = isDirect(f.fd)
	if err != nil {
		return err
	}
	g.Cached = !g.Direct && f.probeNowait()
	dir := sysfsOf(f.fd)
	g.Rotating = sysfsWord(dir, "queue/rotational") == "1"
	// Where the disk itself has FUA, a durable write asks nobody else's.
	g.FUA = g.Direct && sysfsWord(dir, "queue/fua") == "1"
	return nil
}

func isDirect(fd int) (bool, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return flags&unix.O_DIRECT != 0, err
}

// blockRange is BLKDISCARD or BLKZEROOUT (linux/fs.h: u64 start and length).
func (f *file) blockRange(request uint, off, n uint64) error {
	span := [2]uint64{off, n}
	return retry(func() error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), uintptr(request), uintptr(unsafe.Pointer(&span)))
		if e != 0 {
			return e
		}
		return nil
	})
}

// sysfsOf is the sysfs directory of the block device behind fd.
func sysfsOf(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
}

// sysfsWord is the trimmed contents of a file below dir, or, for a partition,
// of its disk; "" if there is none.
func sysfsWord(dir, name string) string {
	for _, path := range []string{dir + "/" + name, dir + "/../" + name} {
		if b, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

// zeroes is the page-aligned source of written zeroes, made when first needed.
var zeroes = sync.OnceValue(func() []byte {
	const size = 1 << 20
	if b, err := mempool.Pages(size); err == nil {
		return b
	}
	// Without page memory: aligned by hand.
	b := make([]byte, size+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip : skip+size]
})
