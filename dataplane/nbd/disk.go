package nbd

import (
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/mempool"
)

// DiskConfig is a device that the kernel offers as /dev/nbdN.
type DiskConfig struct {
	Device
	Backend  string      // who the device belongs to, unique: "dst:NAME:CLIENTID"
	Link     string      // absolute path of the symbolic link to make, empty for none
	Partscan bool        // partitions appear as devices of their own
	Lost     func(error) // nobody can use the device any more: its requests are to fail. The first call counts
	Log      zerolog.Logger

	// Stop ends the tries of Attach to take a device over that was left. Without
	// it there is one try.
	Stop <-chan struct{}
	// Trouble, if not nil, is called with what keeps the device from being served
	// as long as it is tried again, and with nil when it is served.
	Trouble func(error)
	said    string // the last trouble that was logged
}

// Disk is a kernel device and the daemon's end of its socket. Any goroutine
// may call its methods.
type Disk struct {
	d     *Driver
	c     DiskConfig
	index int
	path  string
	block uint64 // bytes
	plain error  // why there is no link

	stop    chan struct{}  // closed when the daemon ends it: by Hangup or Detach
	running sync.WaitGroup // serve

	mu     sync.Mutex // guards what follows
	client *client    // the present socket's, nil while there is none
	over   bool       // stop is closed

	leaving sync.Mutex // held by Detach; guards what follows
	claim   *claim     // the last one, which may not be back yet
	gone    bool       // the kernel has freed the device
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
			sock, err = k.again()
		} else {
			err = fmt.Errorf("%s was detached by somebody else (nbd-client -d?): %w", k.path, unix.ENODEV)
		}
		if err != nil {
			k.lose(err)
			return
		}
	}
}

// again takes the device over until it has a socket or the daemon ends it: what
// may pass is no reason to leave what may be mounted.
func (k *Disk) again() (sock *conn.Sock, err error) {
	for {
		if sock, err = k.d.takeOver(k.index, k.c.Backend, k.stop); err == nil {
			k.c.trouble(nil)
		}
		if err == nil || !passing(err) || k.isOver() {
			return sock, err
		}
		k.c.trouble(err)
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

// Plain is why a device that was left is served without its link; nil if it has
// the link.
func (k *Disk) Plain() error { return k.plain }

// Size is the device's present size in bytes.
func (k *Disk) Size() uint64 { return k.d.host.size(k.index) }

// Has tells whether the device has the whole blocks of that size in bytes.
func (k *Disk) Has(size uint64) bool { return k.Size() == size&^(k.block-1) }

// Resize gives the device a new size in bytes, of which it takes whole blocks.
// The kernel waits for the requests in flight, and whoever asks it anything about
// any device waits behind it; a socket that would answer them can not be given to
// it meanwhile. So call it only while the link is up, from a goroutine that may
// wait, and Calm before Hangup. Errors: EINVAL for less than one block, ETIMEDOUT if
// the requests in flight are not answered (the size changes when they are), and
// what else the kernel says.
func (k *Disk) Resize(size uint64) error {
	size &^= k.block - 1
	if size == 0 || size > math.MaxInt64 {
		return fmt.Errorf("resize %s: %d bytes: %w", k.c.Name, size, unix.EINVAL)
	}
	if k.Has(size) {
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

// Calm waits, for 10 s at most, until the kernel has done what it was asked, so
// that no request that it waits for is left without a socket. Call it before
// Hangup, while the link may still answer. ETIMEDOUT: it has not.
func (k *Disk) Calm() error { return k.d.calm() }

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
