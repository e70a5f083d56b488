package conn_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test over every kind of stream.
func each(t *testing.T, f func(t *testing.T, a, b conn.Stream)) {
	t.Run("pipe", func(t *testing.T) {
		a, b := conntest.Pipe()
		defer func() { _, _ = a.Close(), b.Close() }()
		f(t, a, b)
	})
	t.Run("unix", func(t *testing.T) {
		a, b := conntest.SockPair(t)
		f(t, a, b)
	})
	for _, m := range media {
		t.Run(m.name, func(t *testing.T) {
			a, b := conntest.Pair(t, m.listen)
			f(t, a, b)
		})
	}
	t.Run("secure pipe", func(t *testing.T) {
		a, b := conntest.Pipe()
		sa, sb := conntest.Secure(t, a, b, suite(t, "", ""), nil)
		f(t, sa, sb)
	})
	t.Run("secure tcp", func(t *testing.T) {
		a, b := conntest.TCPPair(t)
		sa, sb := conntest.Secure(t, a, b, suite(t, "cbc(aes)", "hmac(sha256)"), nil)
		f(t, sa, sb)
	})
}

// suite is the suite of these names.
func suite(t testing.TB, cipher, hash string) crypt.Suite {
	t.Helper()
	s, err := crypt.ParseSuite(cipher, hash, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ledger counts Sent calls and keeps their order.
type ledger struct {
	sync.Mutex
	sent   []*conn.Frame
	errs   []error
	signal chan struct{}
}

func newLedger() *ledger { return &ledger{signal: make(chan struct{}, 1<<16)} }

func (l *ledger) Sent(f *conn.Frame, err error) {
	l.Lock()
	l.sent, l.errs = append(l.sent, f), append(l.errs, err)
	l.Unlock()
	l.signal <- struct{}{}
}

// wait returns when Sent was called n times more.
func (l *ledger) wait(n int) {
	for range n {
		<-l.signal
	}
}

func frame(l conn.Sender, head, data []byte) *conn.Frame {
	f := &conn.Frame{Data: data, Owner: l}
	f.Head = f.Room[:copy(f.Room[:], head)]
	return f
}

func TestOutSendsInOrder(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		o, l := conn.NewOut(a), newLedger()
		defer o.Close()
		var want []byte
		var frames []*conn.Frame
		for i := range 1000 {
			f := frame(l, fmt.Append(nil, i, ":"), bytes.Repeat([]byte{byte(i)}, i%7*1000))
			if i%10 == 0 {
				f.Head = nil
			}
			if i%50 == 0 {
				f.Data = nil // nothing at all
			}
			want = append(append(want, f.Head...), f.Data...)
			frames = append(frames, f)
			if !o.Push(f) {
				t.Fatal("Push refused")
			}
		}
		if !o.Pending() {
			t.Error("nothing is pending")
		}
		got := make([]byte, len(want))
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(b, got)
			read <- err
		}()
		o.Flush()
		if err := <-read; err != nil || !bytes.Equal(got, want) {
			t.Fatalf("other bytes arrived: %v", err)
		}
		l.wait(len(frames))
		for i, f := range frames {
			if l.sent[i] != f || l.errs[i] != nil {
				t.Fatalf("Sent %d is of another frame, or %v", i, l.errs[i])
			}
		}
		if _, secure := a.(*conn.Secure); o.Progress() != uint64(len(want)) && !secure {
			t.Errorf("progress %d of %d", o.Progress(), len(want))
		}
	})
}

// TestOutWaitsForRoom: a frame larger than all buffers leaves in parts.
func TestOutWaitsForRoom(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		o, l := conn.NewOut(a), newLedger()
		defer o.Close()
		data := make([]byte, 20<<20)
		for i := range data {
			data[i] = byte(i * 7 >> 3)
		}
		o.Push(frame(l, []byte("head"), data))
		o.Push(frame(l, []byte("tail"), nil))
		o.Flush() // returns though nobody reads
		if !o.Pending() {
			t.Error("20 MiB left at once")
		}
		got := make([]byte, 4+len(data)+4)
		if _, err := io.ReadFull(b, got); err != nil {
			t.Fatal(err)
		}
		if string(got[:4]) != "head" || !bytes.Equal(got[4:4+len(data)], data) || string(got[4+len(data):]) != "tail" {
			t.Error("other bytes arrived")
		}
		l.wait(2)
	})
}

func TestOutCloseTellsAll(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		o, l := conn.NewOut(a), newLedger()
		big := make([]byte, 20<<20)
		for range 3 {
			o.Push(frame(l, []byte("head"), big))
		}
		o.Flush()
		o.Push(frame(l, []byte("not flushed"), nil))
		o.Close()
		o.Close()
		if len(l.sent) != 4 {
			t.Fatalf("%d of 4 told when Close returned", len(l.sent))
		}
		for i, err := range l.errs {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("frame %d: %v", i, err)
			}
		}
		f := frame(l, []byte("late"), nil)
		if o.Push(f) || o.Pending() || !errors.Is(o.Err(), net.ErrClosed) {
			t.Error("Push after Close")
		}
		o.Flush()
		if len(l.sent) != 4 {
			t.Error("Sent after Push said no")
		}
	})
}

func TestOutBreaksWhenThePeerIsGone(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		if s, ok := a.(*conn.Sock); ok && s.PeerAddr().Medium() == "mptcp" {
			return // it tells who reads at once, who writes after a minute: TestMediaPeerGone
		}
		o, l := conn.NewOut(a), newLedger()
		defer o.Close()
		_ = b.Close()
		for n := 0; ; n++ { // TCP takes some before it hears of it
			f := frame(l, make([]byte, 48), make([]byte, 4096))
			if !o.Push(f) {
				break
			}
			o.Flush()
			l.wait(1)
		}
		err := o.Err()
		if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("broken by %v", err)
		}
		if last := l.errs[len(l.errs)-1]; last != err {
			t.Errorf("frame failed with %v, connection with %v", last, err)
		}
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("the reading half does not know")
		}
	})
}

// chain pushes its frame again from Sent.
type chain struct {
	o    *conn.Out
	left int
	done chan error
}

func (c *chain) Sent(f *conn.Frame, err error) {
	if c.left--; err != nil || c.left == 0 {
		c.o.Break(io.ErrUnexpectedEOF) // allowed here, too
		c.done <- err
		return
	}
	c.o.Push(f)
	c.o.Flush()
}

func TestOutPushAgainFromSent(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		c := &chain{o: conn.NewOut(a), left: 100, done: make(chan error, 1)}
		defer c.o.Close()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		c.o.Push(frame(c, []byte("again"), nil))
		c.o.Flush()
		if err := <-c.done; err != nil {
			t.Error(err)
		}
		if c.o.Close(); c.o.Err() != io.ErrUnexpectedEOF {
			t.Errorf("broken by %v", c.o.Err())
		}
	})
}

func TestOutPushTwicePanics(t *testing.T) {
	a, _ := conntest.SockPair(t)
	o, l := conn.NewOut(a), newLedger()
	defer o.Close()
	f := frame(l, []byte("x"), nil)
	o.Push(f)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	o.Push(f)
}

// counted is a frame of the stress test: who, how many, and how often told.
type counted struct {
	conn.Frame
	sent atomic.Int32
	err  error
}

func (c *counted) Sent(_ *conn.Frame, err error) {
	c.err = err
	c.sent.Add(1)
}

// TestOutStress: many push and flush, the connection is closed at some moment;
// what arrives is a prefix of what was told as sent, each pusher's in order, and
// everything pushed is told exactly once.
func TestOutStress(t *testing.T) {
	for round := range 30 {
		each(t, func(t *testing.T, a, b conn.Stream) { stress(t, a, b, uint64(round)) })
	}
}

func stress(t *testing.T, a, b conn.Stream, seed uint64) {
	const pushers, most = 8, 400
	o := conn.NewOut(a)
	arrived := make(chan [pushers]int, 1)
	go func() { arrived <- receive(t, b) }()

	var pushed [pushers][]*counted
	var wg sync.WaitGroup
	limit := rand.New(rand.NewPCG(seed, 99)).IntN(most)
	for p := range pushers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(p)))
			for i := range most {
				c := &counted{}
				c.Owner, c.Head, c.Data = c, c.Room[:12], make([]byte, r.IntN(9000))
				binary.BigEndian.PutUint32(c.Room[:], uint32(p))
				binary.BigEndian.PutUint32(c.Room[4:], uint32(i))
				binary.BigEndian.PutUint32(c.Room[8:], uint32(len(c.Data)))
				if !o.Push(&c.Frame) {
					return
				}
				pushed[p] = append(pushed[p], c)
				if r.IntN(4) == 0 {
					o.Flush()
				}
				if p == 0 && i == limit {
					go o.Close()
				}
			}
			o.Flush()
		})
	}
	wg.Wait()
	o.Close()
	got := <-arrived
	for p := range pushed {
		good := 0
		for i, c := range pushed[p] {
			if n := c.sent.Load(); n != 1 {
				t.Fatalf("frame %d of %d: told %d times", i, p, n)
			}
			if c.err == nil && good == i {
				good++
			} else if c.err == nil {
				t.Fatalf("frame %d of %d left after one that did not", i, p)
			}
		}
		if got[p] > good {
			t.Fatalf("pusher %d: %d frames told as sent, %d arrived", p, good, got[p])
		}
	}
}

// receive reads frames until the end and returns how many of each pusher came.
func receive(t *testing.T, b conn.Stream) (got [8]int) {
	in := conn.NewIn(b, make([]byte, 64<<10))
	for {
		head, err := in.Peek(12)
		if err != nil {
			return got
		}
		p, i, n := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
		in.Skip(12)
		if p >= 8 || int(i) != got[p] {
			t.Errorf("frame %d of %d came after %d", i, p, got)
			return got
		}
		if err := in.Discard(int64(n)); err != nil {
			return got
		}
		got[p]++
	}
}

func TestHalvesDoNotAllocate(t *testing.T) {
	each(t, func(t *testing.T, a, b conn.Stream) {
		o, in := conn.NewOut(a), conn.NewIn(b, make([]byte, 256<<10))
		defer o.Close()
		f := &conn.Frame{Data: make([]byte, 128<<10)}
		l := make(wake, 1)
		f.Head, f.Owner = f.Room[:48], l
		dst := make([]byte, len(f.Data))
		if n := testing.AllocsPerRun(200, func() {
			o.Push(f)
			o.Flush()
			if _, err := in.Peek(48); err != nil {
				t.Fatal(err)
			}
			in.Skip(48)
			if err := in.ReadFull(dst); err != nil {
				t.Fatal(err)
			}
			<-l
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

type wake chan struct{}

func (w wake) Sent(*conn.Frame, error) { w <- struct{}{} }

func TestOutShowsAStalledPeer(t *testing.T) {
	a, b := conntest.SockPair(t)
	o, l := conn.NewOut(a), newLedger()
	defer o.Close()
	data := make([]byte, 64<<10)
	for range 64 {
		o.Push(frame(l, nil, data))
		o.Flush()
	}
	stalled := o.Progress()
	if !o.Pending() || stalled == 0 || stalled == 64*uint64(len(data)) {
		t.Fatalf("pending %v, progress %d", o.Pending(), stalled)
	}
	in := conn.NewIn(b, make([]byte, 64<<10))
	if err := in.Discard(64 * int64(len(data))); err != nil {
		t.Fatal(err)
	}
	l.wait(64)
	if o.Progress() != 64*uint64(len(data)) {
		t.Errorf("progress %d", o.Progress())
	}
}

func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{0, 4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("unix/%dK", size>>10), func(b *testing.B) {
			s, r := conntest.SockPair(b)
			frames(b, s, r, size)
		})
		b.Run(fmt.Sprintf("tcp/%dK", size>>10), func(b *testing.B) {
			s, r := conntest.TCPPair(b)
			frames(b, s, r, size)
		})
	}
}

// frames sends frames with payload, 64 deep, until the other end has them all.
func frames(b *testing.B, s, r conn.Stream, size int) {
	const depth = 64
	o, in := conn.NewOut(s), conn.NewIn(r, make([]byte, 256<<10))
	defer o.Close()
	free := make(returned, depth)
	for range depth {
		f := &conn.Frame{Data: make([]byte, size), Owner: free}
		f.Head = f.Room[:52]
		free <- f
	}
	done := make(chan struct{})
	total := b.N
	go func() {
		defer close(done)
		dst := make([]byte, size)
		for range total {
			if _, err := in.Peek(52); err != nil {
				return
			}
			in.Skip(52)
			if in.ReadFull(dst) != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(size + 52))
	b.ReportAllocs()
	b.ResetTimer()
	before := spent()
	for range total {
		select {
		case f := <-free:
			o.Push(f)
		default: // all are under way
			o.Flush()
			o.Push(<-free)
		}
	}
	o.Flush()
	<-done
	b.StopTimer()
	b.ReportMetric(float64(total)/float64(max(in.Frames(), 1)), "frames/read")
	b.ReportMetric(float64(spent()-before)/float64(total), "cpu-ns/op")
}

// spent is the processor time of the process: both ends, and what the kernel did
// for them. On a machine that is shared it says more than the time that passed.
func spent() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

type returned chan *conn.Frame

func (r returned) Sent(f *conn.Frame, _ error) { r <- f }
