package nbd

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart runs f, which may wait for a device's I/O, on a goroutine and a thread
// of its own that has no file open but those of the runtime.
//
// A thread that waits for a device can not be killed, and a process is not
// gone before its last thread: if that thread had the daemon's ends of the
// sockets, they would stay open behind a daemon that was killed, nobody could
// take the device over, and the thread would wait for ever. So the thread gets
// a table of open files of its own, and closes what is in it. All of it: the
// first thread of a process does not end with its goroutine, and would keep
// what others believe to have closed.
func apart(f func()) {
	// Started by apart. Owns its thread, which ends with it, or sleeps for
	// ever if it is the process's first. Ends when f returns: when the device
	// answers, or is gone.
	go func() {
		runtime.LockOSThread()
		// As at a fork: nobody may rely on having closed a file meanwhile.
		syscall.ForkLock.Lock()
		if unix.Unshare(unix.CLONE_FILES) == nil {
			closeFiles()
		}
		syscall.ForkLock.Unlock()
		f()
	}()
}

// closeFiles closes what the calling thread has open, in a table of its own.
// What the runtime waits and is woken with stays, and is known by having no
// type of file; so do the three standard ones.
func closeFiles() {
	entries, _ := os.ReadDir("/proc/thread-self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != 0 {
			unix.Close(fd)
		}
	}
}
