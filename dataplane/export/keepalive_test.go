package export

import (
	"testing"
	"testing/synctest"
	"time"

	"dst/abi"
)

// pings takes what comes and says when.
func pings(c *client) <-chan time.Time {
	heard := make(chan time.Time, 1000)
	go func() {
		defer close(heard)
		for {
			if h, _, err := c.recv(); err != nil || h.Cmd != abi.MsgPing {
				return
			}
			heard <- time.Now()
		}
	}()
	return heard
}

// TestPromisedKeepaliveIsKept: WELCOME said how long the export is never silent
// for; whatever is configured later may make that less.
func TestPromisedKeepaliveIsKept(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		h := helloOf(1, 1, abi.PermRW)
		h.Keepalive = 3_600_000
		c := p.client(h)
		last, heard := time.Now(), pings(c)
		for _, d := range []time.Duration{time.Second, time.Hour, 200 * time.Millisecond, 20 * time.Second} {
			time.Sleep(700 * time.Millisecond)
			if err := p.Set(&d, nil, nil); err != nil {
				t.Fatal(err)
			}
			changed := time.Now()
			time.Sleep(10 * time.Second)
			for len(heard) > 0 {
				at := <-heard
				limit := time.Second
				if last.After(changed) {
					limit = min(limit, d)
				}
				if at.Sub(last) > limit {
					t.Errorf("keepalive %v: silent for %v", d, at.Sub(last))
				}
				last = at
			}
			if time.Since(last) > time.Second {
				t.Fatalf("keepalive %v: silent for %v", d, time.Since(last))
			}
		}
		c.st.Close()
	})
}

// TestShortenedKeepaliveWakesWhoSleeps: no session sleeps on its old one for an hour.
func TestShortenedKeepaliveWakesWhoSleeps(t *testing.T) {
	virtual(t, Config{Keepalive: time.Hour}, func(t *testing.T, p *piped) {
		heard := pings(p.client(brief(helloOf(1, 1, abi.PermRW))))
		time.Sleep(time.Minute)
		want(t, "PINGs in a minute", len(heard), 0)
		d, began := time.Second, time.Now()
		if err := p.Set(&d, nil, nil); err != nil {
			t.Fatal(err)
		}
		for range heard { // until it is cut: it says nothing
		}
		if d := time.Since(began); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

// TestIdleSessionGivesMemoryBack: what was lent to it for a burst is not needed
// behind that.
func TestIdleSessionGivesMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, disk := memDisk(32 << 20)
		p := newPiped(t, Config{Workers: 64, Keepalive: time.Hour}, disk)
		defer p.end()
		release := make(chan struct{})
		m.setGate(func(call string, _, _ uint64) error {
			<-release
			return nil
		})
		c := p.client(helloOf(1, 1, abi.PermRW))
		idle := p.env.Budget.Used()
		const n = 16
		for i := range uint64(n) {
			if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: i, Sector: i * 2048}, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if used := p.env.Budget.Used(); used < idle+8<<20 {
			t.Fatalf("%d bytes are lent to the burst", used-idle)
		}
		close(release)
		for range n {
			if _, _, err := c.reply(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * tidyTime)
		want(t, "memory", p.env.Budget.Used(), idle)
		c.st.Close()
	})
}
