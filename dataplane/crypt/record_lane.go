package crypt

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// bigRecord is from how many bytes of plaintext on a record may wait for
	// others, so that several are worked on at once.
	bigRecord = 32 << 10
	// maxJobs is how many records are worked on at once.
	maxJobs = 16
)

// shares is how many bytes of records each of those who share them has at least:
// less is done before a worker has woken up and has fetched it into its caches.
var shares = [...]int{
	cipherNone:   64 << 10,
	cipherGCM:    192 << 10, // 40 µs
	cipherChaCha: 96 << 10,  // 40 µs
	cipherCBC:    64 << 10,  // 130 µs
	cipherCTR:    64 << 10,  // 50 µs
}

// lane is one direction of a connection: its key, its counter and the records
// that wait to be worked on. It is owned by the one goroutine that seals or
// opens; workers of the pool join it within finish only.
type lane struct {
	suite  Suite
	opens  bool // and does not seal
	key    [secretSize]byte
	limits limits

	count   uint64    // of all records: the next nonce
	records uint64    // under this key
	bytes   uint64    // of plaintext under this key
	since   time.Time // when this key began
	old     bool      // this key has reached its age

	engines [maxJobs]*engine // nil: not made yet, or of an older key

	pool  *Pool
	least int // bytes that are worth a worker
	jobs  [maxJobs]job
	n     int          // how many of jobs wait
	size  int          // their bytes
	next  atomic.Int32 // the job that nobody has yet
	seats atomic.Int32 // who has joined: each has an engine
	bad   atomic.Bool  // some record did not open
	join  sync.WaitGroup

	watch func(key *[secretSize]byte, counter uint64) // tests see each use of a nonce
}

// job is one record and its plaintext.
type job struct {
	rec, text []byte
	counter   uint64
}

func (l *lane) start(s Suite, key *[secretSize]byte, p *Pool) (err error) {
	l.suite, l.key, l.pool, l.limits, l.since = s, *key, p, usual, time.Now()
	l.least = shares[s.cipher]
	l.engines[0], err = newEngine(s, key)
	return err
}

// do works on a record now, or with others in finish.
func (l *lane) do(rec, text []byte) {
	j := job{rec: rec, text: text, counter: l.count}
	l.count++
	l.records++
	l.bytes += uint64(len(text))
	if len(text) < bigRecord || !l.pool.several() {
		l.work(l.engines[0], &j)
		return
	}
	if l.n == maxJobs {
		l.finish()
	}
	l.jobs[l.n] = j
	l.n++
	l.size += len(text)
}

// finish works on all records that wait. Those who join take the next one each.
func (l *lane) finish() {
	if l.n == 0 {
		return
	}
	l.next.Store(0)
	l.seats.Store(1)
	l.pool.share(l, min(l.n, l.size/l.least)-1)
	l.drain(l.engines[0])
	l.join.Wait()
	l.drop()
}

// drop forgets the records that wait: memory that is unmapped later must not be
// pointed to.
func (l *lane) drop() {
	clear(l.jobs[:l.n])
	l.n, l.size = 0, 0
}

// help is what a worker does for the lane. It returns when no job is left that
// nobody has.
func (l *lane) help() {
	defer l.join.Done()
	seat := l.seats.Add(1) - 1 // fewer than maxJobs: share asks for no more
	if l.engines[seat] == nil {
		e, err := newEngine(l.suite, &l.key)
		if err != nil {
			return // the others do it
		}
		l.engines[seat] = e
	}
	l.drain(l.engines[seat])
}

func (l *lane) drain(e *engine) {
	for {
		i := int(l.next.Add(1)) - 1
		if i >= l.n {
			return
		}
		l.work(e, &l.jobs[i])
	}
}

func (l *lane) work(e *engine, j *job) {
	if !l.opens {
		e.seal(j.rec, j.text, j.counter)
	} else if !e.open(j.text, j.rec, j.counter) {
		l.bad.Store(true)
	}
	if l.watch != nil {
		l.watch(&l.key, j.counter)
	}
}

// rekey is the next key; nothing waits.
func (l *lane) rekey() error {
	if err := nextKey(l.suite, &l.key); err != nil {
		return err
	}
	clear(l.engines[:])
	var err error
	l.engines[0], err = newEngine(l.suite, &l.key)
	l.records, l.bytes, l.since, l.old = 0, 0, time.Now(), false
	return err
}

// wipe forgets the key as far as Go permits: what the ciphers made of it lies on
// the heap until it is used again.
func (l *lane) wipe() {
	l.drop()
	clear(l.key[:])
	clear(l.engines[:])
}
