package dataplane

import (
	"net"
	"testing"

	"dst/abi"
	"dst/dataplane/remote"
)

// TestFrontOfAnEndingNodeServesNobody: a device that comes up while its node
// ends is hung up before it can hear of the end, as an error of its requests.
func TestFrontOfAnEndingNodeServesNobody(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	ok(t, p.AddRemote(&abi.Node{Name: "disk0", Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachSocket,
		Socket: w.path("disk0.sock"), Flags: abi.NodeFlagStarted}))
	r := p.places["disk0"].node.(*remoteNode)
	r.stop()
	ok(t, r.up(remote.Info{}))
	defer (*r.front.Load()).Close()
	if c, err := net.Dial("unix", w.path("disk0.sock")); err == nil {
		c.Close()
		t.Fatal("the front of a node that has ended takes clients")
	}
	p.places["disk0"].node = nil
}

// TestEndOfWhatDoesNotComeUp: a node that ends while its front can not be made has
// not failed by that.
func TestEndOfWhatDoesNotComeUp(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	ok(t, p.AddRemote(&abi.Node{Name: "disk0", Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachSocket, Socket: w.path("disk0.sock")}))
	r := p.places["disk0"].node.(*remoteNode)
	r.conf.Socket = w.path("no/such/directory")
	ok(t, r.start())
	if err := r.up(remote.Info{}); err == nil {
		t.Error("a front came up in no directory")
	}
	r.ending.Store(true)
	ok(t, r.up(remote.Info{}))
}
