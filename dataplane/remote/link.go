package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/trans"
)

const (
	dialTimeout      = time.Second     // a long SYN back-off must not delay recovery
	handshakeTimeout = 5 * time.Second // without a sign of life from the export
)

// errFatal marks an error after which the node has failed for good.
type errFatal struct {
	error
	here bool // for this daemon only: the host could not make the device
}

func (e errFatal) Unwrap() error { return e.error }

// run is the link's state machine and the only writer of its state. Started by
// Start; ends when ctx does or the node fails. Owns the dialling and the
// receiving half.
func (n *Node) run(ctx context.Context) {
	defer close(n.done)
	if !n.begin() {
		return
	}
	var retry Retry
	for ctx.Err() == nil {
		began := time.Now()
		up, err := n.once(ctx, n.cfg.Peers[retry.Peer(len(n.cfg.Peers))])
		if ctx.Err() != nil {
			break
		}
		if fatal := (errFatal{}); errors.As(err, &fatal) {
			n.fail(fatal)
			return
		}
		n.broken(err.Error())
		if limit := n.overdue(); limit > 0 {
			n.fail(errFatal{error: fmt.Errorf("the peer was gone, or answered nothing, for %v (fail-after): %w", limit, err)})
			return
		}
		n.sleep(ctx, retry.Wait(up, time.Since(began), rand.N[time.Duration]))
	}
	if fatal := (errFatal{}); errors.As(context.Cause(ctx), &fatal) {
		n.fail(fatal)
		return
	}
	n.end(func(c *Core, now time.Time) []*trans.Trans {
		return c.End(abi.StateClosed, unix.ESHUTDOWN, now, ending)
	})
}

// begin lets the device of an earlier daemon appear: its users come back at once.
// false: the node has failed, now or under that daemon.
func (n *Node) begin() bool {
	var err error
	if info, ok := n.Info(); ok {
		err = n.up(&info)
	}
	n.mu.Lock()
	failed := n.core.Failed()
	n.mu.Unlock()
	n.publish()
	switch {
	case failed && err != nil:
		n.env.Log.Error().Err(err).Str("node", n.cfg.Name).Msg("the device of a failed node does not appear")
	case err != nil:
		n.fail(errFatal{err, true})
	}
	return !failed && err == nil
}

// once is one connection's life: dial, handshake, serve until it breaks. up
// reports whether it was established.
func (n *Node) once(ctx context.Context, peer abi.Addr) (up bool, err error) {
	n.step(func(c *Core, now time.Time) { n.peer = peer; c.Dial(now, "") })
	s, err := n.env.Dial(ctx, peer)
	if err != nil {
		return false, err
	}
	l := newLink(n, s)
	defer l.free()
	// Close while we wait for the peer. Before WELCOME there is no session to
	// leave, and the handshake is the one that writes.
	stop := onEnd(ctx, l.leave)
	defer stop()
	if err := l.open(); err != nil {
		return false, l.reason(err)
	}
	var hello abi.Hello
	n.step(func(c *Core, now time.Time) { hello = c.Connected(now) })
	hello.Digest, l.promised = l.digest.Name(), time.Duration(hello.Keepalive)*time.Millisecond
	welcome, err := l.greet(&hello)
	if err != nil {
		l.out.Close()
		return false, l.reason(err)
	}
	stop()
	defer onEnd(ctx, func() { l.part(context.Cause(ctx)) })()
	if err := n.attach(l, welcome); err != nil {
		n.detach(l)
		return false, err
	}
	err = l.serve()
	n.detach(l)
	return true, err
}

// onEnd runs f when ctx ends. cancel takes that back or, if f has begun, waits
// until it has ended: nothing of a link outlives it.
func onEnd(ctx context.Context, f func()) (cancel func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { f(); close(done) })
	return sync.OnceFunc(func() {
		if !stop() {
			<-done
		}
	})
}

// attach makes l the present link: senders may write, and what was unanswered
// is sent again. The first time it lets the device appear before that, so that
// who sees the node established finds it there.
func (n *Node) attach(l *link, w *abi.Welcome) error {
	n.mu.Lock()
	fatal, err := n.core.Welcome(w)
	info := n.core.info
	n.mu.Unlock()
	switch {
	case fatal:
		return errFatal{error: err}
	case err != nil:
		return err
	}
	l.adopt(w)
	if err := n.up(info); err != nil {
		return err
	}
	n.step(func(c *Core, now time.Time) { n.out, n.digest = l.out, l.digest; c.Recover(now) })
	l.out.Flush()
	return nil
}

// up lets the device appear, once. Its error is fatal.
func (n *Node) up(info *Info) error {
	up := n.env.Up
	if n.env.Up = nil; up == nil {
		return nil
	}
	if err := up(*info); err != nil {
		return errFatal{err, true}
	}
	return nil
}

// detach fences the senders: when it returns no frame of l is being written.
func (n *Node) detach(l *link) {
	n.mu.Lock()
	n.out = nil
	n.mu.Unlock()
	l.out.Close()
}

// step runs f on the core under the lock, with the time.
func (n *Node) step(f func(c *Core, now time.Time)) {
	n.mu.Lock()
	f(n.core, time.Now())
	n.mu.Unlock()
	n.publish()
}

func (n *Node) broken(why string) {
	n.step(func(c *Core, now time.Time) { c.Broken(now, why) })
}

// overdue is the configured limit if the peer has been gone for longer, else 0.
func (n *Node) overdue() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.core.Overdue(time.Now(), n.knobs.failAfter) {
		return n.knobs.failAfter
	}
	return 0
}

// sleep waits between attempts.
func (n *Node) sleep(ctx context.Context, d time.Duration) {
	n.step(func(c *Core, now time.Time) { c.Pause(now) })
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// fail ends the service with EIO.
func (n *Node) fail(why errFatal) {
	n.end(func(c *Core, now time.Time) []*trans.Trans {
		if why.here {
			return c.End(abi.StateFailed, unix.EIO, now, why.Error())
		}
		return c.Fail(now, why.Error())
	})
}

// end completes what f, Fail or End, took out of the table, and tells.
func (n *Node) end(f func(c *Core, now time.Time) []*trans.Trans) {
	n.mu.Lock()
	orphans := f(n.core, time.Now())
	n.mu.Unlock()
	for _, t := range orphans {
		front := t.Front
		if t.Drop() {
			front.Flush()
		}
	}
	n.publish()
}

// publish tells of a transition that is worth an event.
func (n *Node) publish() {
	n.mu.Lock()
	c := n.core
	tell := !c.told
	c.told = true
	var e abi.Event
	if tell {
		last := c.history[len(c.history)-1]
		e = abi.Event{Kind: abi.EventKindState, Name: n.cfg.Name, State: last.state, Reason: last.reason, Peer: n.peer}
	}
	n.mu.Unlock()
	if tell {
		n.env.Log.Info().Str("node", e.Name).Str("state", fmt.Sprint(e.State)).Stringer("peer", e.Peer).Msg(e.Reason)
		n.env.Notify(e)
	}
}

// DialSocket is the daemon's Env.Dial.
func DialSocket(ctx context.Context, a abi.Addr) (conn.Stream, error) {
	s, err := conn.Dial(ctx, a, dialTimeout)
	if err != nil {
		return nil, err
	}
	return s, nil
}
