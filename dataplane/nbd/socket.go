package nbd

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
)

// sendBuffer is the room of either end's sender, in bytes: the kernel's
// default holds less than a full queue of 4 KiB writes, and whoever fills it
// sleeps. It is taken only as far as it is used.
const sendBuffer = 1 << 20

// socketPair makes the two ends of a device's socket.
func socketPair() (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range fds { // it works with less, more slowly
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		}
	}
	return fds[0], fds[1], nil
}

// closePair closes the kernel's end, which the kernel has now if it took it,
// and ours too if err says that it did not. It tells whether nobody has the
// kernel's end any more.
func closePair(ours, theirs int, err error) (dropped bool) {
	// A child between fork and exec has it too: not now.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	unix.Close(theirs)
	if err != nil {
		unix.Close(ours)
		return true
	}
	fds := []unix.PollFd{{Fd: int32(ours)}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err != nil || n > 0 && fds[0].Revents&unix.POLLHUP != 0
		}
	}
}

// newSock is the daemon's end of a device's socket, and owns it also if it
// fails. The other end is named by the device in messages.
func newSock(fd, index int) (*conn.Sock, error) {
	addr, err := abi.ParseAddr("unix:/dev/"+nodeName(index), nil)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return conn.NewSock(fd, addr)
}
