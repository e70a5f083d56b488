// Package controlplane is the daemon's door: the command table of the control
// interface (abi/dst.yaml) and its handlers. A request is decoded wholly; then
// the Plane is asked, which decides, and either does all of it or nothing.
package controlplane

import (
	"errors"
	"time"

	"github.com/mdlayher/netlink"

	"dst/abi"
	"dst/controlplane/genl"
)

// Plane is what the doors ask: the nodes of this daemon, by name. Its methods
// may be called by any goroutine. An error is an errno and a sentence, and an
// *abi.Fault if one attribute is to blame; after an error nothing has changed.
type Plane interface {
	// AddRemote and AddExport take n; with NodeFlagStarted they start it too.
	AddRemote(n *abi.Node) error
	AddExport(n *abi.Node) error
	Del(name string, force bool) error
	Start(name string) error
	// Steal starts a remote that takes the read-write place at its export from a
	// client that lives.
	Steal(name string) error
	// Set changes the knobs of n that are not nil and the flags in n.Mask.
	Set(n *abi.Node) error
	// Crypto copies what it keeps: the keys of c are erased when it returns.
	Crypto(c *abi.Crypto) error
	AddRule(name string, r abi.Rule) error
	DelRule(name string, r abi.Rule) error
	Names() []string
	Get(name string) (*abi.Node, error)
	Stats(name string) (*abi.Counters, error)
	Sys() abi.Sys
}

// Door serves the control interface on a netlink socket.
type Door struct {
	plane Plane
	srv   *genl.Server
}

// New makes a door to p on c, which it owns from now on: genl.Listen(abi.Port).
// Serve starts it; Notify may be called at once.
func New(p Plane, c genl.Conn) (*Door, error) {
	d := &Door{plane: p}
	srv, err := genl.New(c, genl.Family{
		Name: abi.FamilyName, ID: abi.FamilyID, Version: abi.FamilyVersion, MaxAttr: abi.FamilyMaxAttr,
		Ops: d.ops(), Stamp: stamp, Overrun: abi.CmdEvent,
	})
	d.srv = srv
	return d, err
}

// Serve answers requests until Close, then returns nil. Errors: the socket's.
func (d *Door) Serve() error { return d.srv.Serve() }

// Close ends Serve, waits for the handlers that run, and closes the socket.
func (d *Door) Close() error { return d.srv.Close() }

// Counts are totals of the door, for those who watch the daemon.
func (d *Door) Counts() genl.Counts { return d.srv.Counts() }

// Notify tells the subscribers what happened; an event without a time happens
// now. Any goroutine may call it, it never waits.
func (d *Door) Notify(e abi.Event) {
	if e.Time == 0 {
		e.Time = uint64(time.Now().UnixMilli())
	}
	e.Seq, e.Lost = 0, 0
	d.srv.Notify(abi.CmdEvent, e.Name, e.Encode)
}

// stamp adds what an event is for one subscriber.
func stamp(ae *netlink.AttributeEncoder, seq, lost uint64) {
	(&abi.Event{Seq: seq, Lost: lost}).Encode(ae)
}

// decode is the request r as m.
func decode(r *genl.Request, m abi.Message) error { return abi.Unmarshal(r.Raw, m) }

// located finds the attribute that err blames in the request r.
func located(r *genl.Request, err error) error {
	var f *abi.Fault
	if !errors.As(err, &f) {
		return err
	}
	e := genl.Ack(err)
	for _, a := range r.Attrs {
		if a.Type != f.Attr {
			continue
		}
		e.Offset = a.Offset
		if f.Nth == 0 {
			break
		}
		f.Nth--
	}
	return e
}
