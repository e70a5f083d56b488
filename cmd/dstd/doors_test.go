package main

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/connector"
	"dst/controlplane/genl"
)

// TestBothPortsOrNone: a stranger at either port is an error that names him, and
// what was taken before is given back.
func TestBothPortsOrNone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root for a network namespace of its own")
	}
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		control := func() (*genl.Socket, error) { return genl.Listen(abi.Port) }
		for name, take := range map[string]func() (*genl.Socket, error){"control": control, "legacy": connector.Listen} {
			stranger, err := take()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := listen(zerolog.Nop()); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s: %v", name, err)
			}
			if err := stranger.Close(); err != nil {
				t.Error(err)
			}
		}
		s, err := listen(zerolog.Nop())
		if err != nil {
			t.Error(err)
			return
		}
		if s.legacy == nil {
			t.Error("no legacy door")
		}
		s.close()
	})
	done.Wait()
}
