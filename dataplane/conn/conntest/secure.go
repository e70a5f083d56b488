package conntest

import (
	"bytes"
	"testing"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// Key is a key for suite, always the same for the same seed.
func Key(t testing.TB, suite crypt.Suite, seed byte) *crypt.Key {
	t.Helper()
	var cipher, hash []byte
	if suite.Cipher() != "" {
		cipher = bytes.Repeat([]byte{seed, 0xC1}, 16)
	}
	if suite.Hash() != "" {
		hash = bytes.Repeat([]byte{seed, 0xA5}, 16)
	}
	k, err := crypt.NewKey(suite, cipher, hash)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	return k
}

// Secure is a secure channel of suite over the stream that a and b are the ends
// of, ready, with the workers of p. It is closed with the test, and freed by nobody:
// who still reads then may do so.
func Secure(t testing.TB, a, b conn.Stream, suite crypt.Suite, p *crypt.Pool) (sa, sb *conn.Secure) {
	t.Helper()
	k := Key(t, suite, 1)
	type end struct {
		s   *conn.Secure
		err error
	}
	far := make(chan end, 1)
	go func() {
		s, _, err := conn.Respond(b, func(abi.KeyID) *crypt.Key { return k }, p)
		far <- end{s, err}
	}()
	sa, err := conn.Initiate(a, k, p)
	other := <-far
	if err != nil || other.err != nil {
		t.Fatal(err, other.err)
	}
	for _, s := range []*conn.Secure{sa, other.s} {
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
	}
	return sa, other.s
}
