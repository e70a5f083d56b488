package nbd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dst/dataplane/conn"
	"dst/dataplane/mempool"
)

const (
	blockLeast = 512  // block sizes that every kernel takes, bytes
	blockMost  = 4096 // the least page size

	takeTime  = 5 * time.Second        // to put a new socket in the place of a dead one
	pauseMost = 500 * time.Millisecond // between two tries
)

// Attach makes the device of c appear: the one that bears c.Backend already,
// left by a daemon that died or stopped, or a free one. It does not wait for
// the device's I/O, which may be impossible yet. When it returns, the node is
// there, its queue set up, and the link leads to it. A device that was left
// keeps its size: see Size.
//
// One that was left may be mounted, and nothing but a daemon that serves it makes
// it answer again: what may pass is tried again until c.Stop is closed, and what
// is in the link's place does no more than that there is no link, see Plain.
//
// Errors, each a sentence: EINVAL for a block size or a size that the kernel
// can not have, EEXIST for something else in the link's place, EBUSY if another
// process serves the device that bears the backend, ENOSPC, EPERM, ETIMEDOUT
// and what else the kernel says.
func (d *Driver) Attach(c DiskConfig) (k *Disk, err error) {
	for pause := lookTime; ; pause = min(2*pause, pauseMost) {
		_, left := d.host.find(c.Backend)
		if k, err = d.attach(&c); err == nil {
			c.trouble(nil)
			return k, nil
		}
		err = fmt.Errorf("attach %s: %w", c.Name, err)
		if !left || c.Stop == nil || !passing(err) {
			return nil, err
		}
		c.trouble(err)
		select {
		case <-c.Stop:
			return nil, err
		case <-time.After(pause):
		}
	}
}

func (d *Driver) attach(c *DiskConfig) (*Disk, error) {
	info := c.Info()
	if err := d.check(c, &info); err != nil {
		return nil, err
	}
	buf, err := mempool.Pages(bufferSize)
	if err != nil {
		return nil, err
	}
	k := &Disk{d: d, c: *c, block: uint64(info.BlockMin), stop: make(chan struct{})}
	sock, left, err := k.appear(&info)
	if err != nil {
		mempool.FreePages(buf)
		return nil, err
	}
	k.running.Go(func() { k.serve(sock, buf) })
	k.settle(left)
	return k, nil
}

// trouble tells what keeps the device from being served, and logs it once.
func (c *DiskConfig) trouble(err error) {
	if text := fmt.Sprint(err); err != nil && text != c.said {
		c.said = text
		c.Log.Warn().Err(err).Str("node", c.Name).Msg("a device is not served, it is tried again")
	}
	if c.Trouble != nil {
		c.Trouble(err)
	}
}

// passing tells whether what err says may be over at another try: the kernel or
// another process is busy, or something is short.
func passing(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	switch errno {
	case unix.EBUSY, unix.ETIMEDOUT, unix.EAGAIN, unix.EINTR, unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE:
		return true
	}
	return false
}

// check refuses what can not become a device.
func (d *Driver) check(c *DiskConfig, info *Info) error {
	switch b := info.BlockMin; {
	case b < blockLeast || b > blockMost || b&(b-1) != 0:
		return fmt.Errorf("blocks of %d bytes: the kernel has devices with 512 to 4096, use attach socket PATH: %w", b, unix.EINVAL)
	case info.Size < uint64(b):
		return fmt.Errorf("%d bytes are less than one block of %d: %w", info.Size, b, unix.EINVAL)
	case info.Size > math.MaxInt64:
		return fmt.Errorf("%d bytes are more than a device can have: %w", info.Size, unix.EINVAL)
	case c.Backend == "" || strings.ContainsAny(c.Backend, "\n\x00"):
		return fmt.Errorf("backend identifier %q: %w", c.Backend, unix.EINVAL)
	case c.Link != "" && !filepath.IsAbs(c.Link):
		return fmt.Errorf("device link %q: an absolute path is needed: %w", c.Link, unix.EINVAL)
	}
	if _, left := d.host.find(c.Backend); left {
		return nil
	}
	return d.host.checkLink(c.Link, c.Backend)
}

// appear takes the device over that was left, or makes one.
func (k *Disk) appear(info *Info) (sock *conn.Sock, left bool, err error) {
	d, h := k.d, &k.d.host
	if k.index, left = h.find(k.c.Backend); left {
		sock, err = d.takeOver(k.index, k.c.Backend, nil)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) { // freed: it may be going
			if left = !d.awaitFree(k.index, k.c.Backend); left {
				return nil, left, fmt.Errorf("%s was freed, but %s: wait until that has closed it: %w",
					h.node(k.index), strings.Join(append(h.users(k.index), "somebody still has it"), ", "), unix.EBUSY)
			}
		}
	}
	if !left {
		k.index, sock, err = d.connect(k.c.Backend, info.BlockMin, info.flags()&^sendMultiConn)
	}
	if err != nil {
		return nil, left, err
	}
	if err = k.arrange(info, left); err != nil {
		_ = sock.Close()
		if !left {
			err = errors.Join(err, d.disconnect(k.index))
			d.awaitFree(k.index, k.c.Backend)
		}
		return nil, left, err
	}
	return sock, left, nil
}

// arrange makes of the device what users expect. The queue of one that was left
// has to wait: see settle.
func (k *Disk) arrange(info *Info, left bool) error {
	h := &k.d.host
	k.path = h.node(k.index)
	if !left {
		if err := h.setQueue(k.index, info.MaxSize); err != nil {
			return err
		}
		if err := k.d.resize(k.index, k.c.Backend, info.Size&^(k.block-1)); err != nil {
			return err
		}
	}
	if err := h.awaitNode(k.index); err != nil {
		return err
	}
	err := h.makeLink(k.c.Link, k.c.Backend, k.index)
	if err != nil && left {
		k.plain = err
		k.c.Log.Warn().Err(err).Str("node", k.c.Name).Str("device", k.path).Msg("the device is served without its link")
		return nil
	}
	return err
}

// takeOver puts a new socket in the place of the dead one of the device of that
// index, until stop is closed. The kernel may need a moment to find it dead.
// Errors: ENODEV if the device no longer bears backend, EINVAL if it was freed
// and is still open, EBUSY if its socket is alive.
func (d *Driver) takeOver(index int, backend string, stop <-chan struct{}) (*conn.Sock, error) {
	end := time.Now().Add(takeTime)
	for pause := lookTime; ; pause = min(2*pause, pauseMost) {
		if d.host.backend(index) != backend {
			return nil, fmt.Errorf("%s was freed by somebody else: %w", nodeName(index), unix.ENODEV)
		}
		sock, err := d.offer(index, backend)
		if err == nil || errors.Is(err, unix.EINVAL) || time.Now().After(end) {
			return sock, err
		}
		select {
		case <-stop:
			return nil, err
		case <-time.After(pause):
		}
	}
}
