package nbd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/mempool"
)

const (
	blockLeast = 512  // block sizes that every kernel takes, bytes
	blockMost  = 4096 // the least page size

	takeTime  = 5 * time.Second        // to put a new socket in the place of a dead one
	pauseMost = 500 * time.Millisecond // between two tries
)

// DiskConfig is a device that the kernel offers as /dev/nbdN.
type DiskConfig struct {
	Device
	Backend  string      // who the device belongs to, unique: "dst:NAME:CLIENTID"
	Link     string      // absolute path of the symbolic link to make, empty for none
	Partscan bool        // partitions appear as devices of their own
	Lost     func(error) // called at most once, by a goroutine of the disk: nobody can use the device any more
	Log      zerolog.Logger
}

// Disk is a kernel device and the daemon's end of its socket. Any goroutine
// may call its methods.
type Disk struct {
	d     *Driver
	c     DiskConfig
	index int
	path  string
	block uint64 // bytes

	stop    chan struct{}  // closed when the daemon ends it: by Hangup or Detach
	running sync.WaitGroup // serve

	mu     sync.Mutex // guards what follows
	client *client    // the present socket's, nil while there is none
	over   bool       // stop is closed

	leaving sync.Mutex // held by Detach; guards what follows
	claim   *claim     // the last one, which may not be back yet
	gone    bool       // the kernel has freed the device
}

// Attach makes the device of c appear: the one that bears c.Backend already,
// left by a daemon that died or stopped, or a free one. It does not wait for
// the device's I/O, which may be impossible yet. When it returns, the node is
// there, its queue set up, and the link leads to it. A device that was left
// keeps its size: see Size.
//
// Errors, each a sentence: EINVAL for a block size or a size that the kernel
// can not have, EEXIST for something else in the link's place, EBUSY if another
// process serves the device that bears the backend, ENOSPC, EPERM, ETIMEDOUT
// and what else the kernel says.
func (d *Driver) Attach(c DiskConfig) (*Disk, error) {
	info := c.Info()
	if err := d.check(&c, &info); err != nil {
		return nil, fmt.Errorf("attach %s: %w", c.Name, err)
	}
	buf, err := mempool.Pages(bufferSize)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", c.Name, err)
	}
	k := &Disk{d: d, c: c, block: uint64(info.BlockMin), stop: make(chan struct{})}
	sock, left, err := k.appear(&info)
	if err != nil {
		mempool.FreePages(buf)
		return nil, fmt.Errorf("attach %s: %w", c.Name, err)
	}
	k.running.Go(func() { k.serve(sock, buf) })
	k.settle(left)
	return k, nil
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
	return h.makeLink(k.c.Link, k.c.Backend, k.index)
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

// serve is the life of the device: one socket after the other, and no request
// of the next is read before all that was taken from the last is back. The
// kernel sends again what the last did not answer, and a write that is still on
// its way then would revert a newer one. Started by Attach. Owns the receive
// buffer and the reading half of the socket. Ends when the daemon or somebody
// else ends the device, and all transactions are back.
func (k *Disk) serve(sock *conn.Sock, buf []byte) {
	defer mempool.FreePages(buf)
	dev := k.c.Device
	dev.Info = k.info
	for {
		c := newClient(&dev, sock, buf)
		k.enter(c)
		err := c.transmit()
		if err == nil && !c.left {
			err = io.ErrUnexpectedEOF
		}
		c.end(err)
		if k.isOver() {
			return
		}
		if !c.left {
			k.c.Log.Warn().Err(err).Str("node", k.c.Name).Str("device", k.path).Msg("the kernel's socket ended: giving it a new one")
			sock, err = k.d.takeOver(k.index, k.c.Backend, k.stop)
		} else {
			err = fmt.Errorf("%s was detached by somebody else (nbd-client -d?): %w", k.path, unix.ENODEV)
		}
		if err != nil {
			k.lose(err)
			return
		}
	}
}

// info is the device as the transmission sees it: the kernel may send TRIM and
// WRITE_ZEROES though they were not offered, if an earlier user of the same
// nbdN offered them.
func (k *Disk) info() Info {
	i := k.c.Info()
	i.Features |= abi.FeatureDiscard | abi.FeatureWriteZeroes
	return i
}

// enter makes c the present client, unless the daemon has ended the device.
func (k *Disk) enter(c *client) {
	k.mu.Lock()
	k.client = c
	over := k.over
	k.mu.Unlock()
	if over {
		c.close(unix.ESHUTDOWN)
	}
}

// lose tells the owner that the device is lost, unless the owner ended it.
func (k *Disk) lose(err error) {
	k.mu.Lock()
	over := k.over
	k.mu.Unlock()
	if !over && k.c.Lost != nil {
		k.c.Lost(err)
	}
}

// finish says that what happens to the socket from here on is the daemon's
// own doing.
func (k *Disk) finish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.over = true
		close(k.stop)
	}
}

func (k *Disk) isOver() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.over
}

// Path is the device's node, "/dev/nbdN".
func (k *Disk) Path() string { return k.path }

// Size is the device's present size in bytes.
func (k *Disk) Size() uint64 { return k.d.host.size(k.index) }

// Resize gives the device a new size in bytes, of which it takes whole blocks.
// It waits for the requests in flight: call it while the link is up, from a
// goroutine that may wait. Errors: EINVAL for less than one block, ETIMEDOUT if
// the requests in flight are not answered (the size changes when they are), and
// what else the kernel says.
func (k *Disk) Resize(size uint64) error {
	size &^= k.block - 1
	if size == 0 || size > math.MaxInt64 {
		return fmt.Errorf("resize %s: %d bytes: %w", k.c.Name, size, unix.EINVAL)
	}
	if size == k.Size() {
		return nil
	}
	if err := k.d.resize(k.index, k.c.Backend, size); err != nil {
		return err
	}
	if got := k.Size(); got != size {
		return fmt.Errorf("resize %s: the kernel made it %d bytes, not %d: %w", k.path, got, size, unix.EIO)
	}
	k.settle(false)
	return nil
}

// Hangup closes the daemon's end of the socket. Unless the device was detached,
// the kernel keeps it with its size, mounts and waiting requests for the next
// daemon. It does not wait, and Close must follow.
func (k *Disk) Hangup() {
	k.finish()
	k.mu.Lock()
	c := k.client
	k.mu.Unlock()
	if c != nil {
		c.close(unix.ESHUTDOWN)
	}
}

// Close is Hangup, and waits until all transactions have come back: the caller
// must see to it that the device completes them. It may be called more than
// once. The link stays if the device does.
func (k *Disk) Close() {
	k.Hangup()
	k.running.Wait()
	if k.d.host.backend(k.index) != k.c.Backend { // freed, by whomever
		k.unlink()
	}
}

func (k *Disk) unlink() {
	if err := RemoveLink(k.c.Link, k.path); err != nil {
		k.c.Log.Warn().Err(err).Str("node", k.c.Name).Msg("the link of a device that is gone stays")
	}
}
