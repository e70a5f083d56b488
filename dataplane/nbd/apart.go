package nbd

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart runs f, which may wait for a device's I/O, on a goroutine and a thread
// of its own that has no socket open.
//
// A thread that waits for a device can not be killed, and a process is not
// gone before its last thread: if that thread had the daemon's ends of the
// sockets, they would stay open behind a daemon that was killed, nobody could
// take the device over, and the thread would wait for ever. So the thread gets
// a table of open files of its own, and closes the sockets in it.
func apart(f func()) {
	// Started by apart. Owns its thread, which ends with it. Ends when f
	// returns: when the device answers, or is gone.
	go func() {
		runtime.LockOSThread()
		// As at a fork: nobody may rely on having closed a socket meanwhile.
		syscall.ForkLock.Lock()
		if unix.Unshare(unix.CLONE_FILES) == nil {
			closeSockets()
		}
		syscall.ForkLock.Unlock()
		f()
	}()
}

// closeSockets closes the sockets in the calling thread's table of open files,
// which must be its own. What the runtime waits with stays.
func closeSockets() {
	entries, _ := os.ReadDir("/proc/thread-self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			unix.Close(fd)
		}
	}
}
