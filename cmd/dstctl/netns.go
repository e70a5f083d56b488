package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) names network namespaces.
const netnsDir = "/run/netns"

// enterNetns goes on as the same command in the network namespace name: a name
// of ip-netns(8) or a path. The program is executed again, because only so
// every thread of it, the resolver's too, is in that namespace. It returns only
// if it failed.
func enterNetns(name string, args []string) error {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join(netnsDir, name)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fault{code: exitRefused, at: -1, text: fmt.Sprintf("network namespace %q can not be opened: %v; ip netns list shows those with a name", name, err)}
	}
	runtime.LockOSThread() // for good: this thread becomes the program
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return &fault{code: exitRefused, at: -1, text: fmt.Sprintf("network namespace %q can not be entered: %v", name, err)}
	}
	words := append([]string{os.Args[0]}, withoutNetns(args)...)
	err = unix.Exec("/proc/self/exe", words, os.Environ())
	return &fault{code: exitRefused, at: -1, text: fmt.Sprintf("dstctl can not be executed again: %v", err)}
}

// withoutNetns is args without the option -netns and its value.
func withoutNetns(args []string) []string {
	var rest []string
	for i := 0; i < len(args); i++ {
		row, ok := findOption(args[i])
		if !strings.HasPrefix(args[i], "-") || len(args[i]) == 1 || !ok {
			return append(rest, args[i:]...)
		}
		n := 1
		if row.value != "" {
			n = 2
		}
		if row.long != "netns" {
			rest = append(rest, args[i:i+n]...)
		}
		i += n - 1
	}
	return rest
}
