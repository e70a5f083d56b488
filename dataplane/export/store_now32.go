//go:build !(amd64 || arm64 || s390x)

package export

import "golang.org/x/sys/unix"

// preadNow and pwriteNow: see store_now64.go. Here an offset takes two
// registers, and the gain is not worth the care.
func preadNow(fd int, b []byte, off uint64) (int, error) { return unix.Pread(fd, b, int64(off)) }

func pwriteNow(fd int, b []byte, off uint64) (int, error) { return unix.Pwrite(fd, b, int64(off)) }
