package controlplane

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

func (d *Door) addRemote(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	return d.plane.AddRemote(&n)
}

func (d *Door) addExport(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	return d.plane.AddExport(&n)
}

func (d *Door) delNode(r *genl.Request) error {
	var del abi.Del
	if err := decode(r, &del); err != nil {
		return err
	}
	return d.plane.Del(del.Name, del.Flags&abi.DelFlagForce != 0)
}

func (d *Door) start(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	switch n.Flags {
	case 0:
		return d.plane.Start(n.Name)
	case abi.NodeFlagSteal:
		return d.plane.Steal(n.Name)
	}
	return abi.Blame(abi.AttrNodeFlags, fmt.Errorf("start knows the flag steal only: leave the others out: %w", unix.EINVAL))
}

func (d *Door) set(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	return d.plane.Set(&n)
}

// crypto leaves no key behind, whatever comes of it: genl erases the request,
// the decoder's copies are erased by abi, and c is here.
func (d *Door) crypto(r *genl.Request) error {
	var c abi.Crypto
	defer func() { c.Wipe() }()
	if err := decode(r, &c); err != nil {
		return err
	}
	return d.plane.Crypto(&c)
}

func (d *Door) addRule(r *genl.Request) error { return changeRule(r, d.plane.AddRule) }
func (d *Door) delRule(r *genl.Request) error { return changeRule(r, d.plane.DelRule) }

func changeRule(r *genl.Request, change func(string, abi.Rule) error) error {
	var n abi.NodeRules
	if err := decode(r, &n); err != nil {
		return err
	}
	if len(n.Rules) != 1 {
		return abi.BlameNth(abi.AttrNodeRule, 1, fmt.Errorf("one rule a request: %w", unix.EINVAL))
	}
	return change(n.Name, n.Rules[0])
}

func (d *Door) subscribe(r *genl.Request) error { return d.srv.Subscribe(r.Port, nil) }

func (d *Door) unsubscribe(r *genl.Request) error {
	if !d.srv.Unsubscribe(r.Port) {
		return fmt.Errorf("this socket is not subscribed: %w", unix.ENOENT)
	}
	return nil
}
