package main

import (
	"context"
	"fmt"
	"time"

	"dst/abi"
	"dst/controlplane/client"
)

// runMonitor shows what happens: first the nodes that are there, then every
// event, until dstctl is interrupted or the daemon goes away.
func runMonitor(s *session, r *request) error {
	var w updates
	err := s.ask(func(_ context.Context, d api) (err error) {
		w, err = d.Watch(s.ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	for {
		u, err := w.Next(s.ctx)
		if s.ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = s.printUpdate(u)
		}
		if err == nil {
			err = s.out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// printUpdate writes the nodes that are there now, or one event.
func (s *session) printUpdate(u client.Update) error {
	if u.Nodes == nil {
		return s.printEvent(viewEvent(u.Event))
	}
	if u.Lost > 0 {
		v := s.own("resync")
		v.Lost = u.Lost
		if err := s.printEvent(v); err != nil {
			return err
		}
	}
	for _, n := range u.Nodes {
		if err := s.printEvent(s.exists(n)); err != nil {
			return err
		}
	}
	return s.printEvent(s.own("sync"))
}

// own is a line that dstctl says by itself.
func (s *session) own(event string) eventView {
	return eventView{Schema: schema, Event: event, Time: stamp(s.now())}
}

func (s *session) exists(n *abi.Node) eventView {
	v := s.own("exists")
	v.Name, v.Kind = n.Name, n.Kind.String()
	if n.Status != nil {
		v.State, v.Reason = n.Status.State.String(), n.Status.Reason
		if !n.Status.Peer.IsZero() {
			v.Peer = n.Status.Peer.String()
		}
	}
	return v
}

// printEvent writes one line of monitor; JSON too is one line, whatever -p says.
func (s *session) printEvent(v eventView) error {
	if s.opts.json {
		return s.encode(v, false)
	}
	text := v.Event
	for _, part := range []string{v.Name, v.Kind} {
		if part != "" {
			text += " " + part
		}
	}
	for _, part := range [][2]string{{"state", v.State}, {"peer", v.Peer}} {
		if part[1] != "" {
			text += " " + part[0] + " " + part[1]
		}
	}
	if v.Lost > 0 {
		text += fmt.Sprintf(" lost %d", v.Lost)
	}
	if s.opts.details && v.Seq > 0 {
		text += fmt.Sprintf(" seq %d", v.Seq)
	}
	if v.Reason != "" {
		text += " reason " + v.Reason
	}
	if s.opts.stamps {
		local := v.Time
		if t, err := time.Parse(time.RFC3339, v.Time); err == nil {
			local = t.In(s.now().Location()).Format("2006-01-02T15:04:05.000")
		}
		text = "[" + local + "] " + text
	}
	_, err := s.out.WriteString(clean(text) + "\n")
	return err
}
