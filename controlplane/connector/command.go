package connector

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// command is one of the original's.
type command struct {
	name string // in logs
	do   func(*Door, *abi.Ctl, []byte) error
	adds bool // a node, which must not exist; all others need one that does
}

var commands = [...]command{
	abi.CtlDelNode:   {name: "del-node", do: (*Door).delNode},
	abi.CtlAddRemote: {name: "add-remote", do: (*Door).addRemote, adds: true},
	abi.CtlAddExport: {name: "add-export", do: (*Door).addExport, adds: true},
	abi.CtlCrypto:    {name: "crypto", do: (*Door).crypto},
	abi.CtlSecurity:  {name: "security", do: (*Door).security},
	abi.CtlStart:     {name: "start", do: (*Door).start},
}

// delNode never forces: the original waited for the users of a device without
// a limit, here it is EBUSY.
func (d *Door) delNode(c *abi.Ctl, _ []byte) error { return d.plane.Del(c.Name, false) }

func (d *Door) start(c *abi.Ctl, _ []byte) error { return d.plane.Start(c.Name) }

// addRemote adds a kernel device of the one export that is at the address: the
// original's commands cannot name it.
func (d *Door) addRemote(c *abi.Ctl, payload []byte) error {
	var ctl abi.NetworkCtl
	if err := ctl.Parse(payload); err != nil {
		return err
	}
	return d.plane.AddRemote(&abi.Node{
		Name: c.Name, Addrs: []abi.Addr{ctl.Addr}, Size: c.Size,
		Attach: abi.AttachNbd, Flags: abi.NodeFlagSole,
		Knobs: abi.Knobs{MaxPages: maxPages(c), FailAfter: failAfter(c)},
	})
}

func (d *Door) addExport(c *abi.Ctl, payload []byte) error {
	var ctl abi.ExportCtl
	if err := ctl.Parse(payload); err != nil {
		return err
	}
	return d.plane.AddExport(&abi.Node{
		Name: c.Name, Device: ctl.Device, Addrs: []abi.Addr{ctl.Addr}, Size: c.Size,
		Knobs: abi.Knobs{MaxPages: maxPages(c)},
	})
}

// crypto leaves no key behind: k is erased here, the request by Serve. As ever it
// is for nodes that are not started; a number of threads that is no number says
// nothing.
func (d *Door) crypto(c *abi.Ctl, payload []byte) error {
	var k abi.CryptoCtl
	defer func() { k.Wipe() }()
	if err := k.Parse(payload); err != nil {
		return err
	}
	if n, err := d.plane.Get(c.Name); err == nil && n.Flags&abi.NodeFlagStarted != 0 {
		return fmt.Errorf("the node is started, its keys stay: use dstctl crypto set: %w", unix.EEXIST)
	}
	return d.plane.Crypto(&abi.Crypto{Name: c.Name, Cipher: k.Cipher, Hash: k.Hash, CipherKey: k.CipherKey, HashKey: k.HashKey, Threads: threads(&k)})
}

// threads is the original's number of workers; with nothing to encrypt or to
// check there are none to set.
func threads(k *abi.CryptoCtl) *uint32 {
	if k.Threads <= 0 || k.Cipher == "" && k.Hash == "" {
		return nil
	}
	return new(uint32(min(k.Threads, 1024)))
}

func (d *Door) security(c *abi.Ctl, payload []byte) error {
	var u abi.SecureUser
	if err := u.Parse(payload); err != nil {
		return err
	}
	r, err := rule(u)
	if err != nil {
		return err
	}
	return d.plane.AddRule(c.Name, r)
}

// maxPages is the original's limit of a request: 0 is the default, 1024 the
// most that it took.
func maxPages(c *abi.Ctl) *uint32 {
	if c.MaxPages == 0 {
		return nil
	}
	return new(min(c.MaxPages, 1024))
}

// failAfter is how long the original repeated a request: so many scans, one
// each ScanTimeout ms or, without that, each second. 0 scans is for ever.
func failAfter(c *abi.Ctl) *uint32 {
	scan := uint64(c.ScanTimeout)
	if scan == 0 {
		scan = 1000
	}
	return new(uint32(min(scan*uint64(c.MaxRetries), math.MaxUint32)))
}
