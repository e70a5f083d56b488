package client

import (
	"context"

	"dst/abi"
)

// AddRemote adds a node whose storage is elsewhere. It contacts nobody; with
// NodeFlagStarted it starts the node too. Errors: EEXIST, EINVAL.
func (c *Client) AddRemote(ctx context.Context, n *abi.Node) error {
	return c.add(ctx, abi.CmdAddRemote, n)
}

// AddExport adds a node that offers local storage: opens it, binds and listens.
// Errors: EEXIST, EINVAL, EADDRINUSE, those of opening the store.
func (c *Client) AddExport(ctx context.Context, n *abi.Node) error {
	return c.add(ctx, abi.CmdAddExport, n)
}

// add sends n without its kind, which the command says.
func (c *Client) add(ctx context.Context, cmd uint8, n *abi.Node) error {
	m := *n
	m.Kind = 0
	return c.act(ctx, cmd, &m)
}

// Del removes a node. Errors: ENODEV; EBUSY, naming who, while it is in use and
// force is false.
func (c *Client) Del(ctx context.Context, name string, force bool) error {
	d := abi.Del{Name: name}
	if force {
		d.Flags = abi.DelFlagForce
	}
	return c.act(ctx, abi.CmdDelNode, &d)
}

// Start starts a node and does not wait for its peer. Errors: ENODEV; EINVAL
// for an export without a rule.
func (c *Client) Start(ctx context.Context, name string) error {
	return c.act(ctx, abi.CmdStart, &abi.Node{Name: name})
}

// Steal starts a remote that takes the read-write place at its export from a
// client that lives: that one fails. For the administrator to decide.
func (c *Client) Steal(ctx context.Context, name string) error {
	return c.act(ctx, abi.CmdStart, &abi.Node{Name: name, Flags: abi.NodeFlagSteal})
}

// Set changes what may change while a node lives: knobs that are not nil, and
// the flags in n.Mask. Errors: ENODEV, EINVAL.
func (c *Client) Set(ctx context.Context, n *abi.Node) error {
	return c.act(ctx, abi.CmdSet, n)
}

// Crypto changes digest and keys of a node, as k.Op says. What was sent is erased;
// k is the caller's to wipe. Better than the bytes of a key is the path of its
// file; before bytes are sent the daemon is asked once more who it is. Errors:
// ENODEV, EINVAL, ENOENT, EACCES, EEXIST, EBUSY, EOPNOTSUPP.
func (c *Client) Crypto(ctx context.Context, k *abi.Crypto) error {
	if len(k.CipherKey)+len(k.HashKey) > 0 {
		if err := c.findFamily(ctx); err != nil {
			return err
		}
	}
	return c.act(ctx, abi.CmdCrypto, k)
}

// AddRule adds a security rule to an export, or changes the permission of an
// equal one. Errors: ENODEV, EINVAL.
func (c *Client) AddRule(ctx context.Context, name string, r abi.Rule) error {
	return c.act(ctx, abi.CmdSecurity, &abi.NodeRules{Name: name, Rules: []abi.Rule{r}})
}

// DelRule removes a security rule. Errors: ENODEV, ENOENT, EINVAL.
func (c *Client) DelRule(ctx context.Context, name string, r abi.Rule) error {
	return c.act(ctx, abi.CmdSecurityDel, &abi.NodeRules{Name: name, Rules: []abi.Rule{r}})
}

// Rules lists the security rules of one export, or of all if name is "": one
// element for each export, in the order of the daemon. Errors: ENODEV.
func (c *Client) Rules(ctx context.Context, name string) ([]*abi.NodeRules, error) {
	rows, err := list[abi.NodeRules](ctx, c, abi.CmdSecurityGet, &abi.NodeRules{Name: name})
	if err != nil {
		return nil, err
	}
	all := rows[:0]
	for _, r := range rows { // the rules of one export may come in several rows
		if n := len(all); n > 0 && all[n-1].Name == r.Name {
			all[n-1].Rules = append(all[n-1].Rules, r.Rules...)
			continue
		}
		all = append(all, r)
	}
	return all, nil
}

// Get is one node, configuration and state. Errors: ENODEV.
func (c *Client) Get(ctx context.Context, name string) (*abi.Node, error) {
	n := new(abi.Node)
	if err := c.ask(ctx, abi.CmdGet, &abi.Node{Name: name}, n); err != nil {
		return nil, err
	}
	return n, nil
}

// List is all nodes.
func (c *Client) List(ctx context.Context) ([]*abi.Node, error) {
	return list[abi.Node](ctx, c, abi.CmdGet, nil)
}

// Stats are the counters of one node. Errors: ENODEV.
func (c *Client) Stats(ctx context.Context, name string) (*abi.Counters, error) {
	var s abi.NodeStats
	if err := c.ask(ctx, abi.CmdStats, &abi.Node{Name: name}, &s); err != nil {
		return nil, err
	}
	return &s.Counters, nil
}

// ListStats are the counters of all nodes.
func (c *Client) ListStats(ctx context.Context) ([]*abi.NodeStats, error) {
	return list[abi.NodeStats](ctx, c, abi.CmdStats, nil)
}

// Sys is the daemon itself.
func (c *Client) Sys(ctx context.Context) (*abi.Sys, error) {
	s := new(abi.Sys)
	if err := c.ask(ctx, abi.CmdSys, nil, s); err != nil {
		return nil, err
	}
	return s, nil
}
