package export

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestBindingKeepsNobodyWaiting: while a socket waits for who works in its
// directory, handshakes at other addresses go on.
func TestBindingKeepsNobodyWaiting(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	dir := t.TempDir()
	lock, err := os.OpenFile(filepath.Join(dir, ".dst-lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	listen := []abi.Addr{abi.UnixAddr(filepath.Join(dir, "s"))}
	const together = 2 // one of them makes the socket, whichever it is
	bound := make(chan error, together)
	for i := range together {
		go func() {
			_, disk := memDisk(1 << 20)
			n, err := New(Config{Name: "vol" + string(rune('1'+i)), Listen: listen}, w.env(disk))
			if err == nil {
				t.Cleanup(func() { _ = n.Close(true) })
			}
			bound <- err
		}()
	}
	for i := range byte(2) { // with the same patience as theirs they would fail together
		c := w.client(helloOf(i+1, 1, abi.PermRead))
		c.st.Close()
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	for range together {
		if err := <-bound; err != nil {
			t.Error(err)
		}
	}
	w.ports.mu.Lock()
	defer w.ports.mu.Unlock()
	if at := w.ports.mu.ports[listen[0]]; at == nil || len(at.nodes) != together {
		t.Error("they do not share the socket")
	}
}
