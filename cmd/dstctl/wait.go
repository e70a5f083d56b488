package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// waits is a node that was started and is waited for.
type waits struct{ r *request }

// lookAgain is how often nodes are looked at without an event: an event that
// was lost must not cost the whole wait.
const lookAgain = time.Second

// await waits until every remote that this run started is established, at most
// limit; 0 does not wait. The errors are one *fault for each that is not.
func (s *session) await(limit time.Duration) (faults []error) {
	if len(s.started) == 0 || limit == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	if faults = s.look(faults, limit); len(s.started) == 0 {
		return faults
	}
	happened, err := s.hear(ctx)
	if err != nil {
		return append(faults, err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	// Looked at once more now: what happened before the subscription told nobody.
	for name := ""; ; {
		if name == "" || slices.ContainsFunc(s.started, func(w *waits) bool { return w.r.name == name }) {
			faults = s.look(faults, limit)
		}
		if len(s.started) == 0 {
			return faults
		}
		select {
		case name = <-happened:
		case <-tick.C:
			name = ""
		case <-ctx.Done():
			return s.giveUp(faults, limit)
		}
	}
}

// hear subscribes to events until ctx ends and hands on the name that each is
// about; "" says that some were lost, or that no more will come.
func (s *session) hear(ctx context.Context) (<-chan string, error) {
	var ev events
	err := s.ask(func(_ context.Context, d api) (err error) {
		ev, err = d.Subscribe(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	happened := make(chan string)
	// Started by hear. Owns ev. Ends when ctx ends or the daemon goes away; the
	// ticker of await finds out why.
	go func() {
		defer func() { _ = ev.Close() }()
		for {
			e, err := ev.Next(ctx)
			if err != nil {
				return
			}
			name := e.Name
			if e.Lost > 0 {
				name = ""
			}
			select {
			case happened <- name:
			case <-ctx.Done():
				return
			}
		}
	}()
	return happened, nil
}

// look drops those that need no wait any more and adds a fault for those that
// failed.
func (s *session) look(faults []error, limit time.Duration) []error {
	nodes, err := s.states()
	if err != nil {
		s.started = nil
		return append(faults, err)
	}
	s.started = slices.DeleteFunc(s.started, func(w *waits) bool {
		done, fault := verdict(w.r, nodes[w.r.name])
		if fault != nil {
			faults = append(faults, fault)
		}
		return done
	})
	return faults
}

// states are the nodes that are waited for, by name.
func (s *session) states() (map[string]*abi.Node, error) {
	nodes := map[string]*abi.Node{}
	err := s.ask(func(ctx context.Context, d api) error {
		if len(s.started) == 1 {
			n, err := d.Get(ctx, s.started[0].r.name)
			if err == nil {
				nodes[n.Name] = n
			}
			if isErrno(err, unix.ENODEV) {
				return nil
			}
			return err
		}
		all, err := d.List(ctx)
		for _, n := range all {
			nodes[n.Name] = n
		}
		return err
	})
	return nodes, err
}

// verdict says whether the node of r needs no more waiting.
func verdict(r *request, n *abi.Node) (done bool, err error) {
	switch {
	case n == nil || n.Status == nil:
		return true, &fault{code: exitRefused, line: r.line, at: -1, text: fmt.Sprintf("%s was removed while it was waited for", r.name)}
	case n.Kind == abi.KindExport || n.Status.State == abi.StateEstablished:
		return true, nil
	case n.Status.State == abi.StateFailed || n.Status.State == abi.StateClosed:
		return true, &fault{code: exitRefused, line: r.line, at: -1, text: fmt.Sprintf("%s has %s: %s; dstctl node why %s says what can be done", r.name, n.Status.State, because(n), r.name)}
	}
	return false, nil
}

// giveUp is the end of a wait that ran out.
func (s *session) giveUp(faults []error, limit time.Duration) []error {
	faults = s.look(faults, limit)
	nodes, err := s.states()
	for _, w := range s.started {
		text := fmt.Sprintf("%s is not established after %s and keeps trying", w.r.name, textTime(uint64(limit/time.Millisecond)))
		if n := nodes[w.r.name]; err == nil && n != nil && n.Status != nil {
			text = fmt.Sprintf("%s, still %s: %s", text, doing(n.Status.State), because(n))
		}
		faults = append(faults, &fault{code: exitNotYet, line: w.r.line, at: -1, text: text})
	}
	return faults
}

// doing is what a link does in state, from the user's view.
func doing(state abi.State) string {
	if state == abi.StateRecovery {
		return "recovering"
	}
	return "connecting"
}

func because(n *abi.Node) string {
	if n.Status.Reason == "" {
		return "state " + n.Status.State.String()
	}
	return n.Status.Reason
}
