package remote

import (
	"context"
	"io"
	"runtime"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/trans"
)

const (
	echoDepth = 16
	echoSize  = 4096
)

// echo is an export that allocates nothing once it serves: it answers all that
// has come by one write. Ends when the connection does.
func echo(p *peer, s *conn.Sock) {
	defer s.Close()
	l := &line{Stream: s}
	if p.greet(l) != nil {
		return
	}
	size := abi.HeaderSize + digestNow().Size()
	in := conn.NewIn(l.Stream, make([]byte, 1<<20))
	out := make([]byte, 0, 1<<20)
	zero := make([]byte, echoSize)
	var h, r abi.Header
	for {
		if in.Buffered() < size {
			if _, err := l.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		b, err := in.Peek(size)
		if err != nil {
			return
		}
		h.Parse(b)
		n := int(h.Payload())
		if in.Skip(size); in.Discard(int64(n)) != nil {
			return
		}
		r = abi.Header{Cmd: abi.MsgIOResponse, ID: h.ID, Sector: h.Sector, Size: csizeNow(), CSize: csizeNow()}
		r.SetVerifier(p.welcome.Verifier)
		var data []byte
		switch h.Cmd {
		case abi.MsgIO:
			data = zero[:echoSize-n]
		case abi.MsgFlush: // the node's own, when its log is half full
		case abi.MsgPing:
			r.Cmd = abi.MsgPong
		default:
			continue
		}
		r.Size += uint32(len(data))
		at := len(out)
		out = out[:at+size]
		r.Put(out[at:])
		digestNow().Seal(out[at:], data)
		out = append(out, data...)
	}
}

// pump is a front that keeps echoDepth requests in flight.
type pump struct {
	node *Node
	back chan *trans.Trans
}

func (u *pump) Complete(t *trans.Trans) { u.back <- t }
func (u *pump) Flush()                  {}

// drive does n requests and sends by batches, as a front does: what has come
// back is replaced, then kicked.
func (u *pump) drive(tb testing.TB, op trans.Op, n int) {
	r := u.node.Reserve()
	sent, back := 0, 0
	for back < n {
		for sent < n && sent-back < echoDepth {
			t, _ := r.Get(op, echoSize, nil)
			t.Front, t.Offset = u, uint64(sent%128)*echoSize
			u.node.Submit(t)
			sent++
		}
		u.node.Kick()
		t := <-u.back
		for more := true; more; {
			if t.Err != 0 {
				tb.Fatal(t.Err)
			}
			r.Put(t)
			back++
			select {
			case t = <-u.back:
			default:
				more = false
			}
		}
	}
}

// newPump is a node on a real socket pair, established.
func newPump(tb testing.TB) *pump {
	tb.Helper()
	p := newPeer()
	near, far := conntest.SockPair(tb)
	p.serving.Go(func() { echo(p, far) })
	b := assemble(tb, p, make([]byte, SavedSize), nil)
	b.node.env.Dial = func(context.Context, abi.Addr) (conn.Stream, error) {
		if near == nil {
			return nil, io.EOF
		}
		s := near
		near = nil
		return s, nil
	}
	b.node.Start()
	return &pump{b.node, make(chan *trans.Trans, echoDepth)}
}

// TestNoAllocationPerRequest: in the steady state a READ and a WRITE allocate
// nothing, in any goroutine of the node.
func TestNoAllocationPerRequest(t *testing.T) {
	u := newPump(t)
	const n = 20000
	for _, op := range []trans.Op{trans.Read, trans.Write} {
		u.drive(t, op, 2000) // what is made once is made now
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		u.drive(t, op, n)
		runtime.ReadMemStats(&after)
		per := float64(after.Mallocs-before.Mallocs) / n
		t.Logf("%v: %.5f allocations a request", op, per)
		if per >= 0.01 {
			t.Errorf("%v: %.5f allocations a request", op, per)
		}
	}
}

func benchmark(b *testing.B, op trans.Op) {
	u := newPump(b)
	u.drive(b, op, 1000)
	b.SetBytes(echoSize)
	b.ReportAllocs()
	began := time.Now()
	b.ResetTimer()
	u.drive(b, op, b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "requests/s")
}

// 4 KiB requests, 16 in flight, over a Unix socket pair to an export that does
// nothing: what the remote and the system calls cost.
func BenchmarkRead4K(b *testing.B)  { benchmark(b, trans.Read) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, trans.Write) }
