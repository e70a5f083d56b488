package crypt

// Opener is the receiving half of a secure channel: it makes bytes of records. It
// is owned by the one goroutine that receives.
type Opener struct {
	lane    lane
	largest int   // bytes of plaintext that a record may have
	err     error // something was not the peer's: nothing is opened any more
}

// NewOpener opens with the receiving key of s, which it keeps a copy of. Large
// records are shared with the workers of p; nil: with nobody.
func NewOpener(s *Secrets, p *Pool) (*Opener, error) {
	x := &Opener{largest: RecordData}
	x.lane.opens = true
	return x, x.lane.start(s.Suite, &s.Receive, p)
}

// Limit is how many bytes of plaintext a record may have, RecordData at most and
// from the beginning.
func (o *Opener) Limit(n int) { o.largest = min(n, RecordData) }

// Next looks at the record that raw begins with: its plaintext has text bytes and
// it has size bytes itself. Both are 0 if raw has not even its head. Nothing of
// that is proven, but size is RecordMax at most. Errors: ErrForged.
func (o *Opener) Next(raw []byte) (text, size int, err error) {
	if o.err != nil {
		return 0, 0, o.err
	}
	if len(raw) < RecordHead {
		return 0, 0, nil
	}
	text, flags := headSize(raw)
	if text == 0 || text > o.largest || flags&^flagRekey != 0 {
		o.fail(ErrForged)
		return 0, 0, o.err
	}
	return text, o.lane.suite.recordSize(text), nil
}

// Open opens the next record, rec, as Next tells its size, into dst, as long as
// its plaintext: rec[RecordHead:][:len(dst)] or elsewhere. What dst has is worth
// nothing before Finish returned nil.
func (o *Opener) Open(dst, rec []byte) {
	l := &o.lane
	if o.err == nil && l.records >= l.limits.stop {
		o.fail(errSpent)
	}
	if o.err != nil {
		clear(dst)
		return
	}
	l.do(rec, dst)
	if l.bad.Load() {
		o.fail(ErrForged)
		return
	}
	if _, flags := headSize(rec); flags&flagRekey != 0 {
		if o.finish(); o.err == nil {
			o.err = l.rekey()
		}
	}
}

// Finish returns when all records are opened. Errors: ErrForged if one of them
// is not the peer's, EKEYEXPIRED if the peer never changes its key; both for ever.
// What did not open is zeros then, and the caller shows nothing of the others.
func (o *Opener) Finish() error {
	o.finish()
	return o.err
}

func (o *Opener) finish() {
	o.lane.finish()
	if o.lane.bad.Load() {
		o.fail(ErrForged)
	}
}

// fail ends the direction; what waits is not worked on.
func (o *Opener) fail(err error) {
	o.lane.drop()
	if o.err == nil {
		o.err = err
	}
}

// Wipe forgets the key; nothing can be opened any more.
func (o *Opener) Wipe() {
	o.lane.wipe()
	o.fail(errSpent)
}
