package nbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/dataplane/conn"
)

const (
	loadTime   = 10 * time.Second // for modprobe
	answerTime = 10 * time.Second // for an exchange with the kernel, waiting for its turn included
)

// Driver is the kernel's NBD driver. Its one netlink socket makes every device
// and stays open as long as they do. Any goroutine may call its methods.
//
// The kernel does what it is asked within the sending system call, under a
// lock that all generic netlink of the machine shares: behind a device whose
// queue is frozen until its requests are answered, nothing can be asked, and
// no deadline of a socket ends the wait, nor does its close, which waits too.
// Every exchange has therefore a goroutine of its own, which the caller leaves
// behind after answerTime; it ends when the kernel lets go, and undoes what
// nobody waits for any more.
type Driver struct {
	host   host
	log    zerolog.Logger
	conn   *genetlink.Conn
	family uint16        // changed by who has the turn
	first  bool          // the family is shown in the first network namespace only
	turn   chan struct{} // holds one token: who has it talks to the kernel
}

// OpenDriver finds the kernel's driver and loads its module if it is missing.
// Errors, each a sentence with a remedy: EOPNOTSUPP if there is no module, or
// one without netlink (Linux before 4.12), EPERM without CAP_SYS_ADMIN,
// ETIMEDOUT if generic netlink does not answer.
func OpenDriver(log zerolog.Logger) (*Driver, error) {
	if err := capable(); err != nil {
		return nil, err
	}
	d := &Driver{host: system(), log: log, turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	err := d.dial()
	if errors.Is(err, os.ErrNotExist) {
		if err := LoadModule(); err != nil {
			return nil, fmt.Errorf("the kernel has no nbd driver: run modprobe nbd as root (%v), install a kernel that has it, or use attach socket PATH: %w", err, unix.EOPNOTSUPP)
		}
		err = d.dial()
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the kernel's nbd driver can not be reached by netlink: run dstd on Linux 4.12 or newer and where it sees the first network namespace (/proc/1/ns/net), or use attach socket PATH: %w", unix.EOPNOTSUPP)
	}
	if err != nil {
		return nil, fmt.Errorf("find the kernel's nbd driver: %w", err)
	}
	return d, nil
}

// dial finds the family: in this network namespace, or in the first one, which
// is the only one where older kernels show it. os.ErrNotExist: in neither.
func (d *Driver) dial() error {
	err := d.dialIn(0)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	first, oerr := os.Open(firstNet)
	if oerr != nil {
		return err
	}
	defer first.Close()
	d.first = true
	return d.dialIn(int(first.Fd()))
}

func (d *Driver) dialIn(ns int) error {
	var c *genetlink.Conn
	id, err := d.bounded(func() (id int, err error) {
		if c, err = genetlink.Dial(&netlink.Config{NetNS: ns}); err != nil {
			return 0, err
		}
		f, err := c.GetFamily(familyName)
		if err != nil {
			_ = c.Close()
		}
		return int(f.ID), err
	}, func(_ int, err error) {
		if err == nil {
			_ = c.Close()
		}
	})
	if err != nil {
		return err
	}
	d.conn, d.family = c, uint16(id)
	return nil
}

// capable refuses early what the kernel would refuse at the first device.
func capable() error {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities of this process: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errCapability
	}
	return nil
}

var errCapability = fmt.Errorf("to make a block device needs CAP_SYS_ADMIN in the first user namespace: run dstd with it, or use attach socket PATH: %w", unix.EPERM)

// LoadModule runs modprobe, if the kernel does not have the driver. A daemon that
// gives up the right to do so calls it before; later it is an error that names
// the remedy. Anybody may call it.
func LoadModule() error {
	if _, err := os.Stat(filepath.Join(system().sys, "module", familyName)); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "modprobe", "nbd")
	cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

// Close closes the netlink socket. The devices stay; call it when there are
// none left, or the process ends. ETIMEDOUT: the kernel is still busy with what
// it was asked, and the socket stays open.
func (d *Driver) Close() error {
	if _, err := d.bounded(func() (int, error) { return 0, d.conn.Close() }, nil); err != nil {
		return fmt.Errorf("close the netlink socket: %w", err)
	}
	return nil
}

// calm waits until the kernel has done what it was asked before, for answerTime
// at most.
func (d *Driver) calm() error {
	_, err := d.bounded(func() (int, error) { return 0, nil }, nil)
	return err
}

// bounded runs f, which asks the kernel, and waits for it and for its turn, for
// answerTime at most. late is called with what f returned if nobody has waited
// so long; who did not get the turn in that time leaves nothing behind.
func (d *Driver) bounded(f func() (int, error), late func(int, error)) (int, error) {
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	mute := fmt.Errorf("the kernel has not answered for %v: it waits for the requests of some nbd device, look at the links of all: %w", answerTime, unix.ETIMEDOUT)
	select {
	case <-d.turn:
	case <-timer.C:
		return 0, mute
	}
	type outcome struct {
		index int
		err   error
	}
	done, gone := make(chan outcome), make(chan struct{})
	// Started by bounded. Owns the turn, and what f and late own. Ends when the
	// kernel has answered.
	go func() {
		defer func() { d.turn <- struct{}{} }()
		var o outcome
		o.index, o.err = f()
		select {
		case done <- o:
		case <-gone:
			if late != nil {
				late(o.index, o.err)
			}
		}
	}()
	select {
	case o := <-done:
		return o.index, o.err
	case <-timer.C:
		close(gone)
		return 0, mute
	}
}

// ask is one exchange with the kernel; what says what for, in errors.
func (d *Driver) ask(what string, m message, err error) error {
	if err == nil {
		_, err = d.bounded(func() (int, error) { return d.exchange(m) }, nil)
	}
	return explain(what, err)
}

// exchange is one message and its answer; the caller has the turn. A module
// that was taken out is loaded again, and has another number then.
func (d *Driver) exchange(m message) (index int, err error) {
	index, err = exchange(d.conn, d.family, m)
	if !errors.Is(err, os.ErrNotExist) {
		return index, err
	}
	if err := LoadModule(); err != nil {
		return 0, fmt.Errorf("the kernel's nbd driver was taken out: run modprobe nbd as root (%v): %w", err, unix.EOPNOTSUPP)
	}
	if err := d.conn.SetReadDeadline(time.Now().Add(replyTime)); err != nil {
		return 0, err
	}
	f, err := d.conn.GetFamily(familyName)
	if err != nil {
		return 0, err
	}
	d.family = f.ID
	return exchange(d.conn, d.family, m)
}

// connect makes a device without a size and returns its index and the
// daemon's end of its socket.
func (d *Driver) connect(backend string, block uint32, flags uint16) (int, *conn.Sock, error) {
	var ours int
	index, err := d.bounded(func() (index int, err error) {
		var theirs int
		if ours, theirs, err = socketPair(); err != nil {
			return 0, err
		}
		defer func() { closePair(ours, theirs, err) }() // the kernel looks theirs up when it gets there
		m, err := connectMessage(backend, block, flags, theirs)
		if err != nil {
			return 0, err
		}
		return d.exchange(m)
	}, func(index int, err error) {
		if err == nil {
			unix.Close(ours)
			d.undo(index)
		}
	})
	if err != nil {
		return 0, nil, explain("make a block device", err)
	}
	sock, err := newSock(ours, index)
	return index, sock, err
}

// undo frees a device that nobody waited for. The caller has the turn.
func (d *Driver) undo(index int) {
	m, err := disconnectMessage(index)
	if err == nil {
		_, err = d.exchange(m)
	}
	if err != nil {
		d.log.Error().Err(err).Int("index", index).Msg("a device that came too late could not be freed")
	}
}

// offer gives the device of that index a new socket in place of its dead one
// and returns the daemon's end. EBUSY: its socket is not dead. The kernel does
// not say so: it takes the message, drops the socket and reports success.
func (d *Driver) offer(index int, backend string) (*conn.Sock, error) {
	var ours int
	_, err := d.bounded(func() (_ int, err error) {
		var theirs int
		if ours, theirs, err = socketPair(); err != nil {
			return 0, err
		}
		defer func() {
			if dropped := closePair(ours, theirs, err); dropped && err == nil {
				unix.Close(ours)
				err = fmt.Errorf("another process still serves it: stop that one first: %w", unix.EBUSY)
			}
		}()
		m, err := reconnectMessage(index, backend, theirs)
		if err != nil {
			return 0, err
		}
		return d.exchange(m)
	}, func(_ int, err error) {
		if err == nil {
			unix.Close(ours)
		}
	})
	if err != nil {
		return nil, explain("take over "+nodeName(index), err)
	}
	return newSock(ours, index)
}

// resize changes the size of a device, in bytes.
func (d *Driver) resize(index int, backend string, size uint64) error {
	m, err := resizeMessage(index, backend, size)
	if err == nil {
		_, err = d.bounded(func() (int, error) { return 0, d.exchangeApart(m) }, nil)
	}
	return explain("resize "+nodeName(index), err)
}

// exchangeApart is an exchange for whose answer the kernel may wait for the
// device, see apart. The caller has the turn; m is acknowledged.
func (d *Driver) exchangeApart(m message) error {
	done := make(chan error, 1)
	family := d.family
	apart(func() { done <- exchangeOnce(family, d.first, m) })
	return <-done
}

func (d *Driver) disconnect(index int) error {
	m, err := disconnectMessage(index)
	return d.ask("free "+nodeName(index), m, err)
}

// explain turns what the kernel says into what the user can do.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return errCapability
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: the kernel refuses, dmesg may say why: %w", what, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: the kernel has no free one: detach one, or use attach socket PATH: %w", what, unix.ENOSPC)
	}
	return fmt.Errorf("%s: %w", what, err)
}
