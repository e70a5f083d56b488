package export

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// soon is how long a client that lost a right may go on.
const soon = 100 * time.Millisecond

// load writes without end, 16 at a time, and tells of every answer.
type load struct {
	answers atomic.Int64
	denied  chan time.Time // the first EPERM
	gone    chan time.Time // the end of the connection
}

func startLoad(c *client) *load {
	l := &load{denied: make(chan time.Time, 1), gone: make(chan time.Time, 1)}
	window := make(chan struct{}, 16)
	go func() {
		data := pattern(4096, 1)
		for i := uint64(0); ; i++ {
			window <- struct{}{}
			if c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: i + 1, Sector: i % 64 * 8}, data) != nil {
				return
			}
		}
	}()
	go func() {
		for {
			h, _, err := c.recv()
			if err != nil {
				l.gone <- time.Now()
				for range cap(window) { // the writer sees it too
					select {
					case <-window:
					default:
					}
				}
				return
			}
			if h.Cmd != abi.MsgIOResponse {
				continue
			}
			if l.answers.Add(1); h.Errno() == unix.EPERM {
				select {
				case l.denied <- time.Now():
				default:
				}
			}
			<-window
		}
	}()
	return l
}

// TestN17ChangesApplyAtOnce takes rights from a client with 16 writes in flight, in
// every way there is: it is cut, or may only read, within 100 ms; and when the
// change is done not one more write of it reaches the store.
func TestN17ChangesApplyAtOnce(t *testing.T) {
	k, other := gcmKey(t, 1), gcmKey(t, 2)
	tied := anyone(abi.PermRW)
	tied.Key = k.ID()
	yes := true
	deny := prefix("127.0.0.1/32", 0)
	denyKey := anyone(0)
	denyKey.Key = k.ID()
	for _, tt := range []struct {
		name    string
		change  func(w *world) error
		demoted bool
	}{
		{"rule removed", func(w *world) error { return w.DelRule(tied) }, false},
		{"narrower rule denies", func(w *world) error { return w.AddRule(deny) }, false},
		{"its key is denied", func(w *world) error { return w.AddRule(denyKey) }, false},
		{"its key is removed", func(w *world) error { return w.SetKeys(keysOf(other)) }, false},
		{"all keys are removed", func(w *world) error { return w.SetKeys(nil) }, false},
		{"rule says ro", func(w *world) error { r := tied; r.Perm = abi.PermRead; return w.AddRule(r) }, true},
		{"export becomes read-only", func(w *world) error { return w.Set(nil, nil, &yes) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, disk := memDisk(1 << 20)
			var writes atomic.Int64
			m.setGate(func(call string, _, _ uint64) error {
				if call == "write" {
					writes.Add(1)
					time.Sleep(time.Millisecond)
				}
				return nil
			})
			w := keyed(t, Config{}, disk, k, other)
			if err := w.AddRule(tied); err != nil {
				t.Fatal(err)
			}
			if err := w.DelRule(anyone(0)); err != nil {
				t.Fatal(err)
			}
			c := w.served(k, helloOf(1, 1, abi.PermRW))
			l := startLoad(c)
			eventually(t, "it writes", func() bool { return l.answers.Load() > 100 })
			began := time.Now()
			if err := tt.change(w); err != nil {
				t.Fatal(err)
			}
			took, after := time.Since(began), writes.Load()
			end := l.gone
			if tt.demoted {
				end = l.denied
			}
			lost := (<-end).Sub(began)
			t.Logf("done after %v, the client knew after %v", took, lost)
			if took > soon || lost > soon {
				t.Errorf("it took %v, the client was served for %v", took, lost)
			}
			if tt.demoted {
				n := l.answers.Load()
				eventually(t, "it is answered on", func() bool { return l.answers.Load() > n+100 })
				_ = c.st.Close()
				<-l.gone
			}
			eventually(t, "the session is over", func() bool { return len(w.Status().Sessions) == 0 })
			want(t, "writes after the change", writes.Load()-after, 0)
		})
	}
}

// TestN17ChangesDoNotWaitForAStuckStore: a write that the store never finishes
// holds no change up.
func TestN17ChangesDoNotWaitForAStuckStore(t *testing.T) {
	m, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	begun, release := held(m)
	defer close(release)
	c := w.client(helloOf(1, 1, abi.PermRW))
	if err := c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite}, pattern(512, 1)); err != nil {
		t.Fatal(err)
	}
	<-begun
	began := time.Now()
	if err := w.DelRule(anyone(0)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*soon {
		t.Errorf("it took %v", took)
	}
	c.gone()
}
