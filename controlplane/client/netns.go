package client

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named network namespaces.
const netnsDir = "/run/netns"

// openIn makes a socket in the network namespace netns: a path, a name of
// iproute2, or "" for that of the calling thread.
func openIn(netns string, peer uint32) (*socket, error) {
	if netns == "" {
		return open(peer)
	}
	if !strings.Contains(netns, "/") {
		netns = filepath.Join(netnsDir, netns)
	}
	ns, err := os.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	type result struct {
		s   *socket
		err error
	}
	done := make(chan result)
	go enter(ns, func(err error) {
		var s *socket
		if err == nil {
			s, err = open(peer)
		}
		done <- result{s, err}
	})
	r := <-done
	return r.s, r.err
}

// enter calls f in the network namespace ns.
// Started by openIn. Owns its thread, which ends with it, so that no other
// goroutine ever runs in ns. Ends when f returns.
func enter(ns *os.File, f func(error)) {
	runtime.LockOSThread()
	err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	if err != nil {
		err = fmt.Errorf("network namespace %s: %w", ns.Name(), os.NewSyscallError("setns", err))
	}
	f(err)
}
