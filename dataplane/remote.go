package dataplane

import (
	"crypto/rand"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/remote"
	"dst/dataplane/trans"
)

// remoteNode joins a remote to the front that offers it on this host. Before
// its start it is a checked configuration and nothing else.
type remoteNode struct {
	plane  *Plane
	conf   abi.Node
	digest crypt.Digest // without a key
	ring   *keyring
	page   []byte

	link   *remote.Node // nil until started
	memory *trans.Memory
	front  atomic.Pointer[front] // nil until the device's shape is known
	ending atomic.Bool           // set before the front is looked for to be hung up
	quit   chan struct{}         // closed with it

	sizing  sync.Mutex            // held while the front learns the device's size
	work    sync.WaitGroup        // those who do so on their own
	behind  atomic.Pointer[error] // why the front did not take a size
	trouble atomic.Pointer[error] // what keeps the kernel device from being served
}

func (p *Plane) newRemote(n *abi.Node) (node, error) {
	r := &remoteNode{plane: p, conf: *n, quit: make(chan struct{})}
	r.conf.Default, r.conf.Status = nil, nil
	r.conf.Flags &^= abi.NodeFlagStarted
	if n.Attach == 0 {
		r.conf.Attach = abi.AttachNbd
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var err error
	if r.digest, err = crypt.ParseDigest(orDefault(n.Hash, defaultHash)); err != nil {
		return nil, abi.Blame(abi.AttrNodeHash, err)
	}
	if r.ring, err = p.run.keyring(n); err != nil {
		return nil, err
	}
	if err = p.claim(n.Socket, n.Name); err != nil {
		r.ring.wipe()
		return nil, abi.Blame(abi.AttrNodeSocket, err)
	}
	if r.page, err = p.run.page(n.Name); err != nil {
		p.release(n.Socket)
		r.ring.wipe()
		return nil, err
	}
	return r, nil
}

// remoteFlags are the flags that a remote knows.
const remoteFlags = abi.NodeFlagReadOnly | abi.NodeFlagNoPartscan | abi.NodeFlagSole

// check refuses what could never work.
func (r *remoteNode) check() error {
	c := &r.conf
	switch {
	case len(c.Addrs) == 0:
		return abi.Blame(abi.AttrNodeAddress, fmt.Errorf("remote %q has no peer: give its address: %w", c.Name, unix.EDESTADDRREQ))
	case c.Export != "" && abi.ValidName(c.Export) != nil:
		return abi.Blame(abi.AttrNodeExport, abi.ValidName(c.Export))
	case c.Export != "" && c.Flags&abi.NodeFlagSole != 0:
		return wrong(abi.AttrNodeExport, "the flag sole means whatever single export the peer has: leave out either it or the name")
	case c.Attach == abi.AttachSocket && c.Socket == "":
		return wrong(abi.AttrNodeAttach, "attach socket needs the path of the socket: give one")
	case c.Attach != abi.AttachSocket && c.Socket != "":
		return wrong(abi.AttrNodeSocket, "a socket path goes with attach socket only: leave it out")
	case c.Attach == abi.AttachSocket && !filepath.IsAbs(c.Socket):
		return wrong(abi.AttrNodeSocket, "socket %q: write an absolute path", c.Socket)
	case c.Flags&^remoteFlags != 0:
		return wrong(abi.AttrNodeFlags, "a remote does not know the flags %v: leave them out", c.Flags&^remoteFlags)
	case c.Attach != abi.AttachNbd && c.Flags&abi.NodeFlagNoPartscan != 0:
		return wrong(abi.AttrNodeFlags, "partscan goes with the kernel device (attach nbd) only: leave it out")
	}
	if err := checkNode(c); err != nil || c.Attach != abi.AttachSocket {
		return err
	}
	return r.checkSocket()
}

// checkSocket finds out now what would fail at the first WELCOME.
func (r *remoteNode) checkSocket() error {
	if info, err := os.Stat(filepath.Dir(r.conf.Socket)); err != nil || !info.IsDir() {
		return abi.Blame(abi.AttrNodeSocket, fmt.Errorf("socket %s: its directory does not exist: make it first: %w", r.conf.Socket, unix.ENOENT))
	}
	if err := conn.SafeWay(filepath.Dir(r.conf.Socket)); err != nil {
		return abi.Blame(abi.AttrNodeSocket, fmt.Errorf("socket %s: %w", r.conf.Socket, err))
	}
	if info, err := os.Lstat(r.conf.Socket); err == nil && info.Mode().Type() != os.ModeSocket {
		return abi.Blame(abi.AttrNodeSocket, fmt.Errorf("socket %s: something else is there: remove it or choose another path: %w", r.conf.Socket, unix.EEXIST))
	}
	return nil
}

func (r *remoteNode) start() error {
	if r.link != nil {
		return nil
	}
	if r.conf.Attach == abi.AttachNbd { // else the link would fail with it later
		if _, err := r.plane.kernel(); err != nil {
			return abi.Blame(abi.AttrNodeAttach, err)
		}
	}
	k := knobsOf(&r.conf)
	maxSize := k.maxPages * pageSize
	id, known := remote.Attachment(r.page)
	if !known {
		_, _ = rand.Read(id[:])
	}
	memory, err := r.plane.run.memory(r.conf.Name, r.plane.budget, trans.Sizes{
		Guaranteed: int(max(arenaGuaranteed, uint64(maxSize))), Limit: int(max(k.arena, uint64(maxSize))), Largest: int(maxSize),
		Depth: int(k.depth) + remote.OwnDepth,
	}, id, r.plane.cfg.Log)
	if err != nil {
		return fmt.Errorf("remote %q: %w", r.conf.Name, err)
	}
	r.link, err = remote.New(remote.Config{
		Name: r.conf.Name, Export: r.export(), Peers: r.conf.Addrs,
		ReadOnly: r.conf.Flags&abi.NodeFlagReadOnly != 0, Size: r.conf.Size,
		MaxSize: maxSize, Depth: k.depth, Keepalive: k.keepalive, RequestTimeout: k.requestTimeout,
		FailAfter: k.failAfter, LogAge: k.logAge, Digest: r.digest, Key: r.ring.only(), Page: r.page, Memory: memory, ClientID: id,
		Resent: r.conf.Attach == abi.AttachNbd,
	}, remote.Env{
		Log: r.plane.cfg.Log, Notify: r.notify, Dial: remote.DialSocket, Up: r.up,
	})
	if err != nil {
		r.link = nil
		_ = memory.Close()
		return fmt.Errorf("remote %q: %w", r.conf.Name, err)
	}
	r.memory = memory
	r.link.SetThreads(int(k.threads))
	return nil
}

// launch lets a started node connect.
func (r *remoteNode) launch() {
	if r.link != nil {
		r.link.Start()
	}
}

// steal starts it if need be, to take the place from whoever has it.
func (r *remoteNode) steal() error {
	if err := r.start(); err != nil {
		return err
	}
	r.link.Steal()
	return nil
}

// export is the name to ask the peer for; "" is whatever single one it has.
func (r *remoteNode) export() string {
	if r.conf.Flags&abi.NodeFlagSole != 0 {
		return ""
	}
	return orDefault(r.conf.Export, r.conf.Name)
}

// up offers the device on this host: its shape is known now. Called once, by
// the link's goroutine; for a device that was left it may take as long as the
// node lives. One that missed a change of the size hears of it when the link is
// up (resize).
func (r *remoteNode) up(remote.Info) error {
	f, err := r.newFront(r.link)
	if err != nil && r.ending.Load() {
		return nil // it was ended in the midst of it: no failure
	}
	if err != nil || f == nil {
		return err
	}
	r.front.Store(&f)
	if r.ending.Load() { // the link will answer that it ends: nobody is to hear that
		f.Hangup()
	}
	return nil
}

// hindered notes what keeps the kernel device from being served; nil: nothing.
func (r *remoteNode) hindered(err error) {
	if err == nil {
		r.trouble.Store(nil)
		return
	}
	r.trouble.Store(&err)
}

// remove ends the node and its device. Unless force, EBUSY, naming who has it or
// what would be lost.
func (r *remoteNode) remove(force bool) error {
	if err := r.release(force); err != nil {
		return abi.Blame(abi.AttrNodeName, err)
	}
	r.end((*remote.Node).Close)
	if left := r.plane.leftover(&r.conf, r.page); left != nil { // it came up meanwhile
		if err := left.release(true); err != nil {
			r.plane.cfg.Log.Error().Err(err).Str("node", r.conf.Name).Str("device", left.path).Msg("kernel device stays behind")
		}
	}
	_ = unix.Munmap(r.page)
	r.ring.wipe()
	return nil
}

// release frees the device; without force nobody has it, and all is durable.
func (r *remoteNode) release(force bool) error {
	f := r.front.Load()
	if f != nil {
		if err := (*f).release(force); err != nil {
			return err
		}
	}
	if !force { // the kernel's device was flushed, through its cache
		if err := r.durable(); err != nil {
			return err
		}
	}
	if f != nil {
		if s, ok := (*f).(socketFront); ok { // somebody may have come meanwhile
			return s.release(force)
		}
		return nil
	}
	err := r.plane.leftover(&r.conf, r.page).release(force)
	if f = r.front.Load(); err != nil && f != nil { // the device came up meanwhile
		return (*f).release(force)
	}
	return err
}

// stop ends service for this daemon. Clients of a socket see their connection
// end and no error; a kernel device waits for the next daemon, and so does the
// place at the export.
func (r *remoteNode) stop() {
	r.end((*remote.Node).Stop)
	_ = unix.Munmap(r.page)
	r.ring.wipe()
}

// end ends the front's and the link's service: the link gives every transaction
// back, which the front waits for. leave is how the link ends.
func (r *remoteNode) end(leave func(*remote.Node)) {
	if r.link != nil {
		r.ending.Store(true)
		close(r.quit)
		if f := r.front.Load(); f != nil {
			r.sizing.Lock() // who comes later sees the end
			err := (*f).Calm()
			r.sizing.Unlock()
			if err != nil {
				r.plane.cfg.Log.Error().Err(err).Str("node", r.conf.Name).Msg("the daemon ends while the kernel waits")
			}
			(*f).Hangup()
		}
		leave(r.link)
		if f := r.front.Load(); f != nil {
			(*f).Close()
		}
		r.work.Wait()
		if err := r.memory.Close(); err != nil {
			r.plane.cfg.Log.Error().Err(err).Str("node", r.conf.Name).Msg("payload memory is still in use")
		}
	}
	r.plane.release(r.conf.Socket)
}

func (r *remoteNode) set(n *abi.Node) error {
	switch {
	case n.Knobs.Workers != nil:
		return wrong(abi.AttrNodeWorkers, "workers belong to exports: leave them out")
	case n.Mask != 0:
		return wrong(abi.AttrNodeFlagsMask, "no flag of a remote can change: remove it and add it again")
	}
	if n.Size != 0 {
		if err := r.setSize(n.Size); err != nil {
			return abi.Blame(abi.AttrNodeSize, err)
		}
	}
	merge(&r.conf.Knobs, &n.Knobs)
	if r.link != nil {
		k := knobsOf(&r.conf)
		r.link.Set(&k.keepalive, &k.requestTimeout, &k.failAfter, &k.logAge)
	}
	return nil
}

func (r *remoteNode) crypto(ch *cryptoChange) error {
	switch {
	case ch.op != abi.CryptoOpSet:
		return abi.Blame(abi.AttrCryptoOp, fmt.Errorf("node %q is a remote, which has one key: set it: %w", r.conf.Name, unix.EOPNOTSUPP))
	case ch.plain != "" && ch.digest != r.digest && r.link != nil:
		return abi.Blame(abi.AttrCryptoHash, fmt.Errorf("node %q is started with %s, its digest stays: remove it and add it again: %w", r.conf.Name, r.digest.Name(), unix.EBUSY))
	}
	err := r.ring.change(ch, func(keys []*crypt.Key) error {
		if r.link == nil {
			return nil
		}
		return r.link.SetKey(first(keys))
	})
	if err != nil {
		return err
	}
	if ch.plain != "" {
		r.digest, r.conf.Hash = ch.digest, ch.plain
	}
	if ch.threads != nil {
		r.conf.Knobs.CryptoThreads = ch.threads
		if r.link != nil {
			r.link.SetThreads(int(*ch.threads))
		}
	}
	return nil
}

func (r *remoteNode) rule(abi.Rule, bool) error {
	return abi.Blame(abi.AttrNodeName, fmt.Errorf("node %q is a remote: security rules belong to exports: %w", r.conf.Name, unix.EOPNOTSUPP))
}

func (r *remoteNode) config() *abi.Node {
	n := r.conf
	n.Status = &abi.Status{Keys: r.ring.shown()}
	if r.link != nil {
		n.Flags |= abi.NodeFlagStarted
	}
	return &n
}

func (r *remoteNode) get() *abi.Node {
	n := r.config()
	n.Export = r.export()
	fillKnobs(n)
	if r.link == nil {
		n.Status.State = abi.StateConfigured
		r.ring.describe(n, r.digest)
		return n
	}
	if n.Status = r.link.Status(); n.Status.State == abi.StateConfigured { // it is about to
		n.Status.State = abi.StateConnecting
	}
	n.Status.Keys = r.ring.shown()
	if i, ok := r.link.Info(); ok {
		n.Size = i.Size
	}
	if f := r.front.Load(); f != nil {
		(*f).describe(n.Status)
		n.Status.Warnings = append(n.Status.Warnings, r.lag(*f, n.Size)...)
	} else {
		r.plane.leftover(&r.conf, r.page).describe(n.Status)
	}
	if why := r.trouble.Load(); why != nil {
		n.Status.Warnings = append(n.Status.Warnings, fmt.Sprintf("the kernel device is not served (tried again): %v", *why))
	}
	r.ring.describe(n, r.digest)
	return n
}

func (r *remoteNode) stats() *abi.Counters {
	if r.link == nil {
		return new(abi.Counters)
	}
	return r.link.Counters()
}

// milliseconds is d for the ABI.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(d.Milliseconds(), math.MaxUint32))
}
