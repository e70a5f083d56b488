package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// shutdownWait is how long I/O of a host that goes down may wait for a peer.
const shutdownWait = 10 * time.Second

// runShutdown bounds the waiting of every remote that would wait for longer.
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
		for _, n := range nodes {
			have := n.Knobs.FailAfter
			if n.Kind != abi.KindRemote || have != nil && *have != 0 && *have <= limit {
				continue
			}
			err := d.Set(ctx, &abi.Node{Name: n.Name, Knobs: abi.Knobs{FailAfter: &limit}})
			if err != nil && !isErrno(err, unix.ENODEV) { // removed meanwhile
				return err
			}
		}
		return nil
	})
}
