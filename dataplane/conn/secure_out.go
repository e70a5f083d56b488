package conn

import "dst/dataplane/crypt"

// sealed is the part of a Secure's Out: records made of the frames at the
// beginning of its list, on their way from buf to the socket.
type sealed struct {
	buf       []byte
	sent, end int // what has left of buf, and what there is
	whole     int // how many frames of the list end in buf
	off       int // bytes of the frame behind these that are in buf or have left

	// While buf is being filled.
	text       int    // plaintext of the record of small pieces that begins at end
	cur, first *Frame // the frame that is at work, and the first whose end is not known
}

// gatherSealed is gather with a Secure: the rest of the last batch of records, or
// the next one.
func (o *Out) gatherSealed() (want int, more bool) {
	x := &o.secure.out
	if x.sent == x.end && x.whole == 0 {
		if err := o.secure.seal(o.cur); err != nil {
			o.Break(err)
			return -1, true
		}
	}
	if want = min(x.end-x.sent, o.most); want > 0 {
		point(&o.iov[0], x.buf[x.sent:x.sent+want])
	}
	o.vectors = min(want, 1)
	return want, true
}

// advanceSealed is advance with a Secure: a frame has left with the last byte of
// its last record.
func (o *Out) advanceSealed(n int) {
	x := &o.secure.out
	x.sent += n
	for x.whole > 0 && o.cur.end <= x.sent {
		x.whole--
		o.finish(nil)
	}
}

// seal fills the buffer with records of the frames from f on. Small pieces are
// collected, so that many frames share a record; large payloads have records of
// their own, made straight from where they lie, so that the peer can open them
// straight into their place. Errors: those of crypt.Sealer.
func (s *Secure) seal(f *Frame) error {
	x := &s.out
	x.sent, x.end, x.text, x.cur, x.first = 0, 0, 0, f, f
	for x.cur != nil {
		whole, err := s.sealFrame(x.cur)
		if err != nil {
			return err
		}
		if !whole {
			break
		}
		x.whole++
		x.off, x.cur = 0, x.cur.next
		x.settle()
	}
	if err := s.endRecord(); err != nil {
		return err
	}
	x.settle()
	x.cur, x.first = nil, nil
	s.sealer.Finish()
	return nil
}

// sealFrame seals what is left of f. Not whole: the buffer is full.
func (s *Secure) sealFrame(f *Frame) (whole bool, err error) {
	x := &s.out
	if fits, err := s.fits(f); !fits || err != nil {
		return false, err
	}
	for skip := x.off; skip < len(f.Head); skip = x.off {
		n, err := s.collect(f.Head[skip:])
		if x.off += n; n == 0 || err != nil {
			return false, err
		}
	}
	for rest := f.Data[x.off-len(f.Head):]; len(rest) > 0; {
		var n int
		if len(f.Data) >= bigPayload {
			n, err = s.sealBig(rest)
		} else {
			n, err = s.collect(rest)
		}
		if x.off += n; n == 0 || err != nil {
			return false, err
		}
		rest = rest[n:]
	}
	return true, nil
}

// fits prepares for a frame that begins: what of it is collected is not spread over
// two records if one can have it, so that the peer need not put it together, nor
// over two batches. No: the buffer is full.
func (s *Secure) fits(f *Frame) (bool, error) {
	x := &s.out
	n := len(f.Head)
	if len(f.Data) < bigPayload {
		n += len(f.Data)
	}
	if x.off > 0 || n > s.text {
		return true, nil
	}
	if x.text+n > s.text {
		if err := s.endRecord(); err != nil {
			return false, err
		}
	}
	return x.end == 0 && x.text == 0 || x.end+x.text+n+crypt.RecordExtra <= len(x.buf), nil
}

// collect copies what fits of p to the record of small pieces; nothing: the buffer
// is full.
func (s *Secure) collect(p []byte) (n int, err error) {
	x := &s.out
	if x.text == s.text {
		if err := s.endRecord(); err != nil {
			return 0, err
		}
	}
	n = min(len(p), s.text-x.text, len(x.buf)-x.end-x.text-crypt.RecordExtra)
	if n <= 0 {
		return 0, nil
	}
	n = copy(x.buf[x.end+crypt.RecordHead+x.text:], p[:n])
	x.text += n
	return n, nil
}

// sealBig makes a record of the beginning of p; of nothing: the buffer is full.
func (s *Secure) sealBig(p []byte) (n int, err error) {
	if err := s.endRecord(); err != nil {
		return 0, err
	}
	x := &s.out
	n = min(len(p), s.text)
	if s.sealer.Size(n) > len(x.buf)-x.end {
		return 0, nil
	}
	size, err := s.sealer.Seal(x.buf[x.end:], p[:n])
	x.end += size
	return n, err
}

// endRecord makes the record of the small pieces.
func (s *Secure) endRecord() error {
	x := &s.out
	if x.text == 0 {
		return nil
	}
	size, err := s.sealer.Seal(x.buf[x.end:], x.buf[x.end+crypt.RecordHead:][:x.text])
	x.end += size
	x.text = 0
	x.settle()
	return err
}

// settle says of the frames before the one at work where they end, unless they
// end in the record of small pieces.
func (x *sealed) settle() {
	for ; x.text == 0 && x.first != x.cur; x.first = x.first.next {
		x.first.end = x.end
	}
}
