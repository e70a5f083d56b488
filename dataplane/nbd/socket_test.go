package nbd

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocketPairIsUnixStream: kernels take nothing else but TCP for a device,
// and no child gets an end of it.
func TestSocketPairIsUnixStream(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	for end, fd := range map[string]int{"ours": ours, "theirs": theirs} {
		domain, derr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		kind, kerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		flags, ferr := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if domain != unix.AF_UNIX || kind != unix.SOCK_STREAM || flags != unix.FD_CLOEXEC || derr != nil || kerr != nil || ferr != nil {
			t.Errorf("%s: family %d, type %d, flags %d (%v, %v, %v)", end, domain, kind, flags, derr, kerr, ferr)
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}
