package mempool

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFileIsAllocatedUnderSignals: the runtime signals its threads whenever it
// likes, and a tmpfs that gives up then, as those of older kernels do, is asked
// again.
func TestFileIsAllocatedUnderSignals(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "dst")
	if err != nil {
		t.Skipf("SKIP: no tmpfs: %v", err)
	}
	defer os.RemoveAll(dir)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	victim, over := unix.Gettid(), make(chan struct{})
	// Started here. Owns nothing. Ends after so many signals that one of them
	// meets an allocation, but not so many that none gets through.
	go func() {
		defer close(over)
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for range 1000 {
			<-tick.C
			_ = unix.Tgkill(unix.Getpid(), victim, unix.SIGURG) // what the runtime itself sends
		}
	}()
	for last := false; !last; {
		select {
		case <-over:
			last = true
		default:
		}
		f, err := os.CreateTemp(dir, "")
		if err == nil {
			err = Allocate(f, 0, 4*mib)
			_ = os.Remove(f.Name())
			_ = f.Close()
		}
		if err != nil {
			<-over
			t.Fatal(err)
		}
	}
}
