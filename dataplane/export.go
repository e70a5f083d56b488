package dataplane

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/export"
)

// exportNode is an export under its name.
type exportNode struct {
	conf     abi.Node
	node     *export.Node
	digest   crypt.Digest // without keys
	ring     *keyring
	writable bool // the store was opened for writing
	started  bool
}

// exportFlags are the flags that an export knows.
const exportFlags = abi.NodeFlagReadOnly | abi.NodeFlagShared | abi.NodeFlagWritethrough | abi.NodeFlagDirect | abi.NodeFlagBuffered |
	abi.NodeFlagRequireCrypto

func (p *Plane) newExport(n *abi.Node) (node, error) {
	e := &exportNode{conf: *n}
	e.conf.Default, e.conf.Status = nil, nil
	e.conf.Flags &^= abi.NodeFlagStarted
	if err := e.check(); err != nil {
		return nil, err
	}
	var err error
	if e.digest, err = crypt.ParseDigest(orDefault(n.Hash, defaultHash)); err != nil {
		return nil, abi.Blame(abi.AttrNodeHash, err)
	}
	if e.ring, err = p.run.keyring(n); err != nil {
		return nil, err
	}
	k := knobsOf(n)
	// Remembered with a mask it is read-only by set, which can be taken back.
	flags := e.conf.Flags &^ (n.Mask & abi.NodeFlagReadOnly)
	e.conf.Mask, e.writable = 0, flags&abi.NodeFlagReadOnly == 0
	e.node, err = export.New(export.Config{
		Name: n.Name, Device: n.Device, Listen: n.Addrs, Size: n.Size, Flags: flags,
		MaxPages: k.maxPages, Depth: k.depth, Workers: k.workers, Arena: k.arena,
		Keepalive: k.keepalive, Digest: e.digest, StateDir: p.cfg.StateDir,
		Keys: e.ring.keys, RequireCrypto: n.Flags&abi.NodeFlagRequireCrypto != 0,
		Remembered: n.Flags&abi.NodeFlagStarted != 0,
	}, export.Env{Budget: p.budget, Ports: p.ports, Log: p.cfg.Log, Notify: p.cfg.Notify})
	if err != nil {
		e.ring.wipe()
		return nil, err
	}
	e.node.SetThreads(int(k.threads))
	if readOnly := e.conf.Flags != flags; readOnly {
		_ = e.node.Set(nil, nil, &readOnly) // only the way back can be refused
	}
	return e, nil
}

// check refuses what could never work.
func (e *exportNode) check() error {
	c := &e.conf
	switch {
	case !filepath.IsAbs(c.Device):
		return abi.Blame(abi.AttrNodeDevice, fmt.Errorf("export %q needs the absolute path of a file or block device, not %q: %w", c.Name, c.Device, unix.EINVAL))
	case len(c.Addrs) == 0:
		return abi.Blame(abi.AttrNodeAddress, fmt.Errorf("export %q has no address to listen on: give one: %w", c.Name, unix.EDESTADDRREQ))
	case c.Flags&^exportFlags != 0:
		return wrong(abi.AttrNodeFlags, "an export does not know the flags %v: leave them out", c.Flags&^exportFlags)
	case c.Flags&abi.NodeFlagDirect != 0 && c.Flags&abi.NodeFlagBuffered != 0:
		return wrong(abi.AttrNodeFlags, "direct and buffered exclude each other: give one")
	}
	return checkNode(c)
}

func (e *exportNode) start() error {
	if err := e.node.Start(); err != nil {
		return abi.Blame(abi.AttrNodeName, err)
	}
	e.started = true
	return nil
}

func (e *exportNode) launch() {} // start serves: what fails then must be known

func (e *exportNode) remove(force bool) error {
	err := e.node.Close(force)
	if err == nil {
		e.ring.wipe()
	}
	return abi.Blame(abi.AttrNodeName, err)
}

func (e *exportNode) stop() {
	_ = e.node.Close(true)
	e.ring.wipe()
}

func (e *exportNode) set(n *abi.Node) error {
	k := &n.Knobs
	switch {
	case k.RequestTimeout != nil:
		return wrong(abi.AttrNodeRequestTimeout, "request-timeout belongs to remotes: leave it out")
	case k.FailAfter != nil:
		return wrong(abi.AttrNodeFailAfter, "fail-after belongs to remotes: leave it out")
	case k.LogAge != nil:
		return wrong(abi.AttrNodeLogAge, "log-age belongs to remotes: leave it out")
	case n.Size != 0 && n.Mask != 0:
		return wrong(abi.AttrNodeSize, "a size changes in a request of its own: give read-only in another")
	}
	conf := e.conf
	merge(&conf.Knobs, k)
	conf.Flags = conf.Flags&^n.Mask | n.Flags&n.Mask
	if n.Size != 0 {
		if conf.Size = n.Size; conf.Size == abi.SizeAll {
			conf.Size = 0
		}
		if err := e.node.Resize(conf.Size); err != nil {
			return abi.Blame(abi.AttrNodeSize, err)
		}
		e.conf.Size = conf.Size
	}
	now := knobsOf(&conf)
	readOnly := conf.Flags&abi.NodeFlagReadOnly != 0
	if err := e.node.Set(&now.keepalive, &now.workers, &readOnly); err != nil {
		return abi.Blame(abi.AttrNodeFlagsMask, err) // of a store that can only be read
	}
	e.conf = conf
	return nil
}

func (e *exportNode) crypto(ch *cryptoChange) error {
	if ch.plain != "" && e.conf.Flags&abi.NodeFlagRequireCrypto != 0 {
		return abi.Blame(abi.AttrCryptoHash, fmt.Errorf("export %q requires crypto: give it a key: %w", e.conf.Name, unix.EACCES))
	}
	err := e.ring.change(ch, func(keys []*crypt.Key) error {
		return abi.Blame(abi.AttrCryptoName, e.node.SetKeys(keys))
	})
	if err != nil {
		return err
	}
	if ch.plain != "" {
		e.node.SetDigest(ch.digest)
		e.digest, e.conf.Hash = ch.digest, ch.plain
	}
	if ch.threads != nil {
		e.conf.Knobs.CryptoThreads = ch.threads
		e.node.SetThreads(int(*ch.threads))
	}
	return nil
}

func (e *exportNode) rule(r abi.Rule, add bool) error {
	change := e.node.DelRule
	if add {
		change = e.node.AddRule
	}
	return abi.Blame(abi.AttrNodeRule, change(r))
}

func (e *exportNode) config() *abi.Node {
	n := e.conf
	if e.writable {
		n.Mask = n.Flags & abi.NodeFlagReadOnly
	}
	n.Status = &abi.Status{Rules: e.node.Rules(), Keys: e.ring.shown()}
	if e.started {
		n.Flags |= abi.NodeFlagStarted
	}
	return &n
}

func (e *exportNode) get() *abi.Node {
	n := e.config()
	n.Mask = 0
	fillKnobs(n)
	n.Size = e.node.Size()
	n.Status = e.node.Status()
	e.ring.describe(n, e.digest)
	return n
}

func (e *exportNode) stats() *abi.Counters { return e.node.Counters() }
