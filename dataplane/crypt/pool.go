package crypt

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// idleTime is how long a worker waits for more before it ends.
const idleTime = time.Second

// Pool is the crypto workers of a node. Who has several large records to seal or
// open works on them itself, and every worker that is idle, or that the limit
// still permits to start, joins. There is no queue: when all are busy, nobody
// waits for them. All methods may be called by any goroutine, also on a nil Pool,
// which has no workers.
type Pool struct {
	limit  atomic.Int32 // threads, with the one who calls
	offers chan *lane   // a worker that receives is idle
	stop   chan struct{}
	ended  sync.WaitGroup

	mu struct {
		sync.Mutex
		workers int
		closed  bool
	}
}

// NewPool is a pool that lets up to limit threads work for one connection, with
// the one that seals or opens; SetLimit changes it. Close ends it.
func NewPool(limit int) *Pool {
	p := &Pool{offers: make(chan *lane), stop: make(chan struct{})}
	p.SetLimit(limit)
	return p
}

// SetLimit is the limit of NewPool for all work that begins from now on: 1 hands
// nothing over, 0 or less is one less than the processors that the process may use,
// 1 at least: the kernel and the other end of the work need one. Workers beyond it end as soon as they are idle.
func (p *Pool) SetLimit(n int) {
	if p == nil {
		return
	}
	if n <= 0 {
		n = max(1, runtime.GOMAXPROCS(0)-1)
	}
	p.limit.Store(int32(min(n, 1<<16)))
	for range p.Workers() {
		select {
		case p.offers <- nil: // an idle one looks whether it is too many
		default:
			return
		}
	}
}

// Limit is how many threads work for one connection at most.
func (p *Pool) Limit() int {
	if p == nil {
		return 1
	}
	return int(p.limit.Load())
}

// Workers is how many there are now, idle ones too.
func (p *Pool) Workers() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.workers
}

// Close returns when all workers have ended. Who still has work does it alone.
// Idempotent.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	if !p.mu.closed {
		p.mu.closed = true
		close(p.stop)
	}
	p.mu.Unlock()
	p.ended.Wait()
}

// several tells whether work can be shared at all.
func (p *Pool) several() bool { return p.Limit() > 1 }

// share lets up to n workers help l. It does not wait for them: l.join does.
func (p *Pool) share(l *lane, n int) {
	for range min(n, p.Limit()-1) {
		l.join.Add(1)
		select {
		case p.offers <- l:
			continue
		default:
		}
		if !p.grow(l) {
			l.join.Done()
			return
		}
	}
}

// grow starts a worker whose first work is l, if there may be one more.
func (p *Pool) grow(l *lane) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || p.mu.workers >= p.Limit()-1 {
		return false
	}
	p.mu.workers++
	p.ended.Add(1)
	go p.worker(l)
	return true
}

// shrink takes the caller, a worker, off the count if it is too many.
func (p *Pool) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.workers <= p.Limit()-1 {
		return false
	}
	p.mu.workers--
	return true
}

// worker helps where it is asked to.
// Started by grow. Owns a seat of the lane it helps at the time. Ends when it was
// idle for idleTime, is one too many, or the pool is closed.
func (p *Pool) worker(l *lane) {
	defer p.ended.Done()
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		if l != nil {
			l.help()
		}
		if p.shrink() {
			return
		}
		idle.Reset(idleTime)
		select {
		case l = <-p.offers:
			continue
		case <-idle.C:
		case <-p.stop:
		}
		p.mu.Lock()
		p.mu.workers--
		p.mu.Unlock()
		return
	}
}
