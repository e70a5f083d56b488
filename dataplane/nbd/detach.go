package nbd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	claimTime = 5 * time.Second        // for a device to be opened and flushed
	graceTime = 300 * time.Millisecond // for the kernel to free a device whose socket is still read
	goneTime  = 2 * time.Second        // for the kernel to let go of a freed device
	peekTime  = time.Second            // for those who merely have it open
	udevTime  = 5 * time.Second        // for udev, which looks at a device that appears or was closed
)

// Detach frees the device. Without force it must be unused, and what was
// written must be durable: EBUSY names who has it, or says that the device does
// not answer, and nothing changes. With force it ends in bounded time whoever
// has it and whether the link is up or not: requests in flight get EIO, and the
// index is free when the last has closed it. After an error of the kernel's the
// device answers no more, and Detach may be called again. Afterwards the caller
// ends the link, and calls Close.
func (k *Disk) Detach(force bool) error {
	k.leaving.Lock()
	defer k.leaving.Unlock()
	if err := k.detach(force); err != nil {
		return fmt.Errorf("detach %s: %w", k.c.Name, err)
	}
	k.d.awaitFree(k.index, k.c.Backend)
	k.unlink()
	return nil
}

func (k *Disk) detach(force bool) error {
	if !k.ours() {
		return nil // somebody was faster, and may have it for something else
	}
	if !force {
		c, err := k.reserve()
		if err != nil {
			return err
		}
		defer c.drop()
	} else if len(k.d.turn) == 0 && k.c.Lost != nil {
		// The kernel may wait, for a new size, for requests of this device: they
		// get their errors now, else it would never do what it is asked next.
		k.c.Lost(fmt.Errorf("%s is removed by force: %w", k.path, unix.ESHUTDOWN))
	}
	return k.free()
}

// ours tells whether the device is still what was attached.
func (k *Disk) ours() bool { return !k.gone && k.d.host.backend(k.index) == k.c.Backend }

// free tells the kernel to let the device go. A sender of the kernel that waits
// for the daemon to read holds what the kernel needs for that: after a grace
// the daemon hangs up, which ends the sender.
func (k *Disk) free() error {
	k.finish()
	timer := time.AfterFunc(graceTime, k.Hangup)
	defer timer.Stop()
	err := k.d.disconnect(k.index)
	k.gone = err == nil
	return err
}

// reserve sees to it that nobody has the device, and that nobody mounts it from
// here on until the claim is dropped.
func (k *Disk) reserve() (*claim, error) {
	if err := k.used(); err != nil {
		return nil, err
	}
	mute := fmt.Errorf("%s does not answer: wait for its link, or say force: %w", k.path, unix.EBUSY)
	if old := k.claim; old != nil && !old.wait(old.closed) {
		return nil, mute
	}
	c := newClaim(k.path, !k.c.Info().ReadOnly)
	k.claim = c
	if !c.wait(c.opened) {
		c.release()
		return nil, mute
	}
	err := c.err
	if err == nil {
		err = k.used()
	} else if c.err == unix.EBUSY {
		if err = k.used(); err == nil {
			err = fmt.Errorf("%s is in use by something in the kernel: end that first, or say force: %w", k.path, unix.EBUSY)
		}
	} else {
		err = fmt.Errorf("%s could not be flushed: say force to lose what is not durable: %w", k.path, c.err)
	}
	if err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}

// used is EBUSY with the names of those who have the device. Who merely has it
// open may be about to close it, and gets a moment.
func (k *Disk) used() error {
	var users []string
	begun := time.Now()
	stays := func(user string) bool { return !strings.HasPrefix(user, opened) }
	udev := func(user string) bool { return strings.Contains(user, "udev") }
	await(udevTime, func() bool {
		users = k.d.host.users(k.index)
		return len(users) == 0 || slices.ContainsFunc(users, stays) ||
			time.Since(begun) > peekTime && !slices.ContainsFunc(users, udev)
	})
	if len(users) == 0 {
		return nil
	}
	return fmt.Errorf("%s is in use: %s: end that first, or say force: %w", k.path, strings.Join(users, ", "), unix.EBUSY)
}

// claim is a device opened for nobody else: as long as it is, nobody can mount
// it or build upon it.
type claim struct {
	opened, closed chan struct{}
	let            chan struct{} // closed by release
	err            error         // of the open or the flush, once opened is closed
}

// newClaim opens the device, apart, and writes out what is not durable.
func newClaim(path string, flush bool) *claim {
	c := &claim{opened: make(chan struct{}), closed: make(chan struct{}), let: make(chan struct{})}
	apart(func() {
		defer close(c.closed)
		var fd int
		if fd, c.err = unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0); c.err == nil {
			defer unix.Close(fd)
			if flush {
				c.err = unix.Fsync(fd)
			}
		}
		close(c.opened)
		<-c.let
	})
	return c
}

// wait waits for one of c's channels, for claimTime at most.
func (c *claim) wait(ch <-chan struct{}) bool {
	timer := time.NewTimer(claimTime)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

// release lets the device be closed as soon as it is open. Once only.
func (c *claim) release() { close(c.let) }

// drop is release, and waits until the device is closed.
func (c *claim) drop() {
	c.release()
	c.wait(c.closed)
}

// Detach frees a device that nobody serves: left by a daemon that died. What
// waits in it gets EIO. Nil if there is none that bears backend; EBUSY if
// another process serves it.
func (d *Driver) Detach(backend string) error {
	index, ok := d.host.find(backend)
	if !ok {
		return nil
	}
	sock, err := d.takeOver(index, backend, nil)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EINVAL): // freed, and still open
	case err != nil:
		return err
	default:
		_ = sock.Close() // the kernel is not to send into a socket that nobody reads
	}
	if err := d.disconnect(index); err != nil {
		return err
	}
	d.awaitFree(index, backend)
	return nil
}

// awaitFree waits a little until the kernel has let a freed device go, which it
// does when the last has closed it, and tells whether it has.
func (d *Driver) awaitFree(index int, backend string) bool {
	free := await(goneTime, func() bool { return d.host.backend(index) != backend })
	if !free {
		d.log.Warn().Str("device", d.host.node(index)).Str("backend", backend).Strs("users", d.host.users(index)).
			Msg("the device is freed and answers nobody, but its index is taken until the last user closes it")
	}
	return free
}
