package dataplane

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// A device grows in the order export, link, kernel, and shrinks in the opposite
// one: at no time is something promised that is not there.

// setSize sets the limit of a remote's size in bytes, abi.SizeAll takes it
// away. Errors: EBUSY for a smaller device that somebody has.
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
	return (*f).resize(size)
}

// resize tells the front the device's size, on a goroutine of its own: the
// kernel waits for requests in flight. It ends when the front has taken it,
// at the latest when the link has ended.
func (r *remoteNode) resize() {
	f := r.front.Load()
	if f == nil {
		return
	}
	r.work.Go(func() {
		r.sizing.Lock()
		defer r.sizing.Unlock()
		r.behind.Store(nil)
		info, _ := r.link.Info()
		if err := (*f).resize(info.Size); err != nil {
			r.behind.Store(&err)
			r.plane.cfg.Log.Error().Err(err).Str("node", r.conf.Name).Msg("the kernel device keeps its size")
		}
	})
}
