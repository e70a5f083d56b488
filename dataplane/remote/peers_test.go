package remote

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/trans"
)

// TestPeersAreTriedInTurn: a node with two addresses goes on at the second when
// the first is gone, and fails if that turns out to be another store.
func TestPeersAreTriedInTurn(t *testing.T) {
	for _, c := range []struct {
		name  string
		store abi.ID
		want  abi.State
	}{
		{"same store", abi.ID{2}, abi.StateEstablished},
		{"another store", abi.ID{3}, abi.StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				first, second := newPeer(), newPeer()
				second.welcome.StoreID = c.store
				a, b := abi.UnixAddr("/a"), abi.UnixAddr("/b")
				first.route = func(to abi.Addr) *peer {
					if to == b {
						return second
					}
					return first
				}
				n := start(t, first, func(c *Config) { c.Peers = []abi.Addr{a, b} })
				n.state(t, abi.StateEstablished)
				first.set(func(p *peer) { p.dialErr = unix.ECONNREFUSED })
				first.cut()
				time.Sleep(2 * time.Second)
				n.state(t, c.want)
				want := unix.Errno(0)
				if c.want == abi.StateFailed {
					want = unix.EIO
				} else if s := n.node.Status(); s.Peer != b {
					t.Fatalf("connected to %v", s.Peer)
				}
				if errno, _ := n.do(trans.Read, 0, make([]byte, 512)); errno != want {
					t.Fatal(errno)
				}
			})
		})
	}
}

// routed is Env.Dial of a node with several peers.
func (p *peer) routed(ctx context.Context, to abi.Addr) (conn.Stream, error) {
	if p.route != nil {
		p = p.route(to)
	}
	return p.dial(ctx, to)
}
