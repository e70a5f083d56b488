package controlplane

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

// What one message has room for, however long their texts are.
const (
	maxSessions = 128 // of a node in an answer of GET
	maxRules    = 256 // of a node in an answer of GET, and of a row of SECURITY_GET
)

func (d *Door) get(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	found, err := d.plane.Get(n.Name)
	if err != nil {
		return err
	}
	return r.Reply(cut(found).Encode)
}

func (d *Door) dumpNodes(r *genl.Request) error {
	return d.each(func(name string) error {
		n, err := d.plane.Get(name)
		if err != nil {
			return err
		}
		return r.Reply(cut(n).Encode)
	})
}

// cut makes n fit a message and says what it left out.
func cut(n *abi.Node) *abi.Node {
	s := n.Status
	if s == nil || len(s.Sessions) <= maxSessions && len(s.Rules) <= maxRules {
		return n
	}
	fit, status := *n, *s
	fit.Status = &status
	if more := len(s.Sessions) - maxSessions; more > 0 {
		status.Sessions = s.Sessions[:maxSessions]
		status.Warnings = append(status.Warnings[:len(s.Warnings):len(s.Warnings)], fmt.Sprintf("%d more sessions are not shown", more))
	}
	if more := len(s.Rules) - maxRules; more > 0 {
		status.Rules = s.Rules[:maxRules]
		status.Warnings = append(status.Warnings[:len(status.Warnings):len(status.Warnings)], fmt.Sprintf("%d more rules are not shown here: list the security rules", more))
	}
	return &fit
}

// each calls f for every node; one that is removed meanwhile is passed over.
func (d *Door) each(f func(name string) error) error {
	for _, name := range d.plane.Names() {
		if err := f(name); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

func (d *Door) dumpRules(r *genl.Request) error {
	var req abi.Node
	if err := decode(r, &req); err != nil {
		return err
	}
	rows := func(name string) error {
		n, err := d.plane.Get(name)
		switch {
		case err != nil:
			return err
		case n.Kind != abi.KindExport && req.Name != "":
			return abi.Blame(abi.AttrNodeName, fmt.Errorf("%s is a remote: only exports have security rules: %w", name, unix.EINVAL))
		case n.Kind != abi.KindExport || n.Status == nil:
			return nil
		}
		for rules := n.Status.Rules; ; rules = rules[maxRules:] {
			part := abi.NodeRules{Name: name, Rules: rules[:min(len(rules), maxRules)]}
			if err := r.Reply(part.Encode); err != nil || len(rules) <= maxRules {
				return err
			}
		}
	}
	if req.Name != "" {
		return located(r, rows(req.Name))
	}
	return d.each(rows)
}

func (d *Door) stats(r *genl.Request) error {
	var n abi.Node
	if err := decode(r, &n); err != nil {
		return err
	}
	return d.replyStats(r, n.Name)
}

func (d *Door) dumpStats(r *genl.Request) error {
	return d.each(func(name string) error { return d.replyStats(r, name) })
}

func (d *Door) replyStats(r *genl.Request, name string) error {
	c, err := d.plane.Stats(name)
	if err != nil {
		return err
	}
	return r.Reply((&abi.NodeStats{Name: name, Counters: *c}).Encode)
}

func (d *Door) sys(r *genl.Request) error {
	s := d.plane.Sys()
	s.Subscribers = uint32(d.srv.Counts().Subscribers)
	return r.Reply(s.Encode)
}
