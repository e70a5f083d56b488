package remote

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// sizes are those of the shapes.
func sizes(all []Info) (n []uint64) {
	for _, i := range all {
		n = append(n, i.Size)
	}
	return n
}

// TestGrownExportGrowsTheDevice: a later WELCOME with a larger size is the
// device's; the limit still holds, and the page remembers it.
func TestGrownExportGrowsTheDevice(t *testing.T) {
	for _, tt := range []struct {
		limit uint64
		want  []uint64 // after each growth
	}{
		{0, []uint64{2 << 20, 3<<20 + 512}},
		{2<<20 + 100, []uint64{2 << 20}},
		{1 << 20, nil},
	} {
		bubble(t, func(t *testing.T) {
			p := newPeer()
			b := start(t, p, func(c *Config) { c.Size = tt.limit })
			b.state(t, abi.StateEstablished)
			grown := []uint64{1 << 20}
			for _, size := range []uint64{1 << 20, 2 << 20, 3<<20 + 700} {
				p.set(func(p *peer) { p.welcome.Size = size })
				p.cut()
				time.Sleep(time.Second)
				b.state(t, abi.StateEstablished)
				info, _ := b.node.Info()
				grown = append(grown, info.Size)
			}
			last := append([]uint64{1 << 20}, tt.want...)
			if grown = slices.Compact(grown); !slices.Equal(sizes(b.ups), last[:1]) || !slices.Equal(grown, last) {
				t.Errorf("limit %d: up %d, grown %d, want %d", tt.limit, sizes(b.ups), grown, last)
			}
			b.node.Close()
			after := restart(t, p, b.page, func(c *Config) { c.Size = tt.limit })
			after.state(t, abi.StateEstablished)
			if got := sizes(after.ups); !slices.Equal(got, last[len(last)-1:]) {
				t.Errorf("limit %d: after a restart up %d, want %d", tt.limit, got, last[len(last)-1])
			}
		})
	}
}

// TestKnownShapeIsUpBeforeThePeer: a restarted daemon offers the device although
// nobody answers; its requests wait.
func TestKnownShapeIsUpBeforeThePeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		first := start(t, p, nil)
		first.state(t, abi.StateEstablished)
		first.node.Close()
		p.set(func(p *peer) { p.dialErr = unix.ECONNREFUSED })
		b := restart(t, p, first.page, nil)
		synctest.Wait()
		if !slices.Equal(b.ups, first.ups) || len(b.ups) != 1 {
			t.Fatalf("up with %+v, before with %+v", b.ups, first.ups)
		}
		b.submit(trans.Read, 0, make([]byte, 512))
		time.Sleep(time.Minute)
		p.set(func(p *peer) { p.dialErr = nil })
		if errno, _ := b.wait(); errno != 0 {
			t.Fatal(errno)
		}
		if len(b.ups) != 1 {
			t.Fatalf("up %d times", len(b.ups))
		}
	})
}

// TestPromisedShapeIsKeptAcrossDaemons: an export that takes less than an
// earlier daemon's users were promised is not used.
func TestPromisedShapeIsKeptAcrossDaemons(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		first := start(t, p, nil)
		first.state(t, abi.StateEstablished)
		first.node.Close()
		p.set(func(p *peer) { p.welcome.BlockMin = 4096 })
		b := restart(t, p, first.page, nil)
		time.Sleep(10 * time.Second)
		if s := b.node.Status(); s.State == abi.StateEstablished || s.State == abi.StateFailed || !strings.Contains(s.Reason, "4096") {
			t.Fatalf("%v: %s", s.State, s.Reason)
		}
	})
}

// TestSetSize: the limit takes and gives, and never gives what is not offered.
func TestSetSize(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := assemble(t, p, make([]byte, SavedSize), nil)
		if got := b.node.Fit(512); got != 0 {
			t.Errorf("before the first WELCOME %d fit", got)
		}
		b.node.SetSize(1 << 19)
		b.node.Start()
		b.state(t, abi.StateEstablished)
		for _, tt := range []struct{ limit, want uint64 }{
			{0, 1 << 20}, {4096 + 511, 4096}, {1 << 40, 1 << 20}, {100, 0}, {1 << 19, 1 << 19},
		} {
			if got := b.node.Fit(tt.limit); got != tt.want {
				t.Errorf("limit %d: %d fit, want %d", tt.limit, got, tt.want)
			}
		}
		if !slices.Equal(sizes(b.ups), []uint64{1 << 19}) {
			t.Errorf("up with %+v", b.ups)
		}
		b.node.SetSize(0)
		if i, _ := b.node.Info(); i.Size != 1<<20 {
			t.Errorf("%d bytes", i.Size)
		}
		b.node.SetSize(4096)
		p.set(func(p *peer) { p.welcome.Size = 4096 }) // the export may shrink behind it
		p.cut()
		time.Sleep(time.Second)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) { p.welcome.Size = 3584 }) // but no further
		p.cut()
		time.Sleep(time.Second)
		b.state(t, abi.StateFailed)
	})
}

// TestFail: a front that lost its device ends the service for good.
func TestFail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer()
		b := start(t, p, nil)
		b.state(t, abi.StateEstablished)
		p.set(func(p *peer) { p.on = hold(func(*abi.Header) bool { return true }) })
		b.submit(trans.Read, 0, make([]byte, 512))
		b.node.Fail(errors.New("somebody took the device away"))
		b.node.Fail(errors.New("again"))
		if errno, _ := b.wait(); errno != unix.EIO {
			t.Error(errno)
		}
		b.state(t, abi.StateFailed)
		if s := b.node.Status(); s.Reason != "somebody took the device away" {
			t.Error(s.Reason)
		}
		if errno, _ := b.do(trans.Write, 0, make([]byte, 512)); errno != unix.EIO {
			t.Error(errno)
		}
	})
}
