package dataplane

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/nbd"
	"dst/dataplane/remote"
)

// front is how a remote is offered on this host. It is made when the device's
// shape is known.
type front interface {
	users() []string             // who has it, in words
	release(force bool) error    // for good: EBUSY naming who has it, unless force
	has(size uint64) bool        // users see that size, or will when they ask
	resize(size uint64) error    // may wait for requests in flight: only with the link up
	describe(status *abi.Status) // what show tells of it
	Calm() error                 // waits in bounded time for a resize that is not done; before Hangup
	Hangup()                     // nobody hears of what the link answers from here on
	Close()                      // waits until the link has given back all that came from it
}

// socketFront is a Unix socket for NBD clients, who ask for the size when they
// connect.
type socketFront struct {
	*nbd.Server
	path string
}

func (f socketFront) users() []string {
	if n := f.Clients(); n > 0 {
		return []string{fmt.Sprintf("%d NBD clients have %s open", n, f.path)}
	}
	return nil
}

func (f socketFront) release(force bool) error {
	if users := f.users(); len(users) > 0 && !force {
		return fmt.Errorf("the node is in use: %s: disconnect them or say force: %w", users[0], unix.EBUSY)
	}
	return nil
}

func (f socketFront) has(uint64) bool        { return true }
func (f socketFront) resize(uint64) error    { return nil }
func (f socketFront) Calm() error            { return nil }
func (f socketFront) describe(s *abi.Status) { s.Users = f.users() }

// kernelFront is the kernel's block device.
type kernelFront struct {
	*nbd.Disk
	plane *Plane
	link  string
}

func (f kernelFront) users() []string          { return nbd.Users(f.Path()) }
func (f kernelFront) release(force bool) error { return f.Detach(force) }
func (f kernelFront) resize(size uint64) error { return f.Resize(size) }
func (f kernelFront) has(size uint64) bool     { return f.Has(size) }
func (f kernelFront) describe(status *abi.Status) {
	status.Device, status.Link, status.Users = f.Path(), f.link, f.plane.usersOf(f.Path())
	if why := f.Plain(); why != nil {
		status.Link, status.Warnings = "", append(status.Warnings, why.Error())
	}
}

// newFront offers the device of link as the configuration says; nil if it is not to
// be offered.
func (r *remoteNode) newFront(link *remote.Node) (front, error) {
	c := &r.conf
	device := nbd.Device{Name: c.Name, Reserve: link.Reserve(), Submit: link.Submit, Kick: link.Kick,
		Info: func() nbd.Info {
			i, _ := link.Info()
			return nbd.Info(i)
		}}
	switch c.Attach {
	case abi.AttachSocket:
		s, err := nbd.Listen(c.Socket, device)
		if err != nil {
			return nil, err
		}
		return socketFront{s, c.Socket}, nil
	case abi.AttachNbd:
		driver, err := r.plane.kernel()
		if err != nil {
			return nil, err
		}
		to := filepath.Join(r.plane.cfg.DevDir, c.Name)
		d, err := driver.Attach(nbd.DiskConfig{Device: device, Backend: backend(c.Name, link.Status().ClientID), Link: to,
			Partscan: c.Flags&abi.NodeFlagNoPartscan == 0, Lost: link.Fail, Log: r.plane.cfg.Log, Stop: r.quit, Trouble: r.hindered})
		if err != nil {
			return nil, err
		}
		r.plane.lookout.mind(d.Path())
		return kernelFront{d, r.plane, to}, nil
	}
	return nil, nil
}

// backend is what the kernel calls the device of an attachment: no other
// daemon's attachment has the same, and none but this is ever touched.
func backend(name string, id abi.ID) string { return fmt.Sprintf("dst:%s:%s", name, id) }

// words joins who has a device.
func words(users []string) string { return strings.Join(users, ", ") }

// kernel is the kernel's NBD driver, opened when the first node needs it.
func (p *Plane) kernel() (*nbd.Driver, error) {
	p.driving.Lock()
	defer p.driving.Unlock()
	if p.driver == nil {
		d, err := p.openDriver(p.cfg.Log)
		if err != nil {
			return nil, err
		}
		p.driver = d
	}
	return p.driver, nil
}

// leftover is a kernel device that an attachment left behind and that this
// daemon does not serve.
type leftover struct {
	plane   *Plane
	name    string
	backend string
	path    string // /dev/nbdN
}

// leftover finds the device of the attachment that page remembers for the
// remote c; nil if there is none.
func (p *Plane) leftover(c *abi.Node, page []byte) *leftover {
	id, ok := remote.Attachment(page)
	if !ok || c.Attach != abi.AttachNbd {
		return nil
	}
	l := &leftover{plane: p, name: c.Name, backend: backend(c.Name, id)}
	if l.path, ok = nbd.Find(l.backend); !ok {
		return nil
	}
	return l
}

// release frees the device: EBUSY naming who has it, unless force.
func (l *leftover) release(force bool) error {
	if l == nil {
		return nil
	}
	if users := nbd.Users(l.path); len(users) > 0 && !force {
		return fmt.Errorf("%s is %s: unmount or close it, or say force: %w", l.path, words(users), unix.EBUSY)
	}
	driver, err := l.plane.kernel()
	if err != nil {
		return err
	}
	if err := driver.Detach(l.backend); err != nil {
		return err
	}
	return nbd.RemoveLink(filepath.Join(l.plane.cfg.DevDir, l.name), l.path)
}

// describe is what show tells of it.
func (l *leftover) describe(s *abi.Status) {
	if l != nil {
		s.Device, s.Users = l.path, l.plane.usersOf(l.path)
	}
}

// usersFresh is how long it is good enough to know who has the devices: who
// shows all nodes asks for each of them.
const usersFresh = 500 * time.Millisecond

// lookout remembers who had the kernel devices.
type lookout struct {
	sync.Mutex
	at    time.Time
	paths []string // all that were asked about so far
	users map[string][]string
}

// mind adds a device to those that are looked for.
func (l *lookout) mind(path string) {
	l.Lock()
	defer l.Unlock()
	if !slices.Contains(l.paths, path) {
		l.paths, l.at = append(l.paths, path), time.Time{}
	}
}

// usersOf is who has the kernel device at path, as of a moment ago. What is
// refused because of it is looked at anew.
func (p *Plane) usersOf(path string) []string {
	l := &p.lookout
	l.mind(path)
	l.Lock()
	defer l.Unlock()
	if time.Since(l.at) > usersFresh {
		l.users, l.at = nbd.UsersOf(l.paths...), time.Now()
	}
	return l.users[path]
}
