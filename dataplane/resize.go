package dataplane

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// A device grows in the order export, link, kernel, and shrinks in the opposite
// one: at no time is something promised that is not there.

// The kernel waits for the requests in flight with a new size, and everybody who
// asks it something about any device waits behind it. Without the link they are
// not answered; and should the daemon end then, the next one could not give the
// device a socket again. So the kernel hears of a size only while the link is up,
// and of what was asked meanwhile when it is up again.

// setSize sets the limit of a remote's size in bytes, abi.SizeAll takes it
// away. Errors: EBUSY for a smaller device that somebody has, or a kernel device
// that has no link.
func (r *remoteNode) setSize(limit uint64) error {
	if limit == abi.SizeAll {
		limit = 0
	}
	if r.link == nil {
		r.conf.Size = limit
		return nil
	}
	if info, ok := r.link.Info(); ok {
		size := r.link.Fit(limit)
		if size == 0 {
			return fmt.Errorf("size %d is less than a block of %d: give more: %w", limit, info.BlockMin, unix.EINVAL)
		}
		if size < info.Size {
			if err := r.shrink(size); err != nil {
				return err
			}
		}
	}
	r.link.SetSize(limit)
	r.conf.Size = limit
	r.resize()
	return nil
}

// shrink takes the end of the device away from its front.
func (r *remoteNode) shrink(size uint64) error {
	f := r.front.Load()
	if f == nil {
		return nil
	}
	if users := (*f).users(); len(users) > 0 {
		return fmt.Errorf("node %q is in use (%s) and can not become smaller: make it unused first: %w", r.conf.Name, words(users), unix.EBUSY)
	}
	r.sizing.Lock()
	defer r.sizing.Unlock()
	if !(*f).has(size) && !r.established() {
		return fmt.Errorf("node %q has no link, so its kernel device can not become smaller now: wait for the link: %w", r.conf.Name, unix.EBUSY)
	}
	return (*f).resize(size)
}

// established tells whether what is in flight will be answered, as far as one
// can know.
func (r *remoteNode) established() bool { return r.link.Status().State == abi.StateEstablished }

// resize tells the front the device's size, on a goroutine of its own: the
// kernel waits for requests in flight. It ends when the front has taken it, or
// when there is no link: it is called again when there is one.
func (r *remoteNode) resize() {
	f := r.front.Load()
	if f == nil {
		return
	}
	r.work.Go(func() {
		r.sizing.Lock()
		defer r.sizing.Unlock()
		info, _ := r.link.Info()
		if (*f).has(info.Size) || !r.established() || r.ending.Load() {
			return
		}
		r.behind.Store(nil)
		if err := (*f).resize(info.Size); err != nil {
			r.behind.Store(&err)
			r.plane.cfg.Log.Error().Err(err).Str("node", r.conf.Name).Msg("the kernel device keeps its size")
		}
	})
}

// lag is the warning that the front f of a device of that size has another one.
func (r *remoteNode) lag(f front, size uint64) (warnings []string) {
	if f.has(size) {
		return nil
	}
	if why := r.behind.Load(); why != nil {
		return []string{fmt.Sprintf("the kernel device did not take the size of %d bytes: %v", size, *why)}
	}
	if !r.established() {
		return []string{fmt.Sprintf("the kernel device takes the size of %d bytes when the link is up", size)}
	}
	return nil
}

// notify tells what the link tells.
func (r *remoteNode) notify(e abi.Event) {
	if e.Kind == abi.EventKindState && e.State == abi.StateEstablished {
		r.resize()
	}
	r.plane.cfg.Notify(e)
}
