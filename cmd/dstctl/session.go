package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"time"

	"dst/abi"
)

// session is one run: its options, its one connection to the daemon, and what
// it still waits for.
type session struct {
	world
	ctx     context.Context
	opts    options
	out     *bufio.Writer
	door    api      // nil until the first request
	started []*waits // remotes that were started and not waited for yet
}

func (s *session) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// fail reports err, which r met, and returns the exit code; nil is success.
func (s *session) fail(err error, r *request) int {
	if err == nil {
		return exitDone
	}
	f := faultOf(err, r)
	_ = s.out.Flush() // what was said before comes first; run reports a failure
	f.report(s.stderr)
	return f.code
}

// daemon is the connection, made at its first use.
func (s *session) daemon() (api, error) {
	if s.door != nil {
		return s.door, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, answerTime)
	defer cancel()
	door, err := s.dial(ctx)
	if err == nil {
		s.door = door
	}
	return door, err
}

func (s *session) close() {
	if s.door != nil {
		_ = s.door.Close() // nothing was asked that is not answered
	}
}

// ask sends one request to the daemon and waits for its answer.
func (s *session) ask(f func(ctx context.Context, d api) error) error {
	return s.askFor(answerTime, f)
}

// askFor is ask for a request that may take limit. The error is errSilent when
// that was not enough.
func (s *session) askFor(limit time.Duration, f func(ctx context.Context, d api) error) error {
	d, err := s.daemon()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	err = f(ctx, d)
	if err != nil && ctx.Err() != nil {
		return errSilent
	}
	return err
}

// do carries out a command that was understood.
func (s *session) do(r *request) error {
	if r.help {
		writeHelp(s.out, r.object, r.verb)
		return nil
	}
	return r.verb.run(s, r)
}

func runAddExport(s *session, r *request) error {
	r.node.Kind = abi.KindExport
	return s.ask(func(ctx context.Context, d api) error { return d.AddExport(ctx, &r.node) })
}

func runAddRemote(s *session, r *request) error {
	r.node.Kind = abi.KindRemote
	err := s.ask(func(ctx context.Context, d api) error { return d.AddRemote(ctx, &r.node) })
	if err == nil && r.started() {
		s.started = append(s.started, &waits{r: r})
	}
	return err
}

func runStart(s *session, r *request) error {
	err := s.ask(func(ctx context.Context, d api) error {
		if r.node.Flags&abi.NodeFlagSteal != 0 {
			return d.Steal(ctx, r.name)
		}
		return d.Start(ctx, r.name)
	})
	if err == nil {
		s.started = append(s.started, &waits{r: r})
	}
	return err
}

// runSet asks first whether the node is of the kind that the command names.
func runSet(s *session, r *request) error {
	if _, err := s.nodes(r); err != nil {
		return err
	}
	return s.ask(func(ctx context.Context, d api) error { return d.Set(ctx, &r.node) })
}

func runDel(s *session, r *request) error {
	s.started = slices.DeleteFunc(s.started, func(w *waits) bool { return w.r.name == r.name })
	return s.askFor(delTime, func(ctx context.Context, d api) error { return d.Del(ctx, r.name, r.force) })
}

func runAddRule(s *session, r *request) error {
	return s.ask(func(ctx context.Context, d api) error { return d.AddRule(ctx, r.name, r.rule) })
}

// runDelRule removes a rule; with a permission only if that is what it gives.
func runDelRule(s *session, r *request) error {
	return s.ask(func(ctx context.Context, d api) error {
		if r.permAt == 0 {
			return d.DelRule(ctx, r.name, r.rule)
		}
		nodes, err := d.Rules(ctx, r.name)
		if err != nil {
			return err
		}
		for _, node := range nodes {
			for _, have := range node.Rules {
				if have.Who() == r.rule.Who() && have.Key == r.rule.Key && have.Perm != r.rule.Perm {
					return &fault{code: exitRefused, line: r.line, at: r.permAt,
						text: fmt.Sprintf("the rule says %s: leave the word out to remove it whatever it says", have.Perm)}
				}
			}
		}
		return d.DelRule(ctx, r.name, r.rule)
	})
}
