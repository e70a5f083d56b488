package export

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/crypt"
)

// laps is how long each of n writes of c takes, sorted.
func laps(t *testing.T, c *client, n int) (all []time.Duration) {
	for range n {
		began := time.Now()
		want(t, "WRITE", c.write(0, pattern(4096, 1), 0), 0)
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all
}

// TestN09ManyStrangers: while thousands of strangers from 64 addresses say nothing,
// a little, garbage or a wrong key, there are never more than the limits of them
// half-open, who is served stays served, and in the end nothing of them is left.
func TestN09ManyStrangers(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	good := w.served(k, helloOf(1, 1, abi.PermRW))
	const rounds = 1000
	alone := laps(t, good, rounds)
	used, files := w.budget.Used(), len(openFiles())
	ap, _ := w.Addrs()[0].AddrPort()
	ctx, cancel := context.WithCancel(t.Context())
	var tried atomic.Int64
	var crowd sync.WaitGroup
	for i := range 64 {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, Timeout: time.Second}
		words := [][]byte{nil, message1(t, gcmKey(t, 2)), firstWords(), message1(t, k)[:20], pattern(300, byte(i))}
		crowd.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for ctx.Err() == nil {
				c, err := from.DialContext(ctx, "tcp", ap.String())
				if err != nil {
					continue
				}
				tried.Add(1)
				_, _ = c.Write(words[r.IntN(len(words))])
				if r.IntN(8) > 0 {
					_ = c.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(50)) * time.Millisecond))
					_, _ = io.CopyN(io.Discard, c, crypt.ReplySize)
				}
				_ = c.Close()
			}
		})
	}
	eventually(t, "they crowd", func() bool { return tried.Load() > 500 })
	crowded := laps(t, good, rounds)
	w.ports.mu.Lock()
	open, most := len(w.ports.mu.open), 0
	for _, n := range w.ports.mu.half {
		most = max(most, n)
	}
	w.ports.mu.Unlock()
	cancel()
	crowd.Wait()
	t.Logf("%d strangers, %d half-open, %d of one address; p99 of a write alone %v, in the crowd %v", tried.Load(), open, most,
		alone[rounds*99/100], crowded[rounds*99/100])
	if open > halfOpenAll || most > halfOpenEach {
		t.Errorf("%d half-open, %d of one address", open, most)
	}
	w.quiet()
	want(t, "sessions", len(w.Status().Sessions), 1)
	want(t, "memory", w.budget.Used(), used)
	eventually(t, "descriptors are given back", func() bool { return len(openFiles()) <= files })
	if c := w.Counters(); c.AuthErrors == 0 || c.Connects != 1 || len(w.events) > refusalsMax+1 {
		t.Errorf("counted %+v, %d events", c, len(w.events))
	}
}
