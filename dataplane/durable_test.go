package dataplane

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// written has a client write to disk0 and leave without a flush.
func (w *world) written(p *Plane) {
	w.t.Helper()
	c := dialNBD(w.t, w.path("disk0.sock"))
	ok(w.t, c.write(0, bytes.Repeat([]byte{'x'}, 4096)))
	c.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := p.Get("disk0")
		ok(w.t, err)
		if len(n.Status.Users) == 0 {
			if n.Status.Unflushed == 0 {
				w.t.Fatal("there is nothing to lose")
			}
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("the client does not leave")
		}
	}
}

// TestDelKeepsWhatIsNotDurable: what was acknowledged and the peer may have lost
// goes with the log: del refuses that unless forced.
func TestDelKeepsWhatIsNotDurable(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	at := w.pair(p)
	w.written(p)
	ok(t, p.Del("vol0", true)) // the peer's host is gone, and what it had in memory
	r := p.places["disk0"].node.(*remoteNode)
	for r.established() {
		<-w.changed
	}
	var f *abi.Fault
	if err := p.Del("disk0", false); !errors.Is(err, unix.EBUSY) || !errors.As(err, &f) || f.Attr != abi.AttrNodeName ||
		!strings.Contains(err.Error(), "1 changes (4096 bytes) are not durable") {
		t.Fatalf("del of what only this host has: %v", err)
	}
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.path("vol0.img"), Addrs: []abi.Addr{at}}))
	ok(t, p.AddRule("vol0", loopback))
	ok(t, p.Start("vol0"))
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, p.Del("disk0", false)) // which flushes
	ok(t, p.Del("vol0", true))   // its client may be on its way out
	w.pair(p)
	w.written(p)
	ok(t, p.Del("vol0", true))
	ok(t, p.Del("disk0", true))
}

// offered waits until somebody listens at the socket.
func (w *world) offered(name string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if c, err := net.Dial("unix", w.path(name)); err == nil {
			c.Close()
			return
		} else if time.Now().After(end) {
			w.t.Fatal(err)
		}
	}
}

// TestDelOfAFailedNode: what a node that has failed can not save holds nobody up,
// and it has failed for the next daemon, too.
func TestDelOfAFailedNode(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	w.written(p)
	r := p.places["disk0"].node.(*remoteNode)
	r.link.Fail(unix.EIO)
	w.await(p, "disk0", abi.StateFailed)
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.await(p, "disk0", abi.StateFailed)
	w.offered("disk0.sock")
	c := dialNBD(t, w.path("disk0.sock"))
	if _, err := c.read(0, 512); !errors.Is(err, unix.EIO) {
		t.Errorf("a read of what has failed: %v", err)
	}
	c.Close()
	for end := time.Now().Add(20 * time.Second); p.Del("disk0", false) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the client does not leave")
		}
	}
}

// TestDelOfALostNode: a node that could not be restored still has its log, and
// what is in it is kept until somebody says force.
func TestDelOfALostNode(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	w.written(p)
	p.Close()
	ok(t, os.Chmod(w.dir, 0o777)) // no place for a socket
	p = w.plane()
	defer p.Close()
	p.Restore()
	ok(t, os.Chmod(w.dir, 0o700))
	w.await(p, "disk0", abi.StateFailed)
	if err := p.Del("disk0", false); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "start it") {
		t.Fatalf("del of a lost node with a log: %v", err)
	}
	ok(t, p.Start("disk0"))
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, p.Del("disk0", false))
}

// TestDelOfWhatFailedHere: a node whose device could not be made by this daemon has
// its log for the next one, and del keeps it.
func TestDelOfWhatFailedHere(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	w.written(p)
	p.Close()
	l, err := net.Listen("unix", w.path("disk0.sock"))
	ok(t, err)
	p = w.plane()
	p.Restore()
	w.await(p, "disk0", abi.StateFailed)
	if err := p.Del("disk0", false); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("del of a node that failed on this host only: %v", err)
	}
	p.Close()
	l.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, p.Del("disk0", false))
}
