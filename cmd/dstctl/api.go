package main

import (
	"context"
	"time"

	"dst/abi"
	"dst/controlplane/client"
)

// api is what dstctl asks of a daemon: controlplane/client, or a fake in tests.
type api interface {
	AddRemote(ctx context.Context, n *abi.Node) error
	AddExport(ctx context.Context, n *abi.Node) error
	Del(ctx context.Context, name string, force bool) error
	Start(ctx context.Context, name string) error
	Steal(ctx context.Context, name string) error
	Set(ctx context.Context, n *abi.Node) error
	Crypto(ctx context.Context, c *abi.Crypto) error
	AddRule(ctx context.Context, name string, r abi.Rule) error
	DelRule(ctx context.Context, name string, r abi.Rule) error
	Rules(ctx context.Context, name string) ([]*abi.NodeRules, error) // "" = of all exports
	Get(ctx context.Context, name string) (*abi.Node, error)
	List(ctx context.Context) ([]*abi.Node, error)
	Stats(ctx context.Context, name string) (*abi.Counters, error)
	ListStats(ctx context.Context) ([]*abi.NodeStats, error)
	Sys(ctx context.Context) (*abi.Sys, error)
	Subscribe(ctx context.Context) (events, error)
	Watch(ctx context.Context) (updates, error)
	Close() error
}

// events are what happens at a daemon, in order (client.Events).
type events interface {
	Next(ctx context.Context) (abi.Event, error)
	Close() error
}

// updates are all nodes, then what happens to them (client.Watch).
type updates interface {
	Next(ctx context.Context) (client.Update, error)
	Close() error
}

// dialer finds the daemon of this network namespace. The error is
// client.ErrNoDaemon where there is none, errSilent where it does not answer.
type dialer func(ctx context.Context) (api, error)

const (
	answerTime = 10 * time.Second // how long a daemon may take to answer a request
	delTime    = time.Minute      // and to remove a node, by force too
)
