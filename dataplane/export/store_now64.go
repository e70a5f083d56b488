//go:build amd64 || arm64 || s390x

package export

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// preadNow and pwriteNow are pread(2) and pwrite(2) where these never wait
// (Geometry.Instant: the file is memory). Raw: telling the scheduler of each
// costs more than the call itself.
func preadNow(fd int, b []byte, off uint64) (int, error) {
	return now(unix.SYS_PREAD64, fd, b, off)
}

func pwriteNow(fd int, b []byte, off uint64) (int, error) {
	return now(unix.SYS_PWRITE64, fd, b, off)
}

func now(trap uintptr, fd int, b []byte, off uint64) (int, error) {
	n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(off), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
