package controlplane

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// fakePlane is a Plane that only remembers. What it refuses it blames as the
// real one does; what else that one refuses is tested there.
type fakePlane struct {
	mu     sync.Mutex
	names  []string
	nodes  map[string]*abi.Node
	keys   [][]byte // as Crypto got them: erased later
	copies [][]byte // what they were
	slow   chan struct{}
	sys    abi.Sys
	pad    string // reason of every node, to make rows large
}

func newFake() *fakePlane {
	return &fakePlane{nodes: map[string]*abi.Node{}, sys: abi.Sys{Version: "test", PID: 42, Uptime: 1000}}
}

func (p *fakePlane) add(n *abi.Node, kind abi.Kind) error {
	if err := abi.ValidName(n.Name); err != nil {
		return abi.Blame(abi.AttrNodeName, err)
	}
	n.Kind = kind
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes[n.Name] != nil {
		return abi.Blame(abi.AttrNodeName, fmt.Errorf("node %q exists: choose another name: %w", n.Name, unix.EEXIST))
	}
	n.Status = &abi.Status{Reason: p.pad}
	if n.Flags&abi.NodeFlagStarted != 0 {
		n.Status.State = abi.StateConnecting
	}
	p.names = append(p.names, n.Name)
	p.nodes[n.Name] = n
	return nil
}

func (p *fakePlane) with(name string, f func(*abi.Node) error) error {
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	if slow != nil {
		<-slow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[name]
	if n == nil {
		return abi.Blame(abi.AttrNodeName, fmt.Errorf("no node %q: dstctl show lists them: %w", name, unix.ENODEV))
	}
	return f(n)
}

func (p *fakePlane) AddRemote(n *abi.Node) error { return p.add(n, abi.KindRemote) }

func (p *fakePlane) AddExport(n *abi.Node) error {
	for i, a := range n.Addrs {
		if a.Path() == "/in/use" {
			return abi.BlameNth(abi.AttrNodeAddress, i, fmt.Errorf("%v is in use: choose another address: %w", a, unix.EADDRINUSE))
		}
	}
	return p.add(n, abi.KindExport)
}

func (p *fakePlane) Del(name string, force bool) error {
	return p.with(name, func(n *abi.Node) error {
		if n.Status.State != abi.StateConfigured && !force {
			return fmt.Errorf("%s is held by its session: end it, or use force: %w", name, unix.EBUSY)
		}
		delete(p.nodes, name)
		p.names = slices.DeleteFunc(p.names, func(s string) bool { return s == name })
		return nil
	})
}

func (p *fakePlane) Steal(name string) error {
	return p.with(name, func(n *abi.Node) error {
		n.Flags |= abi.NodeFlagStarted | abi.NodeFlagSteal
		return nil
	})
}

func (p *fakePlane) Start(name string) error {
	return p.with(name, func(n *abi.Node) error {
		n.Status.State = abi.StateServing
		return nil
	})
}

func (p *fakePlane) Set(n *abi.Node) error {
	return p.with(n.Name, func(have *abi.Node) error {
		have.Flags = have.Flags&^n.Mask | n.Flags
		if n.Knobs.Keepalive != nil {
			have.Knobs.Keepalive = n.Knobs.Keepalive
		}
		return nil
	})
}

func (p *fakePlane) Crypto(c *abi.Crypto) error {
	return p.with(c.Name, func(*abi.Node) error {
		p.keys = append(p.keys, c.CipherKey, c.HashKey)
		p.copies = append(p.copies, bytes.Clone(c.CipherKey), bytes.Clone(c.HashKey))
		if c.Cipher == "rot13" {
			return fmt.Errorf("cipher %q is not known: %w", c.Cipher, unix.ENOENT)
		}
		return nil
	})
}

func (p *fakePlane) AddRule(name string, r abi.Rule) error {
	return p.with(name, func(n *abi.Node) error {
		n.Status.Rules = append(n.Status.Rules, r)
		return nil
	})
}

func (p *fakePlane) DelRule(name string, r abi.Rule) error {
	return p.with(name, func(n *abi.Node) error {
		for i, have := range n.Status.Rules {
			if have.Kind == r.Kind && have.Prefix == r.Prefix {
				n.Status.Rules = slices.Delete(n.Status.Rules, i, i+1)
				return nil
			}
		}
		return fmt.Errorf("%s has no such rule: %w", name, unix.ENOENT)
	})
}

func (p *fakePlane) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.names)
}

func (p *fakePlane) Get(name string) (got *abi.Node, err error) {
	err = p.with(name, func(n *abi.Node) error {
		cp, status := *n, *n.Status
		cp.Status = &status
		status.Rules = slices.Clone(status.Rules)
		got = &cp
		return nil
	})
	return got, err
}

func (p *fakePlane) Stats(name string) (*abi.Counters, error) {
	err := p.with(name, func(*abi.Node) error { return nil })
	return &abi.Counters{Reads: 7, WrittenBytes: 1 << 40}, err
}

func (p *fakePlane) Sys() abi.Sys {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sys.Uptime += uint64(time.Millisecond)
	p.sys.Nodes = uint32(len(p.names))
	return p.sys
}
