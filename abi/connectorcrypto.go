package abi

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CryptoCtl is struct dst_crypto_ctl and the keys behind it, the payload of
// CRYPTO. The cipher's key comes first, as the original's tool sends it; the
// original took both from the start.
type CryptoCtl struct {
	Cipher, Hash       string // kernel crypto names, "" = none
	CipherKey, HashKey []byte // at most 1024 bytes each
	Threads            int32
}

// Append encodes c behind b. Errors: EINVAL for what does not fit.
func (c *CryptoCtl) Append(b []byte) ([]byte, error) {
	b, err := appendName(b, "cipher", c.Cipher)
	if err != nil {
		return b, err
	}
	if b, err = appendName(b, "hash", c.Hash); err != nil {
		return b, err
	}
	if max(len(c.CipherKey), len(c.HashKey)) > cryptoKeyMax {
		return b, fmt.Errorf("keys of %d and %d bytes: at most %d each: %w", len(c.CipherKey), len(c.HashKey), cryptoKeyMax, unix.EINVAL)
	}
	b = host.AppendUint32(b, uint32(len(c.CipherKey)))
	b = host.AppendUint32(b, uint32(len(c.HashKey)))
	b = host.AppendUint32(b, 0)
	b = host.AppendUint32(b, uint32(c.Threads))
	return append(append(b, c.CipherKey...), c.HashKey...), nil
}

// Parse decodes c; the keys alias b. The original read the key sizes before it
// knew that they were there, and took a cipher without a key.
func (c *CryptoCtl) Parse(b []byte) (err error) {
	*c = CryptoCtl{}
	if len(b) < CryptoCtlSize {
		return fmt.Errorf("dst_crypto_ctl of %d bytes: it has %d and the keys: %w", len(b), CryptoCtlSize, unix.EINVAL)
	}
	if c.Cipher, err = parseName("cipher", b[:32]); err != nil {
		return err
	}
	if c.Hash, err = parseName("hash", b[32:64]); err != nil {
		return err
	}
	cipher, hash := host.Uint32(b[64:]), host.Uint32(b[68:])
	keys := b[CryptoCtlSize:]
	switch {
	case cipher > cryptoKeyMax || hash > cryptoKeyMax:
		return fmt.Errorf("keys of %d and %d bytes: at most %d each: %w", cipher, hash, cryptoKeyMax, unix.EINVAL)
	case int(cipher+hash) != len(keys):
		return fmt.Errorf("keys of %d and %d bytes are announced and %d follow: %w", cipher, hash, len(keys), unix.EINVAL)
	case host.Uint32(b[72:]) != 0:
		return fmt.Errorf("crypto_attached_size must be 0: %w", unix.EINVAL)
	case c.Cipher != "" && cipher == 0:
		return fmt.Errorf("cipher %q without a key: %w", c.Cipher, unix.EINVAL)
	}
	c.CipherKey, c.HashKey = keys[:cipher:cipher], keys[cipher:]
	c.Threads = int32(host.Uint32(b[76:]))
	return nil
}

// Wipe overwrites the keys.
func (c *CryptoCtl) Wipe() {
	clear(c.CipherKey)
	clear(c.HashKey)
}
