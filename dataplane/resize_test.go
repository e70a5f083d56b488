package dataplane

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// stubborn is a front that users see with a size, as the kernel's device.
type stubborn struct {
	mu    sync.Mutex
	size  uint64
	err   error // of resize
	asked []uint64
}

func (f *stubborn) has(size uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size == size
}

func (f *stubborn) resize(size uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, size)
	if f.err == nil {
		f.size = size
	}
	return f.err
}

func (f *stubborn) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *stubborn) users() []string      { return nil }
func (f *stubborn) release(bool) error   { return nil }
func (f *stubborn) describe(*abi.Status) {}
func (f *stubborn) Calm() error          { return nil }
func (f *stubborn) Hangup()              {}
func (f *stubborn) Close()               {}

// warned waits until disk0 is shown with a warning that has word, or with none.
func (w *world) warned(p *Plane, word string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		n, err := p.Get("disk0")
		ok(w.t, err)
		if all := strings.Join(n.Status.Warnings, "; "); word == "" && all == "" || word != "" && strings.Contains(all, word) {
			return
		} else if time.Now().After(end) {
			w.t.Fatalf("warnings %q, want %q", all, word)
		}
		select {
		case <-w.changed:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestSizeWaitsForTheLink: the kernel waits for requests in flight with a new
// size, so it hears of one only when they will be answered; what it has not taken
// is said until it has.
func TestSizeWaitsForTheLink(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	at, file := freeAddr(t), w.file("vol0.img", 4<<20)
	serve := func() {
		ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: file, Addrs: []abi.Addr{at}}))
		ok(t, p.AddRule("vol0", loopback))
		ok(t, p.Start("vol0"))
	}
	serve()
	ok(t, p.AddRemote(&abi.Node{Name: "disk0", Export: "vol0", Addrs: []abi.Addr{at}, Attach: abi.AttachNone, Size: 1 << 20, Flags: abi.NodeFlagStarted}))
	w.await(p, "disk0", abi.StateEstablished)
	r := p.places["disk0"].node.(*remoteNode)
	f := &stubborn{size: 1 << 20}
	offered := front(f)
	r.front.Store(&offered)
	ok(t, p.Del("vol0", true))
	for r.established() {
		<-w.changed
	}
	ok(t, p.Set(&abi.Node{Name: "disk0", Size: 2 << 20}))
	r.work.Wait()
	if n := f.questions(); n != 0 {
		t.Fatalf("without a link the kernel was asked %d times", n)
	}
	w.warned(p, "when the link is up")
	if err := p.Set(&abi.Node{Name: "disk0", Size: 1 << 19}); !errors.Is(err, unix.EBUSY) || f.questions() != 0 {
		t.Fatalf("a kernel device without a link became smaller: %v", err)
	}
	serve()
	for end := time.Now().Add(20 * time.Second); !f.has(2 << 20); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the link is up, and the kernel was asked %d times", f.questions())
		}
	}
	w.warned(p, "")
	f.mu.Lock()
	f.err = unix.ETIMEDOUT
	f.mu.Unlock()
	ok(t, p.Set(&abi.Node{Name: "disk0", Size: 3 << 20}))
	w.warned(p, "did not take the size of 3145728")
	f.mu.Lock()
	f.size = 3 << 20 // it took its time
	f.mu.Unlock()
	w.warned(p, "")
}
