package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// big is n of the largest records, sealed.
func big(t fatal, p *Pool, n int) (o *Opener, stream []byte, texts [][]byte) {
	t.Helper()
	sealer, opener := direction(t, everySuite[0], 1, p)
	for range n {
		texts = append(texts, text(RecordData))
	}
	return opener, slices.Concat(sealAll(t, sealer, texts...)...), texts
}

// TestPoolAlone: nothing is handed over with a limit of 1, without a pool, after
// Close, or if it is little.
func TestPoolAlone(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	closed := NewPool(4)
	closed.Close()
	closed.Close()
	for name, p := range map[string]*Pool{"limit 1": NewPool(1), "nil": nil, "closed": closed} {
		o, stream, texts := big(t, p, 20)
		if got, err := openBatch(o, stream, texts); err != nil || !same(got, texts) {
			t.Errorf("%s: %v", name, err)
		}
		if p.Workers() != 0 {
			t.Errorf("%s: %d workers", name, p.Workers())
		}
	}
	p := NewPool(4)
	defer p.Close()
	sealer, _ := direction(t, everySuite[0], 1, p)
	for range 100 { // small ones, and a large one alone
		sealAll(t, sealer, text(100), text(bigRecord-1), text(bigRecord))
	}
	if p.Workers() != 0 {
		t.Errorf("%d workers for little", p.Workers())
	}
}

// TestPoolGrowsAndShrinks: workers come with the load, as many as the limit
// permits, and leave without it, or when the limit is lowered.
func TestPoolGrowsAndShrinks(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := NewPool(3)
	defer p.Close()
	grow := func(limit int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); p.Workers() != limit-1; {
			big(t, p, maxJobs)
			if p.Workers() >= limit {
				t.Fatalf("%d workers, the limit is %d", p.Workers(), limit)
			}
			if time.Now().After(end) {
				t.Fatalf("%d workers", p.Workers())
			}
		}
	}
	grow(3)
	p.SetLimit(5)
	grow(5)
	p.SetLimit(2) // those that are idle leave at once
	leave(t, p, 1)
	p.SetLimit(1)
	leave(t, p, 0)
	if p.SetLimit(0); p.Limit() < 1 {
		t.Errorf("limit %d", p.Limit())
	}
	p.SetLimit(3)
	grow(3)
	leave(t, p, 0) // for want of work
}

// leave waits until no more than n workers are left.
func leave(t *testing.T, p *Pool, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); p.Workers() > n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d workers, not %d", p.Workers(), n)
		}
	}
}

// TestPoolShared: many connections use one pool while its limit changes and it is
// closed; each has its own records in order.
func TestPoolShared(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := NewPool(4)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			s := everySuite[n%len(everySuite)]
			sealer, opener := direction(t, s, byte(n), p)
			sealer.lane.limits.records = 5
			texts := [][]byte{text(RecordData), text(10), text(RecordData - 1), text(bigRecord), text(RecordData), text(RecordData)}
			for range 20 {
				got, err := openBatch(opener, slices.Concat(sealAll(t, sealer, texts...)...), texts)
				if err != nil || !same(got, texts) {
					t.Errorf("%s: %v", s, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 50 {
			p.SetLimit(1 + i%5)
			time.Sleep(time.Millisecond)
		}
		p.Close()
	})
	wg.Wait()
}

// TestPoolForged: a record of a batch that is not the peer's is found whoever opens
// it.
func TestPoolForged(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	for i := range 8 {
		o, stream, texts := big(t, p, 8)
		stream[len(stream)/8*i+100] ^= 4
		got, err := openBatch(o, stream, texts)
		if !errors.Is(err, ErrForged) {
			t.Fatalf("record %d: %v", i, err)
		}
		if !bytes.Equal(got[i], make([]byte, RecordData)) {
			t.Errorf("record %d was shown", i)
		}
	}
}

// TestPoolDoesNotAllocate: nor does a batch that is shared.
func TestPoolDoesNotAllocate(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	sealer, opener := direction(t, everySuite[0], 1, p)
	plain, dst := text(8*RecordData), make([]byte, 8*RecordData)
	buf := make([]byte, 8*RecordMax)
	if n := testing.AllocsPerRun(100, func() { batch(t, sealer, opener, plain, dst, buf) }); n > 0.5 {
		t.Errorf("%v allocations", n) // a worker may be started
	}
	if !bytes.Equal(plain, dst) {
		t.Error("other bytes")
	}
}

// batch seals plain and opens it, each as one batch.
func batch(t fatal, s *Sealer, o *Opener, plain, dst, buf []byte) {
	end := sealInto(t, s, plain, buf)
	openInto(t, o, buf[:end], dst)
}

func sealInto(t fatal, s *Sealer, plain, buf []byte) (end int) {
	for at := 0; at < len(plain); at += RecordData {
		n, err := s.Seal(buf[end:], plain[at:min(at+RecordData, len(plain))])
		if err != nil {
			t.Fatal(err)
		}
		end += n
	}
	s.Finish()
	return end
}

func openInto(t fatal, o *Opener, raw, dst []byte) {
	for len(raw) > 0 {
		n, size, err := o.Next(raw)
		if err != nil {
			t.Fatal(err)
		}
		o.Open(dst[:n], raw[:size])
		dst, raw = dst[n:], raw[size:]
	}
	if err := o.Finish(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSealer(b *testing.B) {
	for _, s := range everySuite {
		for _, n := range []int{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("%s/%dK", s, n>>10), func(b *testing.B) { benchSeal(b, s, nil, n) })
		}
	}
}

func BenchmarkOpener(b *testing.B) {
	for _, s := range everySuite {
		for _, n := range []int{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("%s/%dK", s, n>>10), func(b *testing.B) { benchOpen(b, s, nil, n) })
		}
	}
}

// BenchmarkPool: batches shared by one and two threads.
func BenchmarkPool(b *testing.B) {
	for _, s := range []Suite{{cipher: cipherGCM}, {cipher: cipherChaCha}, {cipherCBC, macSHA256}} {
		for _, n := range []int{128 << 10, 256 << 10, 1 << 20} {
			for threads := 1; threads <= 2; threads++ {
				p := NewPool(threads)
				b.Run(fmt.Sprintf("seal/%s/%dK/threads%d", s, n>>10, threads), func(b *testing.B) { benchSeal(b, s, p, n) })
				b.Run(fmt.Sprintf("open/%s/%dK/threads%d", s, n>>10, threads), func(b *testing.B) { benchOpen(b, s, p, n) })
				p.Close()
			}
		}
	}
}

func benchSeal(b *testing.B, s Suite, p *Pool, n int) {
	sealer, _ := direction(b, s, 1, p)
	plain, buf := text(n), make([]byte, n+(n/RecordData+1)*RecordExtra)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	before := spent()
	for b.Loop() {
		sealInto(b, sealer, plain, buf)
	}
	b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
}

// spent is the processor time of the process: on a machine that is shared it says
// more than the time that passed.
func spent() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// benchOpen opens the same records again and again: the counter is set back.
func benchOpen(b *testing.B, s Suite, p *Pool, n int) {
	sealer, opener := direction(b, s, 1, p)
	dst, buf := make([]byte, n), make([]byte, n+(n/RecordData+1)*RecordExtra)
	end := sealInto(b, sealer, text(n), buf)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	before := spent()
	for b.Loop() {
		opener.lane.count, opener.lane.records = 0, 0
		openInto(b, opener, buf[:end], dst)
	}
	b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
}
