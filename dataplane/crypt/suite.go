package crypt

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/sys/unix"
)

// cipherID and macID are the algorithms of a record.
type (
	cipherID uint8
	macID    uint8
)

// The numbers of both are on the wire and in the run directory: append only.
const (
	cipherNone   cipherID = iota
	cipherGCM             // AES-256-GCM
	cipherChaCha          // ChaCha20-Poly1305
	cipherCBC             // AES-256-CBC, the MAC behind it
	cipherCTR             // AES-256-CTR, the MAC behind it
)

const (
	macNone macID = iota // the cipher's own
	macSHA256
	macSHA384
	macSHA512
	macSHA1
)

// ciphers and macs have the names of the kernel's crypto API.
var ciphers = [...]struct {
	name string
	aead bool // authenticates by itself
}{
	cipherNone:   {},
	cipherGCM:    {"gcm(aes)", true},
	cipherChaCha: {"rfc7539(chacha20,poly1305)", true},
	cipherCBC:    {"cbc(aes)", false},
	cipherCTR:    {"ctr(aes)", false},
}

var macs = [...]struct {
	name string
	size int // bytes
	make func() hash.Hash
}{
	macNone:   {},
	macSHA256: {"hmac(sha256)", sha256.Size, sha256.New},
	macSHA384: {"hmac(sha384)", sha512.Size384, sha512.New384},
	macSHA512: {"hmac(sha512)", sha512.Size, sha512.New},
	macSHA1:   {"hmac(sha1)", sha1.Size, sha1.New},
}

// Suite is how the records of a connection are protected: a cipher that
// authenticates, a cipher with a MAC behind it, or a MAC alone. The zero Suite is
// no protection. Both ends are configured alike; nothing is negotiated, and the
// names are part of the key (Key), so that ends which differ do not meet.
type Suite struct {
	cipher cipherID
	mac    macID
}

// ParseSuite is the suite of the names of the kernel's crypto API; cipher may be
// empty, and so may hash with a cipher that authenticates. Without both it is
// gcm(aes): what a key is used with if nothing else is said. legacy accepts
// hmac(sha1). Errors are sentences: EOPNOTSUPP for what protects nothing, EINVAL
// for what is not known or does not go together.
func ParseSuite(cipher, hash string, legacy bool) (s Suite, err error) {
	cipher, hash = canonical(cipher), canonical(hash)
	if cipher == "" && hash == "" {
		return Suite{cipher: cipherGCM}, nil
	}
	if s.cipher, err = parseCipher(cipher); err != nil {
		return Suite{}, err
	}
	aead := ciphers[s.cipher].aead
	if aead && hash != "" {
		return Suite{}, fmt.Errorf("cipher %s authenticates by itself: leave hash %.64q out: %w", cipher, hash, unix.EINVAL)
	}
	if s.mac, err = parseMAC(hash, legacy); err != nil {
		return Suite{}, err
	}
	if !aead && s.mac == macNone {
		return Suite{}, fmt.Errorf("cipher %s alone can be changed on its way by anybody: add hash hmac(sha256), or use gcm(aes): %w", cipher, unix.EOPNOTSUPP)
	}
	return s, nil
}

// canonical is a name as it is compared and mixed into the key.
func canonical(name string) string { return strings.ToLower(strings.ReplaceAll(name, " ", "")) }

func parseCipher(name string) (cipherID, error) {
	if name == "" {
		return cipherNone, nil
	}
	for i := cipherGCM; int(i) < len(ciphers); i++ {
		if name == ciphers[i].name {
			return i, nil
		}
	}
	for _, weak := range []string{"ecb", "des", "arc4", "null", "none"} {
		if strings.Contains(name, weak) {
			return 0, fmt.Errorf("cipher %.64q protects nothing: use gcm(aes): %w", name, unix.EOPNOTSUPP)
		}
	}
	return 0, fmt.Errorf("cipher %.64q is not known: write gcm(aes), rfc7539(chacha20,poly1305), cbc(aes) or ctr(aes): %w", name, unix.EINVAL)
}

func parseMAC(name string, legacy bool) (macID, error) {
	switch name {
	case "":
		return macNone, nil
	case "md4", "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "crc32c", "none":
		return 0, fmt.Errorf("hash %s has no key, so that anybody can make it: use hmac(sha256): %w", name, unix.EOPNOTSUPP)
	case "hmac(md5)", "hmac(md4)":
		return 0, fmt.Errorf("hash %s is broken: use hmac(sha256): %w", name, unix.EOPNOTSUPP)
	case macs[macSHA1].name:
		if !legacy {
			return 0, fmt.Errorf("hash hmac(sha1) is out of date: use hmac(sha256), or say allow-legacy: %w", unix.EOPNOTSUPP)
		}
	}
	for i := macSHA256; int(i) < len(macs); i++ {
		if name == macs[i].name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("hash %.64q is not known: write hmac(sha256), hmac(sha384) or hmac(sha512): %w", name, unix.EINVAL)
}

// Cipher is the name of its cipher, "" if it does not encrypt.
func (s Suite) Cipher() string { return ciphers[s.cipher].name }

// Hash is the name of its MAC, "" if the cipher has its own.
func (s Suite) Hash() string { return macs[s.mac].name }

// Encrypts tells whether nobody else can read.
func (s Suite) Encrypts() bool { return s.cipher != cipherNone }

// Keyed tells whether nobody else can write: s is not the zero Suite.
func (s Suite) Keyed() bool { return s != Suite{} }

// Warning is what the administrator should know of s, "" if it is as it should be.
func (s Suite) Warning() string {
	switch {
	case !s.Keyed():
		return ""
	case s.mac == macSHA1:
		return "hash hmac(sha1) is out of date: use gcm(aes) as soon as both ends can"
	case !s.Encrypts():
		return "data is authenticated and not encrypted: everybody on the way can read it"
	case !ciphers[s.cipher].aead:
		return fmt.Sprintf("cipher %s with %s is slower than gcm(aes)", s.Cipher(), s.Hash())
	}
	return ""
}

// wire is the number of s in a handshake, 0 if it is not Keyed.
func (s Suite) wire() byte { return byte(s.cipher)<<4 | byte(s.mac) }

// suiteOf is the suite of a number of wire. ok is false if ParseSuite would accept
// no such suite.
func suiteOf(wire byte) (s Suite, ok bool) {
	s = Suite{cipher: cipherID(wire >> 4), mac: macID(wire & 15)}
	if !s.Keyed() || int(s.cipher) >= len(ciphers) || int(s.mac) >= len(macs) {
		return Suite{}, false
	}
	if aead := ciphers[s.cipher].aead; aead == (s.mac != macNone) {
		return Suite{}, false
	}
	return s, true
}
