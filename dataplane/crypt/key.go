package crypt

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// What a configured key may measure, in bytes. Who records one handshake can
// guess a weak key at leisure: so many random bytes cannot be guessed.
const (
	KeyMin = 16
	KeyMax = 1024
)

// What a key is mixed with, so that nothing else that is made of the same bytes
// is the same.
const (
	pskSalt = "DST psk v1"
	idInfo  = "DST key id v1"
)

// Key is a suite and the secret that both ends share: both configured keys and
// both names of algorithms make one secret, so that ends which differ in any of
// them do not meet. Its secret is off the Go heap, and Wipe ends it. All methods
// may be called by any goroutine.
type Key struct {
	suite Suite
	id    abi.KeyID
	mu    sync.RWMutex // held for reading while psk is in use
	psk   *[secretSize]byte
}

// NewKey is the key of these bytes, of which it keeps no reference: the caller
// wipes them. Each is KeyMin to KeyMax random bytes; one that the suite has no
// use for is empty. Errors are sentences: EINVAL for anything else and for
// printable text, ENOMEM.
func NewKey(s Suite, cipherKey, hashKey []byte) (*Key, error) {
	if !s.Keyed() {
		return nil, fmt.Errorf("a key without an algorithm: name a cipher, as gcm(aes), or a hash: %w", unix.EINVAL)
	}
	if err := checkKey("cipher", s.Cipher(), s.cipher != cipherNone, cipherKey); err != nil {
		return nil, err
	}
	if err := checkKey("hash", s.Hash(), s.mac != macNone, hashKey); err != nil {
		return nil, err
	}
	ikm := appendLP(appendLP(make([]byte, 0, 4+len(hashKey)+len(cipherKey)), hashKey), cipherKey)
	defer clear(ikm)
	info := appendLP(appendLP(nil, []byte(s.Cipher())), []byte(s.Hash()))
	psk, err := hkdf.Key(sha256.New, ikm, []byte(pskSalt), string(info), secretSize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w: %w", err, unix.EINVAL)
	}
	defer clear(psk)
	return keep(s, psk)
}

// checkKey tells what is wrong with the key of an algorithm, which has one or not.
func checkKey(what, name string, used bool, key []byte) error {
	switch {
	case !used && len(key) == 0:
		return nil
	case !used:
		return fmt.Errorf("a %s key without a %s: leave it out, or name the %s: %w", what, what, what, unix.EINVAL)
	case len(key) == 0:
		return fmt.Errorf("%s %s needs a key: make one with `dstctl key gen FILE`: %w", what, name, unix.EINVAL)
	case len(key) < KeyMin || len(key) > KeyMax:
		return fmt.Errorf("%s key of %d bytes: it has %d to %d, make one with `dstctl key gen FILE`: %w", what, len(key), KeyMin, KeyMax, unix.EINVAL)
	case isText(key):
		return fmt.Errorf("%s key is printable text, which can be guessed: make a random one with `dstctl key gen FILE`: %w", what, unix.EINVAL)
	}
	return nil
}

// isText tells whether all of b can be typed.
func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

// appendLP appends the length of x, big-endian, and x.
func appendLP(b, x []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(x))), x...)
}

// keep is the Key of a secret, of which it keeps a copy.
func keep(s Suite, psk []byte) (k *Key, err error) {
	k = &Key{suite: s}
	id, err := hkdf.Expand(sha256.New, psk, idInfo, len(k.id))
	if err != nil {
		return nil, fmt.Errorf("derive a key id: %w: %w", err, unix.EINVAL)
	}
	if copy(k.id[:], id); k.id == (abi.KeyID{}) {
		return nil, fmt.Errorf("a key whose id is zero: make another: %w", unix.EINVAL)
	}
	if k.psk, err = secrets.get(); err != nil {
		return nil, err
	}
	copy(k.psk[:], psk)
	return k, nil
}

// ID is what the key is called in clear. It tells nothing of the key.
func (k *Key) ID() abi.KeyID { return k.id }

// String is the id.
func (k *Key) String() string { return k.id.String() }

// Suite is what the key is for.
func (k *Key) Suite() Suite { return k.suite }

// Wipe ends the key, after the handshakes that use it at the moment: from then on
// it is refused as a wrong one. Idempotent.
func (k *Key) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.psk != nil {
		secrets.put(k.psk)
		k.psk = nil
	}
}

// with calls f with the secret, which stays until f returns. ok is false, and f
// not called, after Wipe.
func (k *Key) with(f func(psk []byte)) (ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.psk == nil {
		return false
	}
	f(k.psk[:])
	return true
}

// The encoding of a key: version, suite, secret, id.
const (
	keyVersion = 1
	keptSize   = 2 + secretSize + len(abi.KeyID{})
)

// Append appends the key with its secret, for the daemon's own memory between two
// of its lives and for nothing else; the caller wipes it. A wiped key is nothing.
func (k *Key) Append(b []byte) []byte {
	k.with(func(psk []byte) {
		// At once, so that no half of it is left behind in a smaller array.
		b = append(slices.Grow(b, keptSize), keyVersion, k.suite.wire())
		b = append(append(b, psk...), k.id[:]...)
	})
	return b
}

// ParseKey reads what Append wrote at the beginning of b and returns what is
// behind it. Errors: EUCLEAN, ENOMEM.
func ParseKey(b []byte) (k *Key, rest []byte, err error) {
	if len(b) < keptSize || b[0] != keyVersion {
		return nil, nil, errKeyDamaged
	}
	s, ok := suiteOf(b[1])
	if !ok {
		return nil, nil, errKeyDamaged
	}
	psk, id := b[2:2+secretSize], b[2+secretSize:keptSize]
	if k, err = keep(s, psk); err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare(id, k.id[:]) != 1 {
		k.Wipe()
		return nil, nil, errKeyDamaged
	}
	return k, b[keptSize:], nil
}

var errKeyDamaged = fmt.Errorf("a kept key is damaged: configure it again: %w", unix.EUCLEAN)
