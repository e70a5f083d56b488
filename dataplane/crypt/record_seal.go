package crypt

import "time"

// Sealer is the sending half of a secure channel: it makes records of bytes. It
// is owned by the one goroutine that sends.
type Sealer struct {
	lane lane
	err  error // it can seal no more
}

// NewSealer seals with the sending key of s, which it keeps a copy of. Large
// records are shared with the workers of p; nil: with nobody.
func NewSealer(s *Secrets, p *Pool) (*Sealer, error) {
	x := &Sealer{}
	return x, x.lane.start(s.Suite, &s.Send, p)
}

// Size is how many bytes a record with n bytes of plaintext has.
func (s *Sealer) Size(n int) int { return s.lane.suite.recordSize(n) }

// Seal makes the next record, of 1 to RecordData bytes, at the beginning of dst,
// which has Size of them, and tells its size. src is dst[RecordHead:][:len(src)]
// or elsewhere. Neither may be touched before Finish. Errors: EKEYEXPIRED when
// the key is used up, for ever then.
func (s *Sealer) Seal(dst, src []byte) (size int, err error) {
	l := &s.lane
	if len(src) == 0 || len(src) > RecordData {
		panic("crypt: Seal of a record of no size that is possible")
	}
	if s.err == nil && l.records >= l.limits.stop {
		s.err = errSpent
	}
	if s.err != nil {
		return 0, s.err
	}
	last := l.old || l.records+1 >= l.limits.records || l.bytes+uint64(len(src)) >= l.limits.bytes
	var flags byte
	if last {
		flags = flagRekey
	}
	size = s.Size(len(src))
	putHead(dst, len(src), flags)
	l.do(dst[:size:size], src)
	if last {
		l.finish()
		s.err = l.rekey()
	}
	return size, s.err
}

// Finish returns when all records are made.
func (s *Sealer) Finish() {
	s.lane.finish()
	if !s.lane.old {
		s.lane.old = time.Since(s.lane.since) >= s.lane.limits.age
	}
}

// Wipe forgets the key; nothing can be sealed any more.
func (s *Sealer) Wipe() {
	s.lane.wipe()
	s.err = errSpent
}
