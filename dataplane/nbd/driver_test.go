package nbd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestBounded: nobody waits for ever for a kernel that does not answer, those
// behind do not either, and what comes too late is undone.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &Driver{turn: make(chan struct{}, 1)}
		d.turn <- struct{}{}
		stuck, late := make(chan struct{}), 0
		_, err := d.bounded(func() (int, error) { <-stuck; return 7, nil }, func(index int, err error) {
			if index == 7 && err == nil {
				late++
			}
		})
		if !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("behind a kernel that does not answer: %v", err)
		}
		if _, err := d.bounded(func() (int, error) { return 8, nil }, nil); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("behind one who waits: %v", err)
		}
		close(stuck)
		synctest.Wait()
		if late != 1 {
			t.Errorf("what came late was undone %d times", late)
		}
		if index, err := d.bounded(func() (int, error) { return 9, nil }, nil); index != 9 || err != nil {
			t.Errorf("afterwards: %d, %v", index, err)
		}
	})
}

// TestExplain: every error of the kernel's keeps its errno and says what to do.
func TestExplain(t *testing.T) {
	for err, words := range map[error]string{
		unix.EPERM: "CAP_SYS_ADMIN", unix.ENOSPC: "attach socket", unix.EINVAL: "dmesg", unix.ETIMEDOUT: "make it", unix.EBUSY: "make it",
	} {
		if got := explain("make it", fmt.Errorf("netlink: %w", err)); !errors.Is(got, err) || !strings.Contains(got.Error(), words) {
			t.Errorf("%v: %v, want it with %q", err, got, words)
		}
	}
	if err := explain("make it", nil); err != nil {
		t.Error(err)
	}
}

// TestOpenDriverWithoutModule: the machine that builds has no module; one that
// has it has nothing to complain about.
func TestOpenDriverWithoutModule(t *testing.T) {
	d, err := OpenDriver(zerolog.Nop())
	if err == nil {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "attach socket") {
		t.Error(err)
	}
}

// TestClosePair: an end that somebody kept is no dropped one.
func TestClosePair(t *testing.T) {
	for _, tt := range []struct {
		kept bool
		err  error
	}{{true, nil}, {false, nil}, {false, unix.EINVAL}} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		if tt.kept {
			kept, err := unix.Dup(theirs)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(kept)
		}
		if dropped := closePair(ours, theirs, tt.err); dropped == tt.kept {
			t.Errorf("kept %v: dropped %v", tt.kept, dropped)
		}
		if tt.err == nil {
			sock, err := newSock(ours, 3)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(sock.PeerAddr().String(), "/dev/nbd3") {
				t.Error(sock.PeerAddr())
			}
			sock.Close()
		} else if err := unix.Close(ours); !errors.Is(err, unix.EBADF) {
			t.Errorf("the daemon's end after a failure: %v", err)
		}
	}
}

// TestApart: the thread has no file, the process keeps its own and nobody else
// has what it closes, and what the runtime waits with works. Some of the
// threads may be the process's first, which stays.
func TestApart(t *testing.T) {
	for range 20 {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		files, end := make(chan []string), make(chan struct{})
		apart(func() {
			var names []string
			entries, _ := os.ReadDir("/proc/thread-self/fd")
			for _, e := range entries[min(3, len(entries)):] {
				if target, err := os.Readlink("/proc/thread-self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
					names = append(names, target)
				}
			}
			files <- names
			<-end
		})
		if names := <-files; len(names) != 0 {
			t.Errorf("the thread has %q", names)
		}
		if _, err := in.WriteString("x"); err != nil {
			t.Errorf("the process's own file: %v", err)
		}
		in.Close()
		if b, err := io.ReadAll(out); err != nil || string(b) != "x" {
			t.Errorf("read %q, %v", b, err)
		}
		out.Close()
		close(end)
	}
}
