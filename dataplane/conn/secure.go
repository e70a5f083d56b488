package conn

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

const (
	rawBuffer  = 256 << 10 // fetched at once: three of the largest records at least
	sealBuffer = 512 << 10 // sealed at once: seven of the largest records
	// strangerText is the plaintext of a record, in bytes, as long as the peer is
	// not known (Ready); strangerBuffer has room for one such record.
	strangerText   = 1 << 10
	strangerBuffer = 2 << 10
	// lifePart is how much of a record is a sign of life, in bytes. On a slow line a
	// whole one takes seconds; and by drops of one that can never be opened whoever
	// holds the line would make a dead peer live, for days.
	lifePart = 4 << 10
)

// Secure is a Stream over a Stream: what is written leaves as records that nobody
// else can read, change, repeat or make, as far as the key's algorithms promise.
// Read shows nothing that is not authenticated.
type Secure struct {
	stream Stream
	sock   *Sock // stream, if it is one
	text   int   // plaintext of a record at most, both ways

	// Owned by the one who reads.
	opener   *crypt.Opener
	raw      []byte
	from, to int    // fetched, not opened
	plain    []byte // opened in raw, not shown yet
	fetched  atomic.Uint64

	// Owned by the one who writes.
	sealer *crypt.Sealer
	out    sealed

	pages bool // the buffers are page memory
}

// Initiate is the client's handshake with key k over st, which it owns only if
// there is no error; the deadlines are the caller's. Large payloads are shared with
// the workers of p, nil: with nobody. Errors: io.EOF if the peer closed, which is
// how it refuses a key; crypt.ErrRefused if it has not the same key; those of st.
func Initiate(st Stream, k *crypt.Key, p *crypt.Pool) (*Secure, error) {
	i, msg1, err := crypt.Initiate(k)
	if err != nil {
		return nil, err
	}
	if _, err := st.Write(msg1); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	msg2 := make([]byte, crypt.ReplySize)
	if _, err := io.ReadFull(st, msg2); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	secrets, err := i.Finish(msg2)
	if err != nil {
		return nil, err
	}
	return newSecure(st, &secrets, p)
}

// Respond is the export's handshake, as Initiate: it reads crypt.HandshakeMax bytes
// at most, finds the key by its public id and returns it. That the peer is alive,
// and has the key, is proved by the first record it sends; until Ready a record
// has 1 KiB of plaintext at most. Errors: crypt.ErrRefused, and those of st.
func Respond(st Stream, find func(abi.KeyID) *crypt.Key, p *crypt.Pool) (*Secure, *crypt.Key, error) {
	var msg1 [crypt.HandshakeMax]byte
	if _, err := io.ReadFull(st, msg1[:crypt.HandshakeHead]); err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	total, err := crypt.MessageSize(msg1[:crypt.HandshakeHead])
	if err != nil {
		return nil, nil, err
	}
	if _, err := io.ReadFull(st, msg1[crypt.HandshakeHead:total]); err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	secrets, k, msg2, err := crypt.Respond(msg1[:total], find)
	if err != nil {
		return nil, nil, err
	}
	if _, err := st.Write(msg2); err != nil {
		secrets.Wipe()
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	s, err := newSecure(st, &secrets, p)
	return s, k, err
}

// newSecure is the stream behind the handshake; secrets are wiped.
func newSecure(st Stream, secrets *crypt.Secrets, p *crypt.Pool) (*Secure, error) {
	defer secrets.Wipe()
	s := &Secure{stream: st, text: strangerText, raw: make([]byte, strangerBuffer)}
	s.sock, _ = st.(*Sock)
	s.out.buf = make([]byte, strangerBuffer)
	var err error
	if s.sealer, err = crypt.NewSealer(secrets, p); err != nil {
		return nil, err
	}
	if s.opener, err = crypt.NewOpener(secrets, p); err != nil {
		return nil, err
	}
	s.opener.Limit(strangerText)
	return s, nil
}

// Ready gets the buffers of a peer that is known, page memory: from now on records
// have any size. Call it before NewIn, NewOut and whatever may be large; nobody
// reads or writes meanwhile. Errors: ENOMEM.
func (s *Secure) Ready() error {
	if s.pages {
		return nil
	}
	raw, err := mempool.Pages(rawBuffer)
	if err != nil {
		return err
	}
	buf, err := mempool.Pages(sealBuffer)
	if err != nil {
		mempool.FreePages(raw)
		return err
	}
	if len(s.plain) > 0 { // lies in the old one, which the heap keeps
		s.plain = append([]byte(nil), s.plain...)
	}
	s.to = copy(raw, s.raw[s.from:s.to])
	s.from, s.raw, s.out.buf, s.pages = 0, raw, buf, true
	s.text = crypt.RecordData
	s.opener.Limit(crypt.RecordData)
	return nil
}

// Free gives the buffers back and wipes the keys. Nobody reads or writes any more:
// the Out is closed. Idempotent.
func (s *Secure) Free() {
	s.sealer.Wipe()
	s.opener.Wipe()
	if s.pages {
		mempool.FreePages(s.raw)
		mempool.FreePages(s.out.buf)
	}
	s.raw, s.plain, s.out, s.pages = nil, nil, sealed{}, false
	s.from, s.to = 0, 0
}

// Read brings what of the records that have come fits into p, straight into it,
// and waits for at least one of them. Errors: io.EOF if the stream ended behind a
// record, io.ErrUnexpectedEOF if it ended within one, crypt.ErrForged for ever
// once something was not the peer's. After os.ErrDeadlineExceeded it may be called
// again.
func (s *Secure) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(s.plain) > 0 {
			n = copy(p, s.plain)
			s.plain = s.plain[n:]
			return n, nil
		}
		if n, err = s.open(p); n > 0 || err != nil {
			return n, err
		}
		if len(s.plain) == 0 {
			if err = s.fetch(); err != nil {
				return 0, err
			}
		}
	}
}

// open opens the records in raw that fit into p. If the first does not, it is
// opened where it lies and becomes plain.
func (s *Secure) open(p []byte) (n int, err error) {
	for n < len(p) {
		text, size, err := s.opener.Next(s.raw[s.from:s.to])
		if err != nil && n == 0 {
			return 0, err
		}
		if err != nil || size == 0 || size > s.to-s.from || n > 0 && text > len(p)-n {
			break // an error comes again
		}
		rec := s.raw[s.from : s.from+size]
		s.from += size
		if text > len(p) {
			dst := rec[crypt.RecordHead:][:text]
			s.opener.Open(dst, rec)
			if err := s.opener.Finish(); err != nil {
				return 0, err
			}
			s.plain = dst
			return 0, nil
		}
		s.opener.Open(p[n:n+text:n+text], rec)
		n += text
	}
	if n == 0 {
		return 0, nil
	}
	if err := s.opener.Finish(); err != nil {
		clear(p[:n])
		return 0, err
	}
	return n, nil
}

// fetch receives once, behind what is there; the record that begins there has
// room.
func (s *Secure) fetch() error {
	kept := s.to - s.from
	_, size, err := s.opener.Next(s.raw[s.from:s.to])
	if err != nil {
		return err
	}
	if kept <= cheapMove || s.from+max(size, crypt.RecordHead) > len(s.raw) {
		copy(s.raw, s.raw[s.from:s.to])
		s.from, s.to = 0, kept
	}
	n, err := s.stream.Read(s.raw[s.to:])
	s.to += n
	s.fetched.Add(uint64(n))
	switch {
	case n > 0:
		return nil // an error that came with it comes again
	case err == io.EOF && kept > 0:
		return io.ErrUnexpectedEOF
	}
	return err
}

// parts counts the parts of records that have come. Anybody may call it.
func (s *Secure) parts() uint64 { return s.fetched.Load() / lifePart }

// Write sends p as records of its own and waits for room as long as it takes. It
// is not for who has an Out.
func (s *Secure) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if len(s.out.buf) == 0 {
			return n, net.ErrClosed
		}
		size, text := 0, 0
		for n+text < len(p) {
			piece := p[n+text:][:min(len(p)-n-text, s.text)]
			if s.sealer.Size(len(piece)) > len(s.out.buf)-size {
				break
			}
			some, err := s.sealer.Seal(s.out.buf[size:], piece)
			if err != nil {
				return n, err
			}
			size, text = size+some, text+len(piece)
		}
		s.sealer.Finish()
		if _, err := s.stream.Write(s.out.buf[:size]); err != nil {
			_ = s.stream.Close() // a record that left in part only cannot be continued
			return n, err
		}
		n += text
	}
	return n, nil
}

// Close closes the stream below; whoever reads or writes returns.
func (s *Secure) Close() error { return s.stream.Close() }

// SetReadDeadline is that of the stream below.
func (s *Secure) SetReadDeadline(t time.Time) error { return s.stream.SetReadDeadline(t) }

// SetWriteDeadline is that of the stream below.
func (s *Secure) SetWriteDeadline(t time.Time) error { return s.stream.SetWriteDeadline(t) }
