package nbd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ioTimeout is after what time, in milliseconds, the kernel looks at a request
// that is not answered. It only looks, and says so in its log: but what was in
// flight when a daemon died is sent again to the next one at that look.
const ioTimeout = 5000

const (
	nodeTime = 5 * time.Second       // for a device's node to appear
	lookTime = 10 * time.Millisecond // between two looks at what others do in their own time
	lookMost = 20 * lookTime
)

// host is where the kernel shows itself.
type host struct {
	proc, sys, dev string
	number         func(path string) string // of the block device at path, "major:minor", empty if there is none
}

func system() host { return host{"/proc", "/sys", "/dev", number} }

// nodeName is a device's name in /dev and /sys/block.
func nodeName(index int) string { return "nbd" + strconv.Itoa(index) }

// indexOf is the index that a device's name, or the path of its node, has.
func indexOf(name string) (int, bool) {
	digits, ok := strings.CutPrefix(filepath.Base(name), "nbd")
	index, err := strconv.ParseUint(digits, 10, 20)
	return int(index), ok && err == nil && digits == strconv.FormatUint(index, 10)
}

// block is the path of a device, or of something of it, in sysfs.
func (h host) block(index int, more ...string) string {
	return filepath.Join(append([]string{h.sys, "block", nodeName(index)}, more...)...)
}

// node is the path of a device's node.
func (h host) node(index int) string { return filepath.Join(h.dev, nodeName(index)) }

// read is the first line of a small file, empty if there is none.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// backend is what the device says whose it is; empty if it is nobody's, or of
// somebody who does not say.
func (h host) backend(index int) string { return read(h.block(index, "backend")) }

// find is the device that bears backend.
func (h host) find(backend string) (index int, ok bool) {
	if backend == "" {
		return 0, false
	}
	entries, err := os.ReadDir(filepath.Join(h.sys, "block"))
	if err != nil {
		return 0, false
	}
	for _, e := range entries {
		if index, ok = indexOf(e.Name()); ok && h.backend(index) == backend {
			return index, true
		}
	}
	return 0, false
}

// size is a device's size in bytes.
func (h host) size(index int) uint64 {
	sectors, err := strconv.ParseUint(read(h.block(index, "size")), 10, 55)
	if err != nil {
		return 0
	}
	return sectors * 512
}

// parts are the names of a device's partitions: nbd0p1.
func (h host) parts(index int) (names []string) {
	files, _ := filepath.Glob(h.block(index, nodeName(index)+"p*", "partition"))
	for _, f := range files {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	return names
}

// setQueue prepares a device's queue for requests of at most maxSize bytes.
// What is set already is not written: newer kernels freeze the queue for it,
// which waits for the requests in flight.
func (h host) setQueue(index int, maxSize uint32) error {
	kib := uint64(maxSize) >> 10
	if limit, err := strconv.ParseUint(read(h.block(index, "queue", "max_hw_sectors_kb")), 10, 32); err == nil {
		kib = min(kib, limit)
	}
	for name, value := range map[string]uint64{"io_timeout": ioTimeout, "max_sectors_kb": kib} {
		path, text := h.block(index, "queue", name), strconv.FormatUint(value, 10)
		if read(path) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0); err != nil {
			return fmt.Errorf("set %s of %s to %s: %w", name, nodeName(index), text, err)
		}
	}
	return nil
}

// awaitNode waits until the device has its node.
func (h host) awaitNode(index int) error {
	path, want := h.node(index), read(h.block(index, "dev"))
	there := func() bool { return want != "" && h.number(path) == want }
	if !await(nodeTime, there) {
		return fmt.Errorf("%s does not appear: is devtmpfs mounted at %s? %w", path, h.dev, unix.ENXIO)
	}
	return nil
}

// number is a host's number. It does not wait for a network.
func number(path string) string {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Rdev_major, st.Rdev_minor)
}

// await looks until ok, for at most that long, and ever less often: a look may
// cost more than what it looks for.
func await(most time.Duration, ok func() bool) bool {
	end := time.Now().Add(most)
	for pause := lookTime / 10; !ok(); pause = min(2*pause, lookMost) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// Find is the path of the kernel's device that bears that backend identifier,
// "/dev/nbdN", whether it is served or not. Anybody may call it.
func Find(backend string) (path string, ok bool) {
	h := system()
	index, ok := h.find(backend)
	if !ok {
		return "", false
	}
	return h.node(index), true
}
