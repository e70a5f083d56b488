package client

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// probeEvery is how long a silent daemon is waited for before it is asked
// whether it is still the same: a new one knows of no subscription.
const probeEvery = 5 * time.Second

// Events is a subscription with a socket of its own. One goroutine calls Next.
type Events struct {
	c     *Client
	probe time.Duration

	pid     uint32        // of the daemon
	uptime  time.Duration // of the daemon, when it was last asked
	seq     uint64        // of the last event
	restart bool          // the daemon is another one since the last event
}

// Subscribe asks for all events from now on. Errors: EUSERS if the daemon has
// too many subscribers, and those of Dial.
func (c *Client) Subscribe(ctx context.Context) (*Events, error) {
	own, err := Dial(c.options)
	if err != nil {
		return nil, err
	}
	e := &Events{c: own, probe: probeEvery}
	if err := e.subscribe(ctx); err != nil {
		return nil, errors.Join(err, own.Close())
	}
	return e, nil
}

// Close ends the subscription and a Next that waits. Any goroutine may call it.
func (e *Events) Close() error { return e.c.Close() } // the daemon forgets a port that is closed

// Next waits for the next event. If Lost is not 0, so many events at least were
// missed before it, and who keeps a picture of the daemon asks for it again
// (Watch does); such an event with Kind 0 says nothing else.
// Errors: ErrNoDaemon when the daemon has gone, those of ctx, os.ErrClosed.
func (e *Events) Next(ctx context.Context) (abi.Event, error) {
	for {
		m, err := e.next(ctx)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return abi.Event{Lost: 1}, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
			if err := e.subscribe(ctx); err != nil {
				return abi.Event{}, err
			}
			if e.restart {
				e.restart = false
				return abi.Event{Lost: 1}, nil
			}
			continue
		case ctx.Err() != nil:
			return abi.Event{}, ctx.Err()
		case errors.Is(err, os.ErrClosed):
			return abi.Event{}, os.ErrClosed
		case err != nil:
			return abi.Event{}, refusal(err, nil)
		}
		if ev, ok := e.decode(m); ok {
			return ev, nil
		}
	}
}

// next is the next message with sequence 0: one that came while a call waited,
// or the next one of the socket.
func (e *Events) next(ctx context.Context) (netlink.Message, error) {
	s := e.c.sock
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	s.wait(ctx, e.probe)
	s.until = time.Now().Add(e.probe)
	if at, ok := ctx.Deadline(); ok && at.Before(s.until) {
		s.until = at
	}
	for len(s.early) == 0 {
		ms, err := s.datagram()
		if err != nil {
			return netlink.Message{}, err
		}
		for _, m := range ms {
			s.keep(m)
		}
	}
	m := s.early[0]
	s.early = s.early[1:]
	return m, nil
}

// decode reads an event and counts what is missing before it.
func (e *Events) decode(m netlink.Message) (ev abi.Event, ok bool) {
	if uint16(m.Header.Type) != e.c.family || len(m.Data) < unix.GENL_HDRLEN || m.Data[0] != abi.CmdEvent {
		return ev, false
	}
	if abi.Unmarshal(m.Data[unix.GENL_HDRLEN:], &ev) != nil {
		return abi.Event{Lost: 1}, true
	}
	if ev.Lost == 0 && ev.Seq != e.seq+1 {
		ev.Lost = 1 // a new daemon, or one that does not count
	}
	if e.c.sock.missed > 0 {
		ev.Lost += e.c.sock.missed
		e.c.sock.missed = 0
	}
	e.seq = ev.Seq
	return ev, true
}

// subscribe asks for events, again too: that changes nothing with the same
// daemon. Whether it is the same, its pid and uptime tell.
func (e *Events) subscribe(ctx context.Context) error {
	if err := e.c.act(ctx, abi.CmdSubscribe, nil); err != nil {
		return err
	}
	sys, err := e.c.Sys(ctx)
	if err != nil {
		return err
	}
	uptime := time.Duration(sys.Uptime) * time.Millisecond
	if e.pid != 0 && (sys.PID != e.pid || uptime < e.uptime) {
		e.restart, e.seq = true, 0
	}
	e.pid, e.uptime = sys.PID, uptime
	return nil
}
