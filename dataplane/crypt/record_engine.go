package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
)

const blockSize = aes.BlockSize

// engine seals and opens single records under one key. It belongs to one
// goroutine at a time: the scratch is part of it, so that nothing is allocated
// for a record.
type engine struct {
	suite Suite
	aead  cipher.AEAD // nil: the rest is in use
	nonce [12]byte

	block    cipher.Block // of the data
	ivs      cipher.Block // the PRF that makes the IV of the counter
	enc, dec blockMode
	mac      hash.Hash
	meta     [blockSize + 8]byte // IV and counter, as the MAC has them
	last     [blockSize]byte     // the last block of CBC
	sum      [64]byte
}

// blockMode is CBC that can be used again.
type blockMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

var errKeyless = fmt.Errorf("a connection without algorithms cannot be secure: %w", unix.EINVAL)

// newEngine is an engine of suite for the transport key of one direction.
func newEngine(s Suite, key *[secretSize]byte) (*engine, error) {
	if !s.Keyed() {
		return nil, errKeyless
	}
	e := &engine{suite: s}
	var err error
	switch s.cipher {
	case cipherGCM, cipherChaCha:
		e.aead, err = recordAEAD(s, key)
		return e, err
	case cipherCBC, cipherCTR:
		if e.block, err = newBlock(s, key, "cipher"); err != nil {
			return nil, err
		}
		if e.ivs, err = newBlock(s, key, "iv"); err != nil {
			return nil, err
		}
	}
	if s.cipher == cipherCBC {
		var zero [blockSize]byte
		e.enc = cipher.NewCBCEncrypter(e.block, zero[:]).(blockMode)
		e.dec = cipher.NewCBCDecrypter(e.block, zero[:]).(blockMode)
	}
	k, err := recordKey(s, key, "mac", macs[s.mac].size)
	if err != nil {
		return nil, err
	}
	e.mac = hmac.New(macs[s.mac].make, k)
	clear(k)
	return e, nil
}

// recordAEAD is the cipher of s, which authenticates.
func recordAEAD(s Suite, key *[secretSize]byte) (cipher.AEAD, error) {
	if s.cipher == cipherChaCha {
		return chacha20poly1305.New(key[:])
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func newBlock(s Suite, key *[secretSize]byte, purpose string) (cipher.Block, error) {
	k, err := recordKey(s, key, purpose, secretSize)
	if err != nil {
		return nil, err
	}
	defer clear(k)
	return aes.NewCipher(k)
}

// recordKey is a key of its own for each purpose of each suite.
func recordKey(s Suite, key *[secretSize]byte, purpose string, n int) ([]byte, error) {
	k, err := hkdf.Expand(sha256.New, key[:], "DST record v1 "+s.Cipher()+" "+s.Hash()+" "+purpose, n)
	if err != nil {
		return nil, fmt.Errorf("key for the %s of %s %s: %w", purpose, s.Cipher(), s.Hash(), err)
	}
	return k, nil
}

// nextKey is the key behind key: REKEY of the Noise protocol, revision 34, 4.2,
// for ciphers that authenticate; else the key of one more purpose.
func nextKey(s Suite, key *[secretSize]byte) error {
	if !ciphers[s.cipher].aead {
		k, err := recordKey(s, key, "rekey", secretSize)
		copy(key[:], k)
		clear(k)
		return err
	}
	aead, err := recordAEAD(s, key)
	if err != nil {
		return err
	}
	nonce := [12]byte{4: 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}
	var zeros [secretSize]byte
	var out [secretSize + tagSize]byte
	copy(key[:], aead.Seal(out[:0], nonce[:], zeros[:], nil))
	clear(out[:])
	return nil
}

// seal makes the record with this counter of src. The head is in rec, whose
// length is that of the whole record; src lies behind the head or elsewhere.
func (e *engine) seal(rec, src []byte, counter uint64) {
	if e.aead != nil {
		e.aead.Seal(rec[RecordHead:RecordHead], e.setNonce(counter), src, rec[:RecordHead])
		return
	}
	text := rec[RecordHead : len(rec)-e.mac.Size()]
	switch e.suite.cipher {
	case cipherCBC:
		e.sealCBC(text, src, counter)
	case cipherCTR:
		cipher.NewCTR(e.block, e.iv(counter)).XORKeyStream(text, src)
	default:
		copy(text, src)
	}
	copy(rec[len(rec)-e.mac.Size():], e.authenticate(rec[:RecordHead], text, counter))
}

// open is the plaintext of the record with this counter in dst, which is as long
// and lies behind the record's head or elsewhere. False, and dst is zeros, if the
// record is not the peer's.
func (e *engine) open(dst, rec []byte, counter uint64) bool {
	if e.aead != nil {
		_, err := e.aead.Open(dst[:0:len(dst)], e.setNonce(counter), rec[RecordHead:], rec[:RecordHead])
		if err != nil {
			clear(dst)
		}
		return err == nil
	}
	text, sum := rec[RecordHead:len(rec)-e.mac.Size()], rec[len(rec)-e.mac.Size():]
	if !hmac.Equal(e.authenticate(rec[:RecordHead], text, counter), sum) {
		clear(dst)
		return false
	}
	switch e.suite.cipher {
	case cipherCBC:
		return e.openCBC(dst, text, counter)
	case cipherCTR:
		cipher.NewCTR(e.block, e.iv(counter)).XORKeyStream(dst, text)
	default:
		copy(dst, text)
	}
	return true
}

// sealCBC pads as PKCS #7 does.
func (e *engine) sealCBC(text, src []byte, counter uint64) {
	whole := len(src) &^ (blockSize - 1)
	pad := byte(blockSize - len(src)%blockSize)
	for i := copy(e.last[:], src[whole:]); i < blockSize; i++ {
		e.last[i] = pad
	}
	e.enc.SetIV(e.iv(counter))
	e.enc.CryptBlocks(text[:whole], src[:whole])
	e.enc.CryptBlocks(text[whole:], e.last[:])
}

func (e *engine) openCBC(dst, text []byte, counter uint64) bool {
	whole := len(dst) &^ (blockSize - 1)
	copy(e.last[:], text[whole:])
	e.dec.SetIV(e.iv(counter))
	e.dec.CryptBlocks(dst[:whole], text[:whole])
	e.dec.CryptBlocks(e.last[:], e.last[:])
	pad := byte(blockSize - len(dst)%blockSize)
	for _, p := range e.last[copy(dst[whole:], e.last[:]):] {
		if p != pad { // the peer itself is out of order: its MAC was right
			clear(dst)
			return false
		}
	}
	return true
}

// authenticate is the MAC over head, IV, counter and text.
func (e *engine) authenticate(head, text []byte, counter uint64) []byte {
	meta := e.meta[blockSize:]
	if e.ivs != nil {
		e.iv(counter)
		meta = e.meta[:]
	}
	binary.BigEndian.PutUint64(e.meta[blockSize:], counter)
	e.mac.Reset()
	_, _ = e.mac.Write(head) // a hash takes everything
	_, _ = e.mac.Write(meta)
	_, _ = e.mac.Write(text)
	return e.mac.Sum(e.sum[:0])
}

// iv is the counter under a key of its own: nobody foresees it, none comes twice.
func (e *engine) iv(counter uint64) []byte {
	iv := e.meta[:blockSize]
	clear(iv)
	binary.BigEndian.PutUint64(iv[8:], counter)
	e.ivs.Encrypt(iv, iv)
	return iv
}

// setNonce is the nonce as the Noise protocol makes it, 12.3 and 12.4.
func (e *engine) setNonce(counter uint64) []byte {
	if e.suite.cipher == cipherChaCha {
		binary.LittleEndian.PutUint64(e.nonce[4:], counter)
	} else {
		binary.BigEndian.PutUint64(e.nonce[4:], counter)
	}
	return e.nonce[:]
}
