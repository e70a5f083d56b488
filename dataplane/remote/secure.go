package remote

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// SetKey makes the node prove another key from now on, nil: none, all is in clear.
// A link with the old one is broken, and the next one uses the new one; what is in
// flight is sent again there. The old key is the caller's to wipe. Errors: none yet.
func (n *Node) SetKey(k *crypt.Key) error {
	n.mu.Lock()
	n.use(k)
	l := n.link
	n.mu.Unlock()
	if l != nil && !sameKey(l.key, k) {
		l.abort(fmt.Errorf("the key was changed here, the next connection uses it: %w", unix.EKEYREVOKED))
	}
	return nil
}

// use makes k the key of the next link; mu is held, or nobody knows n yet.
func (n *Node) use(k *crypt.Key) {
	n.key, n.core.digest = k, n.digestWith(k)
	n.seal.Store(uint32(n.core.digest))
}

// SetThreads is how many threads at most seal or open large payloads, 0 = one
// less than there are processors.
func (n *Node) SetThreads(threads int) { n.pool.SetLimit(threads) }

// sameKey tells whether both are the same key, or none.
func sameKey(a, b *crypt.Key) bool {
	return a == b || a != nil && b != nil && a.ID() == b.ID()
}

// digestWith is the digest of frames beside a key: its records need none.
func (n *Node) digestWith(k *crypt.Key) crypt.Digest {
	if k != nil {
		return crypt.DigestNone
	}
	return n.cfg.Digest
}

// keys is the node's key as it may be shown; mu is held.
func (n *Node) keys() []abi.Key {
	if n.key == nil {
		return nil
	}
	s := n.key.Suite()
	return []abi.Key{{ID: n.key.ID(), Cipher: s.Cipher(), Hash: s.Hash()}}
}

// protect makes a secure channel of the stream, in handshakeTimeout: behind it the
// export has proved that it has the key.
func (l *link) protect() error {
	deadline := time.Now().Add(handshakeTimeout)
	err := errors.Join(l.stream.SetReadDeadline(deadline), l.stream.SetWriteDeadline(deadline))
	var s *conn.Secure
	if err == nil {
		s, err = conn.Initiate(l.stream, l.key, l.node.pool)
	}
	if err != nil {
		return l.refused(err)
	}
	l.secure, l.wire = s, s
	return s.Ready()
}

// refused words the error of a peer that closed without an answer, or gives none.
func (l *link) refused(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the peer connected and then said nothing for %v: is it a dstd, and alive?: %w", handshakeTimeout, err)
	case errors.Is(err, crypt.ErrForged):
		l.forged()
		return err
	case errors.Is(err, crypt.ErrRefused):
		l.forged()
		return fmt.Errorf("the peer does not have the key %v, or somebody else answers there: compare its address, and the key files and names of algorithms at both ends: %w",
			l.key.ID(), err)
	case l.key != nil && !l.heard && closed(err):
		return fmt.Errorf("the peer refused the key: it needs the same key files and names of algorithms as here, and the export, its rules and this address have to accept key %v: %w",
			l.key.ID(), err)
	case l.key != nil:
		return fmt.Errorf("the peer ended the handshake: %w", err)
	}
	return fmt.Errorf("the peer ended the handshake (is this address in its security rules, and does the export want a key?): %w", err)
}

// closed tells whether err is a connection that the peer has closed.
func closed(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
