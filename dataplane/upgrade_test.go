package dataplane

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"dst/abi"
)

// host is another host, on the same tmpfs.
func (w *world) host(name string) *world {
	w.t.Helper()
	h := &world{t: w.t, dir: w.path(name), changed: w.changed}
	ok(w.t, makeDir(h.dir))
	return h
}

// refused waits until the peer has refused a remote again.
func (w *world) refused(p *Plane, name, word string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := p.Get(name)
		ok(w.t, err)
		if strings.Contains(n.Status.Reason, word) {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s is %v (%s), want it refused: %s", name, n.Status.State, n.Status.Reason, word)
		}
	}
}

// TestStopKeepsThePlace: a daemon that is stopped, and started again in another
// version, has the read-write place again, although another client waits for it:
// what is mounted goes on. Only a remote that is removed gives its place away.
func TestStopKeepsThePlace(t *testing.T) {
	w := newWorld(t)
	mine, other := w.host("mine"), w.host("other")
	e := w.plane()
	defer e.Close()
	at := freeAddr(t)
	ok(t, e.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 4<<20), Addrs: []abi.Addr{at},
		Knobs: abi.Knobs{Keepalive: new(uint32(5000))}})) // for two of them the place of who is gone is kept
	ok(t, e.AddRule("vol0", loopback))
	ok(t, e.Start("vol0"))
	a := mine.plane()
	ok(t, a.AddRemote(&abi.Node{Name: "disk0", Export: "vol0", Addrs: []abi.Addr{at}, Attach: abi.AttachSocket,
		Socket: mine.path("disk0.sock"), Flags: abi.NodeFlagStarted}))
	mine.await(a, "disk0", abi.StateEstablished)
	ok(t, dialNBD(t, mine.path("disk0.sock")).write(0, bytes.Repeat([]byte{'x'}, 4096))) // acknowledged, not flushed
	b := other.plane()                                                                   // a standby that keeps trying
	defer b.Close()
	ok(t, b.AddRemote(&abi.Node{Name: "disk0", Export: "vol0", Addrs: []abi.Addr{at}, Attach: abi.AttachNone, Flags: abi.NodeFlagStarted}))
	other.refused(b, "disk0", "writes there")
	tries := func() uint64 {
		n, err := b.Get("disk0")
		ok(t, err)
		if n.Status.State == abi.StateEstablished {
			t.Fatal("the place of a daemon that was stopped is given away")
		}
		return n.Status.Epoch
	}
	had := tries()
	a.Close()
	for ; tries() == had; time.Sleep(time.Millisecond) { // it asks while nobody is there
	}
	a = mine.plane()
	defer a.Close()
	a.Restore()
	mine.await(a, "disk0", abi.StateEstablished)
	ok(t, a.Del("disk0", true))
	other.await(b, "disk0", abi.StateEstablished)
}
