package conn

import "golang.org/x/sys/unix"

// Gone tells whether the other end of st has hung up, or the connection is broken,
// for whoever does not read from it; what was sent before that may still be there.
// A stream without a socket below it never tells. Any goroutine may call it.
func Gone(st Stream) bool {
	if s, ok := st.(*Secure); ok {
		st = s.stream
	}
	s, ok := st.(*Sock)
	if !ok {
		return false
	}
	gone := true // or closed here
	_ = s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, _ := unix.Poll(p, 0)
		gone = n > 0 // POLLHUP and POLLERR are told unasked
	})
	return gone
}
