package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// shutdownWait is how long I/O of a host that goes down may wait for a peer.
const shutdownWait = 10 * time.Second

// runShutdown bounds the waiting of every remote that would wait for longer,
// but of those that have failed: they wait for nothing. One that can not be set
// keeps no other one waiting.
func runShutdown(s *session, r *request) error {
	limit := uint32(shutdownWait.Milliseconds())
	if r.node.Knobs.FailAfter != nil {
		limit = *r.node.Knobs.FailAfter
	}
	return s.ask(func(ctx context.Context, d api) error {
		nodes, err := d.List(ctx)
		if err != nil {
			return err
		}
		var failed []error
		for _, n := range nodes {
			have := n.Knobs.FailAfter
			if n.Kind != abi.KindRemote || n.Status.State == abi.StateFailed || have != nil && *have != 0 && *have <= limit {
				continue
			}
			err := d.Set(ctx, &abi.Node{Name: n.Name, Knobs: abi.Knobs{FailAfter: &limit}})
			if err != nil && !isErrno(err, unix.ENODEV) { // removed meanwhile
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	})
}
