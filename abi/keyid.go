package abi

import (
	"encoding/hex"
	"fmt"

	"golang.org/x/sys/unix"
)

// KeyID names a key without telling anything of it: what a client says in clear
// so that the export finds the key, and what is shown. It depends on the key, on
// the algorithms and on nothing else. Zero is no key.
type KeyID [8]byte

// String is the id in 16 hex digits.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// ParseKeyID reads what String writes. Errors: EINVAL.
func ParseKeyID(s string) (k KeyID, err error) {
	if n, err := hex.Decode(k[:], []byte(s[:min(len(s), 16)])); err != nil || n != len(k) || len(s) != 16 || k == (KeyID{}) {
		return KeyID{}, fmt.Errorf("key id %q is not 16 hex digits as `show` prints them: %w", s, unix.EINVAL)
	}
	return k, nil
}
