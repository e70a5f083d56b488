package export

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Resize offers limit bytes from now on, or, with 0, all that the store has
// now. A larger size reaches the clients by a new connection: each is cut, and
// comes back at once without losing anything. Errors: EBUSY for a smaller size
// while clients are served, ERANGE for more than there is, EINVAL.
func (n *Node) Resize(limit uint64) error {
	whole := n.disk.Geometry.Size
	if n.disk.Measure != nil {
		var err error
		if whole, err = n.disk.Measure(); err != nil {
			return fmt.Errorf("the size of %s: %w", n.cfg.Device, err)
		}
	}
	size, _, err := offer(whole, limit, n.disk.Geometry.BlockMin, n.cfg.Device)
	if err != nil {
		return err
	}
	n.mu.Lock()
	was := n.size
	if size < was && len(n.core.seats) > 0 {
		who := n.core.seats[0].Owner.(*session).who
		n.mu.Unlock()
		return abi.Blame(abi.AttrNodeSize, fmt.Errorf("export %s has promised %d bytes to %v: make it smaller there, detach it there, and try again: %w",
			n.cfg.Name, was, who, unix.EBUSY))
	}
	n.size = size
	if size > was {
		n.core.Recall(fmt.Errorf("the export has grown from %d to %d bytes: %w", was, size, unix.ESTALE))
	}
	acts := n.actions()
	n.mu.Unlock()
	n.carryOut(acts)
	if n.disk.Identity.Resized != nil {
		if err := n.disk.Identity.Resized(whole); err != nil {
			return fmt.Errorf("export %s has %d bytes now, but may not be recognised when it is opened again: %w", n.cfg.Name, size, err)
		}
	}
	return nil
}
