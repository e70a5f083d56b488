package crypt

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// genuine is a handshake of made-up numbers, always the same: the key, both
// messages and the state of the client between them.
type genuine struct {
	key        *Key
	msg1, msg2 []byte
	waiting    noise
}

func newGenuine(f *testing.F) (g genuine) {
	f.Helper()
	g.key = mustKey(f, gcm, golden(1), nil)
	i, msg1, err := initiate(g.key, private(f, golden(2)), make([]byte, payload1))
	if err != nil {
		f.Fatal(err)
	}
	n := begin(g.key, msg1)
	p, _ := n.read1(msg1[HandshakeHead:])
	var s Secrets
	g.msg1, g.msg2, g.waiting = msg1, reply(n, private(f, golden(3)), p, &s), *i.n
	return g
}

// FuzzRespond: of all messages only that of the key is answered. With inside the
// input is the point and the payload of one who has the key.
func FuzzRespond(f *testing.F) {
	g := newGenuine(f)
	find := func(abi.KeyID) *Key { return g.key }
	f.Add(g.msg1, false)
	f.Add(g.msg1[:HandshakeHead], false)
	f.Add(g.msg1[HandshakeHead:HandshakeHead+pointSize], true)
	f.Add(make([]byte, pointSize+payload1), true)
	f.Add(slices.Concat(g.msg1[HandshakeHead:HandshakeHead+pointSize], make([]byte, 16), []byte{0, 0, 0xFF, 0xFF, 1, 2}), true)
	f.Fuzz(func(t *testing.T, msg []byte, inside bool) {
		forged := inside && len(msg) >= pointSize && len(msg) < 1<<12
		if forged {
			msg = forge1(g.key, msg[:pointSize], msg[pointSize:])
		}
		s, k, msg2, err := Respond(msg, find)
		if err != nil {
			if err != ErrRefused || k != nil || msg2 != nil || s != (Secrets{}) { //nolint:errorlint // it is to be the very same
				t.Fatalf("%v, %v, %x", err, k, msg2)
			}
			return
		}
		if !forged && !bytes.Equal(msg, g.msg1) || len(msg2) != ReplySize || k != g.key || s.Send == s.Receive {
			t.Fatalf("%x is answered", msg)
		}
	})
}

// FuzzFinish: of all answers only that of who has the key is taken. With inside
// the input is the point and the payload of one who has it.
func FuzzFinish(f *testing.F) {
	g := newGenuine(f)
	e := private(f, golden(2))
	f.Add(g.msg2, false)
	f.Add(g.msg1, false)
	f.Add(append(slices.Clone(g.msg2[:pointSize]), 0, 0, 0, 0, 0, 1, 0, 0), true)
	f.Add(append(make([]byte, pointSize), 0, 0, 0, 0, 0, 1, 0, 0), true)
	f.Fuzz(func(t *testing.T, msg []byte, inside bool) {
		forged := inside && len(msg) >= pointSize && len(msg) < 1<<12
		if forged {
			shared := make([]byte, pointSize) // what a point of low order gives
			if their, err := e.Curve().NewPublicKey(msg[:pointSize]); err == nil {
				if got, err := e.ECDH(their); err == nil {
					shared = got
				}
			}
			msg = forge2(g.key, g.msg1, msg[:pointSize], shared, msg[pointSize:])
		}
		n := g.waiting
		i := &Initiator{suite: gcm, n: &n, e: e}
		s, err := i.Finish(msg)
		if err != nil {
			if err != ErrRefused || s != (Secrets{}) { //nolint:errorlint // it is to be the very same
				t.Fatal(err)
			}
			return
		}
		if !forged && !bytes.Equal(msg, g.msg2) || s.Send == s.Receive || s.Suite != gcm {
			t.Fatalf("%x is taken", msg)
		}
	})
}

// FuzzParseKey: what is read is what is written.
func FuzzParseKey(f *testing.F) {
	for _, s := range suites() {
		var a, b []byte
		if s.Encrypts() {
			a = golden(1)
		}
		if s.Hash() != "" {
			b = golden(2)
		}
		f.Add(mustKey(f, s, a, b).Append(nil))
	}
	f.Add([]byte{keyVersion, 0x10})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, rest, err := ParseKey(b)
		if err != nil {
			if !errors.Is(err, unix.EUCLEAN) || k != nil || rest != nil {
				t.Fatal(err)
			}
			return
		}
		defer k.Wipe()
		if again := append(k.Append(nil), rest...); !bytes.Equal(again, b) || !k.Suite().Keyed() || k.ID() == (abi.KeyID{}) {
			t.Fatalf("%x from %x", again, b)
		}
	})
}

// FuzzParseSuite: names are understood in one way or refused in a sentence that is
// no longer than it must be, and a suite has a key or is none.
func FuzzParseSuite(f *testing.F) {
	for _, s := range suites() {
		f.Add(s.Cipher(), s.Hash(), true)
	}
	f.Add("ecb(aes)", "md5", false)
	f.Add(" G C M(AES)", "", false)
	f.Fuzz(func(t *testing.T, cipher, hash string, legacy bool) {
		s, err := ParseSuite(cipher, hash, legacy)
		if err != nil {
			if s != (Suite{}) || len(err.Error()) > 500 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Fatalf("%+v, %v", s, err)
			}
			return
		}
		if again, err := ParseSuite(s.Cipher(), s.Hash(), legacy); err != nil || again != s {
			t.Fatalf("%+v again is %+v, %v", s, again, err)
		}
		if again, ok := suiteOf(s.wire()); !ok || again != s || !legacy && s.mac == macSHA1 {
			t.Fatalf("%+v", s)
		}
	})
}
