package client

import (
	"context"
	"errors"
	"time"

	"dst/abi"
)

// Update is what a Watch yields: all nodes as they are now, or one event.
type Update struct {
	// Nodes are all nodes, if not nil: first of all, and again after events were
	// lost. What was known before is to be forgotten.
	Nodes []*abi.Node
	Lost  uint64    // how many events at least were lost before Nodes was asked for; 0 the first time
	Event abi.Event // if Nodes is nil
}

// Watch follows the daemon: first what is, then what changes. An event may tell
// what Nodes showed already; none is missing behind it.
type Watch struct {
	c      *Client
	events *Events
	lost   uint64
	list   bool       // the nodes are to be listed next
	event  *abi.Event // to be told after that
}

// Watch subscribes and yields the state first. Close it. Errors: those of Subscribe.
func (c *Client) Watch(ctx context.Context) (*Watch, error) {
	own, err := Dial(c.options)
	if err != nil {
		return nil, err
	}
	events, err := c.Subscribe(ctx)
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	return &Watch{c: own, events: events, list: true}, nil
}

// ProbeEvery changes how long a silent daemon is waited for before it is asked
// whether it is still the same; it is 5 s otherwise. Before the first Next.
func (w *Watch) ProbeEvery(d time.Duration) { w.events.probe = d }

// Close ends the Watch and a Next that waits.
func (w *Watch) Close() error { return errors.Join(w.events.Close(), w.c.Close()) }

// Next waits for the next update. One goroutine calls it. Errors: those of
// Events.Next; after ErrNoDaemon it may be called again, and goes on with the
// state of the next daemon once there is one.
func (w *Watch) Next(ctx context.Context) (Update, error) {
	if w.list {
		nodes, err := w.c.List(ctx)
		if err != nil {
			return Update{}, err
		}
		if nodes == nil {
			nodes = []*abi.Node{}
		}
		u := Update{Nodes: nodes, Lost: w.lost}
		w.list, w.lost = false, 0
		return u, nil
	}
	if w.event != nil {
		u := Update{Event: *w.event}
		w.event = nil
		return u, nil
	}
	ev, err := w.events.Next(ctx)
	if err != nil {
		return Update{}, err
	}
	if ev.Lost == 0 {
		return Update{Event: ev}, nil
	}
	w.list, w.lost = true, ev.Lost
	if ev.Kind != 0 {
		w.event = &ev
	}
	return w.Next(ctx)
}
