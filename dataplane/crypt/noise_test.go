package crypt

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	oracle "github.com/flynn/noise"
)

// transport is one direction after the handshake, as Noise defines it (5.1): the
// record layer's keys are the same, its records are not.
type transport struct {
	aead   cipher.AEAD
	chacha bool
	n      uint64
}

func newTransport(t testing.TB, chacha bool, key [secretSize]byte) *transport {
	t.Helper()
	a, err := (&noise{chacha: chacha}).aead(key[:])
	if err != nil {
		t.Fatal(err)
	}
	return &transport{aead: a, chacha: chacha}
}

func (c *transport) nonce() []byte {
	nonce := make([]byte, 12)
	if c.chacha {
		binary.LittleEndian.PutUint64(nonce[4:], c.n)
	} else {
		binary.BigEndian.PutUint64(nonce[4:], c.n)
	}
	c.n++
	return nonce
}

func (c *transport) seal(b []byte) []byte          { return c.aead.Seal(nil, c.nonce(), b, nil) }
func (c *transport) open(b []byte) ([]byte, error) { return c.aead.Open(nil, c.nonce(), b, nil) }

// vectors reads the file of vectors: each a set of names and values, in their order.
func vectors(t *testing.T) (all []map[string][]byte, names []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/nnpsk0.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case !ok || strings.HasPrefix(line, "#"):
		case key == "handshake":
			all, names = append(all, map[string][]byte{}), append(names, value)
		default:
			if all[len(all)-1][key], err = hex.DecodeString(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all, names
}

func private(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	e, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestNoiseVectors: the published vectors of both ciphers, both ends, byte for byte.
func TestNoiseVectors(t *testing.T) {
	all, names := vectors(t)
	ciphers := map[string]int{}
	for i, v := range all {
		t.Run(fmt.Sprint(i, names[i]), func(t *testing.T) { checkVector(t, v, names[i] == noiseChaChaPoly) })
		ciphers[names[i]]++
	}
	if ciphers[noiseAESGCM] != 5 || ciphers[noiseChaChaPoly] != 5 || len(ciphers) != 2 {
		t.Errorf("vectors: %v", ciphers)
	}
}

func checkVector(t *testing.T, v map[string][]byte, chacha bool) {
	same := func(what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: %x, want %x", what, got, want)
		}
	}
	ours, theirs := private(t, v["gen_init_ephemeral"]), private(t, v["gen_resp_ephemeral"])
	i, r := newNoise(chacha, v["prologue"], v["preshared_key"]), newNoise(chacha, v["prologue"], v["preshared_key"])

	msg1 := i.write1(nil, ours, v["msg_0_payload"])
	same("message 1", msg1, v["msg_0_ciphertext"])
	p, payload := r.read1(msg1)
	same("payload 1", payload, v["msg_0_payload"])
	if want := v["hash_after_msg_0"]; want != nil {
		same("hash", r.h[:], want)
	}
	msg2 := r.write2(nil, theirs, p, v["msg_1_payload"])
	same("message 2", msg2, v["msg_1_ciphertext"])
	same("payload 2", i.read2(ours, msg2), v["msg_1_payload"])
	if i.err != nil || r.err != nil {
		t.Fatal(i.err, r.err)
	}
	same("hash", i.h[:], r.h[:])

	var is, ir, rs, rr [secretSize]byte
	i.split(&is, &ir)
	r.split(&rr, &rs)
	same("keys", append(is[:], ir[:]...), append(rr[:], rs[:]...))
	c2s, s2c := newTransport(t, chacha, is), newTransport(t, chacha, ir)
	for n := 2; v[fmt.Sprintf("msg_%d_payload", n)] != nil; n++ {
		c := c2s
		if n%2 == 1 {
			c = s2c
		}
		same("transport", c.seal(v[fmt.Sprintf("msg_%d_payload", n)]), v[fmt.Sprintf("msg_%d_ciphertext", n)])
	}
}

// oracleState is the end of another implementation.
func oracleState(t testing.TB, initiator, chacha bool, prologue, psk []byte, random *rand.ChaCha8) *oracle.HandshakeState {
	t.Helper()
	c := oracle.CipherAESGCM
	if chacha {
		c = oracle.CipherChaChaPoly
	}
	s, err := oracle.NewHandshakeState(oracle.Config{
		CipherSuite: oracle.NewCipherSuite(oracle.DH25519, c, oracle.HashSHA256), Random: random, Pattern: oracle.HandshakeNN,
		Initiator: initiator, Prologue: prologue, PresharedKey: psk, PresharedKeyPlacement: 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNoiseMeetsAnother: random keys, prologues and payloads, both ciphers, this
// implementation in both roles, and then a stream in random pieces each way.
func TestNoiseMeetsAnother(t *testing.T) {
	t.Parallel()
	for run := range crossRuns {
		random := rand.NewChaCha8([32]byte{byte(run), byte(run >> 8), 1})
		rng := rand.New(random)
		some := func(most int) []byte {
			b := make([]byte, rng.IntN(most+1))
			_, _ = random.Read(b)
			return b
		}
		chacha, initiator := run&1 != 0, run&2 != 0
		prologue, psk := some(64), make([]byte, secretSize)
		_, _ = random.Read(psk)
		payloads := [2][]byte{some(300), some(300)}
		other := oracleState(t, !initiator, chacha, prologue, psk, random)
		seed := make([]byte, 32)
		_, _ = random.Read(seed)

		meet := asResponder
		if initiator {
			meet = asInitiator
		}
		n := newNoise(chacha, prologue, psk)
		send, receive, encrypt, decrypt := meet(t, n, private(t, seed), other, payloads)
		if !bytes.Equal(n.h[:], other.ChannelBinding()) {
			t.Fatalf("run %d: hashes differ", run)
		}
		out, in := newTransport(t, chacha, send), newTransport(t, chacha, receive)
		for range rng.IntN(4) {
			plain := some(500)
			if got, err := decrypt.Decrypt(nil, nil, out.seal(plain)); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("run %d: the other reads %x, %v", run, got, err)
			}
			sealed, err := encrypt.Encrypt(nil, nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := in.open(sealed); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("run %d: we read %x, %v", run, got, err)
			}
		}
	}
}

func asInitiator(t *testing.T, n *noise, e *ecdh.PrivateKey, other *oracle.HandshakeState, payloads [2][]byte) (send, receive [secretSize]byte, encrypt, decrypt *oracle.CipherState) {
	t.Helper()
	got, _, _, err := other.ReadMessage(nil, n.write1(nil, e, payloads[0]))
	if err != nil || !bytes.Equal(got, payloads[0]) {
		t.Fatalf("the other reads %x, %v", got, err)
	}
	msg2, c2s, s2c, err := other.WriteMessage(nil, payloads[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := n.read2(e, msg2); n.err != nil || !bytes.Equal(got, payloads[1]) {
		t.Fatalf("we read %x, %v", got, n.err)
	}
	n.split(&send, &receive)
	return send, receive, s2c, c2s
}

func asResponder(t *testing.T, n *noise, e *ecdh.PrivateKey, other *oracle.HandshakeState, payloads [2][]byte) (send, receive [secretSize]byte, encrypt, decrypt *oracle.CipherState) {
	t.Helper()
	msg1, _, _, err := other.WriteMessage(nil, payloads[0])
	if err != nil {
		t.Fatal(err)
	}
	p, got := n.read1(msg1)
	if n.err != nil || !bytes.Equal(got, payloads[0]) {
		t.Fatalf("we read %x, %v", got, n.err)
	}
	got, c2s, s2c, err := other.ReadMessage(nil, n.write2(nil, e, p, payloads[1]))
	if err != nil || !bytes.Equal(got, payloads[1]) {
		t.Fatalf("the other reads %x, %v", got, err)
	}
	n.split(&receive, &send)
	return send, receive, c2s, s2c
}

// TestNoiseStopsAtTheFirstError: nothing is sealed or derived after it.
func TestNoiseStopsAtTheFirstError(t *testing.T) {
	n := newNoise(false, nil, make([]byte, secretSize))
	n.open(make([]byte, 40))
	if n.err == nil {
		t.Fatal("garbage was opened")
	}
	var a, b [secretSize]byte
	if got := n.seal(nil, []byte("secret")); got != nil {
		t.Errorf("sealed %x", got)
	}
	if n.split(&a, &b); a != b || a != [secretSize]byte{} {
		t.Errorf("keys %x %x", a, b)
	}
	if got := n.open(nil); got != nil {
		t.Errorf("opened %x", got)
	}
}
