package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"

	"golang.org/x/crypto/chacha20poly1305"
)

// The names of the two protocols (Noise Protocol Framework, revision 34, 8).
const (
	noiseAESGCM     = "Noise_NNpsk0_25519_AESGCM_SHA256"
	noiseChaChaPoly = "Noise_NNpsk0_25519_ChaChaPoly_SHA256"
)

const (
	pointSize = 32 // bytes of a public key
	tagSize   = 16 // bytes that a sealed payload is longer
)

// noise is the state of one handshake at one end: the SymmetricState of Noise, 5.2,
// and its CipherState. Each key of it seals one message, so that the nonce is
// always zero. It is used once: any error is the end of it. The first error is
// kept, and what comes after it does nothing.
type noise struct {
	h, ck, k [secretSize]byte
	chacha   bool
	err      error
}

// newNoise begins a handshake: Initialize, and the token psk.
func newNoise(chacha bool, prologue, psk []byte) *noise {
	n := &noise{chacha: chacha}
	name := noiseAESGCM
	if chacha {
		name = noiseChaChaPoly
	}
	if n.h = sha256.Sum256([]byte(name)); len(name) <= len(n.h) {
		n.h = [secretSize]byte([]byte(name)) // both are 32 bytes
	}
	n.ck = n.h
	n.mixHash(prologue)
	var mixed [secretSize]byte // MixKeyAndHash
	n.derive(psk, &n.ck, &mixed, &n.k)
	n.mixHash(mixed[:])
	return n
}

// derive is HKDF of Noise, 4.3, with the chaining key.
func (n *noise) derive(input []byte, to ...*[secretSize]byte) {
	if n.err != nil {
		return
	}
	out, err := hkdf.Key(sha256.New, input, n.ck[:], "", len(to)*secretSize)
	if n.err = err; err != nil {
		return
	}
	for i, t := range to {
		copy(t[:], out[i*secretSize:])
	}
	clear(out)
}

func (n *noise) mixHash(data []byte) {
	sum := sha256.New()
	sum.Write(n.h[:])
	sum.Write(data)
	sum.Sum(n.h[:0])
}

func (n *noise) mixKey(input []byte) { n.derive(input, &n.ck, &n.k) }

// aead is the cipher of the handshake with key.
func (n *noise) aead(key []byte) (cipher.AEAD, error) {
	if n.chacha {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal is EncryptAndHash, appended to to.
func (n *noise) seal(to, payload []byte) []byte {
	a, err := n.aead(n.k[:])
	if n.err == nil {
		n.err = err
	}
	if n.err != nil {
		return to
	}
	var nonce [chacha20poly1305.NonceSize]byte
	sealed := a.Seal(to, nonce[:], payload, n.h[:])
	n.mixHash(sealed[len(to):])
	return sealed
}

// open is DecryptAndHash.
func (n *noise) open(sealed []byte) (payload []byte) {
	a, err := n.aead(n.k[:])
	if n.err == nil {
		n.err = err
	}
	if n.err != nil {
		return nil
	}
	var nonce [chacha20poly1305.NonceSize]byte
	payload, n.err = a.Open(nil, nonce[:], sealed, n.h[:])
	n.mixHash(sealed)
	return payload
}

// point is the token e: a public key, mixed into the key too because of psk0 (9.2).
func (n *noise) point(p []byte) {
	n.mixHash(p)
	n.mixKey(p)
}

// agree is the token ee. An all-zero result, which the points of low order give, is
// an error.
func (n *noise) agree(e *ecdh.PrivateKey, p []byte) {
	their, err := ecdh.X25519().NewPublicKey(p)
	if err == nil {
		var shared []byte
		if shared, err = e.ECDH(their); err == nil {
			n.mixKey(shared)
			clear(shared)
		}
	}
	if n.err == nil {
		n.err = err
	}
}

// write1 is message 1, -> psk, e, appended to to.
func (n *noise) write1(to []byte, e *ecdh.PrivateKey, payload []byte) []byte {
	p := e.PublicKey().Bytes()
	n.point(p)
	return n.seal(append(to, p...), payload)
}

// read1 reads message 1 of pointSize+tagSize bytes at least: the public key and
// the payload of the initiator.
func (n *noise) read1(msg []byte) (p, payload []byte) {
	p = msg[:pointSize]
	n.point(p)
	return p, n.open(msg[pointSize:])
}

// write2 is message 2, <- e, ee, appended to to, for the initiator that has p.
func (n *noise) write2(to []byte, e *ecdh.PrivateKey, p, payload []byte) []byte {
	own := e.PublicKey().Bytes()
	n.point(own)
	n.agree(e, p)
	return n.seal(append(to, own...), payload)
}

// read2 reads message 2 of pointSize+tagSize bytes at least.
func (n *noise) read2(e *ecdh.PrivateKey, msg []byte) (payload []byte) {
	p := msg[:pointSize]
	n.point(p)
	n.agree(e, p)
	return n.open(msg[pointSize:])
}

// split gives the keys of the initiator and of the responder.
func (n *noise) split(initiator, responder *[secretSize]byte) {
	n.derive(nil, initiator, responder)
}

// wipe forgets everything.
func (n *noise) wipe() { *n = noise{err: ErrRefused} }
