package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// flushTime is how long the removal of a remote waits for a flush at the peer.
const flushTime = 5 * time.Second

// durable flushes what was acknowledged and what, should the peer lose it, only
// this host has: a removal drops that. EBUSY if the peer does not do it in
// flushTime.
func (r *remoteNode) durable() error {
	if r.link == nil {
		return nil
	}
	s := r.link.Status()
	if s.Unflushed == 0 { // of a node that has failed for good, too: its log is given up
		return nil
	}
	if s.State == abi.StateEstablished && r.flush() == nil && r.link.Status().Unflushed == 0 {
		return nil
	}
	return fmt.Errorf("node %q: %d changes (%d bytes) are not durable at the peer: wait for the link, or say force, which loses them: %w",
		r.conf.Name, s.Unflushed, s.LogBytes, unix.EBUSY)
}

// flush waits for a flush at the peer, for flushTime at most.
func (r *remoteNode) flush() error {
	stop := make(chan struct{})
	defer time.AfterFunc(flushTime, func() { close(stop) }).Stop()
	t, ok := r.link.Reserve().Get(trans.Flush, 0, stop)
	if !ok {
		return unix.ETIMEDOUT
	}
	f := flusher{r.link.Reserve(), make(chan unix.Errno, 1)}
	t.Front = f
	r.link.Submit(t)
	r.link.Kick()
	select {
	case errno := <-f.done:
		if errno != 0 {
			return errno
		}
		return nil
	case <-stop: // t comes back when the link answers or ends
		return unix.ETIMEDOUT
	}
}

// flusher is the front of a flush that no user has asked for.
type flusher struct {
	reserve *trans.Reserve
	done    chan unix.Errno
}

// Complete implements trans.Front.
func (f flusher) Complete(t *trans.Trans) {
	errno := t.Err
	f.reserve.Put(t)
	f.done <- errno
}

// Flush implements trans.Front.
func (f flusher) Flush() {}
