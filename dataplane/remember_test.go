package dataplane

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestChangeIsRememberedLater: a change that could not be remembered is told and
// shown, and remembered as soon as it can be.
func TestChangeIsRememberedLater(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 1<<20), Addrs: []abi.Addr{freeAddr(t)}}))
	ok(t, p.AddRule("vol0", loopback))
	warned := func() bool {
		n, err := p.Get("vol0")
		ok(t, err)
		return strings.Contains(strings.Join(n.Status.Warnings, " "), "next daemon")
	}
	config := filepath.Join(p.run.node("vol0"), "config")
	ok(t, os.Remove(config))
	ok(t, os.MkdirAll(filepath.Join(config, "in", "the", "way"), 0o700))
	for range 2 {
		err := p.AddRule("vol0", abi.Rule{Kind: abi.RuleKindAny})
		if err == nil || !strings.Contains(err.Error(), "it is done") || !warned() {
			t.Fatalf("%v, warned %v", err, warned())
		}
	}
	if err := p.DelRule("vol0", loopback); err == nil {
		t.Fatal("there is room")
	}
	ok(t, os.RemoveAll(config))
	for end := time.Now().Add(20 * time.Second); warned(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not tried again")
		}
	}
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	n, err := p.Get("vol0")
	ok(t, err)
	if len(n.Status.Rules) != 1 || n.Status.Rules[0].Kind != abi.RuleKindAny {
		t.Errorf("after a restart %v", n.Status.Rules)
	}
}

// TestDenyingExportIsRemembered: an export whose last rule denies everybody is
// served by the next daemon, to nobody, and takes a rule again.
func TestDenyingExportIsRemembered(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 1<<20), Addrs: []abi.Addr{freeAddr(t)}}))
	deny := loopback
	deny.Perm = 0
	ok(t, p.AddRule("vol0", deny))
	if err := p.Start("vol0"); err == nil {
		t.Fatal("an export for nobody was started")
	}
	ok(t, p.AddRule("vol0", loopback))
	ok(t, p.Start("vol0"))
	ok(t, p.AddRule("vol0", deny))
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	n, err := p.Get("vol0")
	ok(t, err)
	if n.Status.State != abi.StateServing || !strings.Contains(strings.Join(n.Status.Warnings, " "), "allows anybody") {
		t.Fatalf("%v %s, %q", n.Status.State, n.Status.Reason, n.Status.Warnings)
	}
	ok(t, p.AddRule("vol0", loopback))
}

// TestOldPeerIsRemembered: a peer that is refused today, and was not once, is kept.
func TestOldPeerIsRemembered(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	at, _ := w.pair(p).AddrPort()
	c := p.places["disk0"].node.config()
	c.Addrs = []abi.Addr{abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()))}
	ok(t, p.run.save(c))
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.await(p, "disk0", abi.StateEstablished)
}
