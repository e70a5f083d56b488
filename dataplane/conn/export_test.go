package conn

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Option is a socket option of s.
func (s *Sock) Option(t *testing.T, level, name int) (value int) {
	t.Helper()
	err := s.raw.Control(func(fd uintptr) { value, _ = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil {
		t.Error(err)
	}
	return value
}

// Most is how many bytes one send of s has at most.
func (s *Sock) Most() int { return s.most }
