package crypt

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// suites are all that a key can have.
func suites() (all []Suite) {
	for wire := range 256 {
		if s, ok := suiteOf(byte(wire)); ok {
			all = append(all, s)
		}
	}
	return all
}

// randomKeys are keys of s that nobody had before.
func randomKeys(s Suite) (cipherKey, hashKey []byte) {
	if s.cipher != cipherNone {
		cipherKey = make([]byte, 32)
		_, _ = rand.Read(cipherKey)
	}
	if s.mac != macNone {
		hashKey = make([]byte, 32)
		_, _ = rand.Read(hashKey)
	}
	return cipherKey, hashKey
}

func newKey(t testing.TB, s Suite) *Key {
	t.Helper()
	cipherKey, hashKey := randomKeys(s)
	return mustKey(t, s, cipherKey, hashKey)
}

func mustKey(t testing.TB, s Suite, cipherKey, hashKey []byte) *Key {
	t.Helper()
	k, err := NewKey(s, cipherKey, hashKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	return k
}

// finder finds the keys of an export.
func finder(keys ...*Key) func(abi.KeyID) *Key {
	return func(id abi.KeyID) *Key {
		for _, k := range keys {
			if k.ID() == id {
				return k
			}
		}
		return nil
	}
}

var gcm, chacha = Suite{cipher: cipherGCM}, Suite{cipher: cipherChaCha}

func initiateOK(t testing.TB, k *Key) (*Initiator, []byte) {
	t.Helper()
	i, msg1, err := Initiate(k)
	if err != nil {
		t.Fatal(err)
	}
	return i, msg1
}

// unanswered asks that an export with keys refuses msg1 and gives nothing.
func unanswered(t testing.TB, what string, msg1 []byte, keys ...*Key) {
	t.Helper()
	s, k, msg2, err := Respond(msg1, finder(keys...))
	if err != ErrRefused || k != nil || msg2 != nil || s != (Secrets{}) { //nolint:errorlint // it is to be the very same
		t.Fatalf("%s: %v, %x, %v", what, k, msg2, err)
	}
}

// unfinished asks that i refuses msg2 and gives nothing.
func unfinished(t testing.TB, what string, i *Initiator, msg2 []byte) {
	t.Helper()
	s, err := i.Finish(msg2)
	if err != ErrRefused || s != (Secrets{}) { //nolint:errorlint // it is to be the very same
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := i.Finish(msg2); err != ErrRefused { //nolint:errorlint // as above
		t.Fatalf("%s: again: %v", what, err)
	}
}

// TestHandshake: each suite meets itself, among other keys.
func TestHandshake(t *testing.T) {
	seen := map[[secretSize]byte]bool{}
	for _, suite := range suites() {
		for range 3 {
			k := newKey(t, suite)
			i, msg1 := initiateOK(t, k)
			if total, err := MessageSize(msg1[:HandshakeHead]); err != nil || total != len(msg1) || total > HandshakeMax {
				t.Fatalf("%v: size %d of %d, %v", suite, total, len(msg1), err)
			}
			theirs, found, msg2, err := Respond(msg1, finder(newKey(t, gcm), k, newKey(t, suite)))
			if err != nil || found != k || len(msg2) != ReplySize {
				t.Fatalf("%v: %v, %v", suite, found, err)
			}
			ours, err := i.Finish(msg2)
			if err != nil {
				t.Fatal(err)
			}
			if ours.Send != theirs.Receive || ours.Receive != theirs.Send || ours.Suite != suite || theirs.Suite != suite {
				t.Fatalf("%v: the ends differ", suite)
			}
			if seen[ours.Send] || seen[ours.Receive] || ours.Send == ours.Receive {
				t.Fatalf("%v: a key twice", suite)
			}
			seen[ours.Send], seen[ours.Receive] = true, true
			if i.e != nil || *i.n != (noise{err: ErrRefused}) {
				t.Fatal("the state is not wiped")
			}
			if ours.Wipe(); ours.Send != [secretSize]byte{} || ours.Receive != [secretSize]byte{} {
				t.Fatal("not wiped")
			}
		}
	}
}

// TestHandshakeIsThatOfNoise: the messages are the clear part and what another
// implementation makes of the same prologue and secret, in both roles.
func TestHandshakeIsThatOfNoise(t *testing.T) {
	for _, suite := range suites() {
		k := newKey(t, suite)
		psk := k.Append(nil)[2 : 2+secretSize]
		i, msg1 := initiateOK(t, k)
		prologue := func(head []byte) []byte { return append([]byte("DST2 prologue"), head[:HandshakeHead]...) }
		other := oracleState(t, false, suite == chacha, prologue(msg1), psk, randomStream())
		payload, _, _, err := other.ReadMessage(nil, msg1[HandshakeHead:])
		if err != nil || len(payload) != 20 || !bytes.Equal(payload[16:], make([]byte, 4)) {
			t.Fatalf("%v: payload %x, %v", suite, payload, err)
		}
		msg2, c2s, s2c, err := other.WriteMessage(nil, []byte{0, 0, 0, 0, 0, 1, 0, 0})
		if err != nil {
			t.Fatal(err)
		}
		s, err := i.Finish(msg2)
		if err != nil || s.Send != c2s.UnsafeKey() || s.Receive != s2c.UnsafeKey() {
			t.Fatalf("%v: %v", suite, err)
		}

		head := appendClear(nil, k, 68)
		other = oracleState(t, true, suite == chacha, prologue(head), psk, randomStream())
		msg1, _, _, err = other.WriteMessage(head, make([]byte, 20))
		if err != nil {
			t.Fatal(err)
		}
		s, _, msg2, err = Respond(msg1, finder(k))
		if err != nil {
			t.Fatal(err)
		}
		payload, c2s, s2c, err = other.ReadMessage(nil, msg2)
		if err != nil || !bytes.Equal(payload, []byte{0, 0, 0, 0, 0, 1, 0, 0}) || s.Receive != c2s.UnsafeKey() || s.Send != s2c.UnsafeKey() {
			t.Fatalf("%v: payload %x, %v", suite, payload, err)
		}
	}
}

// TestHandshakeBytes: the sizes and the clear part of message 1 are frozen.
func TestHandshakeBytes(t *testing.T) {
	k := mustKey(t, gcm, golden(1), nil)
	if _, msg1 := initiateOK(t, k); hex.EncodeToString(msg1[:HandshakeHead]) != "44535432"+"01"+"10"+"84340645cb6217b6"+"0044" || len(msg1) != 84 || ReplySize != 56 || HandshakeMax != 272 {
		t.Fatalf("%x of %d bytes", msg1[:HandshakeHead], len(msg1))
	}
}

// TestN12N15FlippedBits: a bit changed anywhere in what is clear or sealed ends
// the handshake, at the end that reads it.
func TestN12N15FlippedBits(t *testing.T) {
	for _, suite := range []Suite{gcm, chacha, {cipherCTR, macSHA512}} {
		k, other := newKey(t, suite), newKey(t, chacha)
		_, msg1 := initiateOK(t, k)
		for bit := range 8 * len(msg1) {
			bad := flipped(msg1, bit)
			unanswered(t, fmt.Sprintf("%v: bit %d of message 1", suite, bit), bad, k, other)
			// Whatever id it names, no key fits.
			if _, found, _, err := Respond(bad, func(abi.KeyID) *Key { return k }); err == nil {
				t.Fatalf("%v: bit %d of message 1: %v", suite, bit, found)
			}
		}
		i, msg1 := initiateOK(t, k)
		_, _, msg2, err := Respond(msg1, finder(k))
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * ReplySize {
			n := *i.n
			unfinished(t, fmt.Sprintf("%v: bit %d of message 2", suite, bit), &Initiator{suite: suite, n: &n, e: i.e}, flipped(msg2, bit))
		}
		if _, err := i.Finish(msg2); err != nil {
			t.Fatal(err)
		}
	}
}

func flipped(b []byte, bit int) []byte {
	b = slices.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// TestN10Truncated: cut at every byte, and with one more.
func TestN10Truncated(t *testing.T) {
	k := newKey(t, gcm)
	_, msg1 := initiateOK(t, k)
	for n := range msg1 {
		unanswered(t, fmt.Sprintf("%d bytes", n), msg1[:n], k)
		if _, err := MessageSize(msg1[:n]); (err == nil) != (n >= HandshakeHead) {
			t.Fatalf("size of %d bytes: %v", n, err)
		}
		// The length says so too.
		if bad := slices.Clone(msg1[:n]); n >= HandshakeHead {
			binary.BigEndian.PutUint16(bad[HandshakeHead-2:], uint16(n-HandshakeHead))
			unanswered(t, fmt.Sprintf("%d bytes, said", n), bad, k)
		}
	}
	unanswered(t, "one more", append(slices.Clone(msg1), 0), k)
	unanswered(t, "nothing", nil, k)
	for n := range ReplySize + 2 {
		if n == ReplySize {
			continue
		}
		i, msg1 := initiateOK(t, k)
		_, _, msg2, err := Respond(msg1, finder(k))
		if err != nil {
			t.Fatal(err)
		}
		unfinished(t, fmt.Sprintf("%d bytes", n), i, append(msg2, 0)[:n])
	}
}

// TestN1N5Lengths: what MessageSize lets pass is small and enough.
func TestN1N5Lengths(t *testing.T) {
	k := newKey(t, gcm)
	_, msg1 := initiateOK(t, k)
	for n := range 1 << 16 {
		binary.BigEndian.PutUint16(msg1[HandshakeHead-2:], uint16(n))
		total, err := MessageSize(msg1)
		if good := n >= 68 && n <= 256; good != (err == nil) || good && total != HandshakeHead+n || total > 1024 {
			t.Fatalf("length %d: %d, %v", n, total, err)
		}
		if n != 68 {
			unanswered(t, fmt.Sprintf("length %d", n), msg1, k)
		}
	}
}

// TestN15WrongKeys: unknown, of another export, of other files or other names: one
// error, and nothing of what is there.
func TestN15WrongKeys(t *testing.T) {
	cbc := Suite{cipherCBC, macSHA256}
	a, b := randomKeys(cbc)
	c, d := randomKeys(cbc)
	right := mustKey(t, cbc, a, b)
	for what, wrong := range map[string]*Key{
		"another key":          newKey(t, cbc),
		"another cipher key":   mustKey(t, cbc, c, b),
		"another hash key":     mustKey(t, cbc, a, d),
		"swapped keys":         mustKey(t, cbc, b, a),
		"another cipher":       mustKey(t, Suite{cipherCTR, macSHA256}, a, b),
		"another hash":         mustKey(t, Suite{cipherCBC, macSHA384}, a, b),
		"no cipher":            mustKey(t, Suite{cipherNone, macSHA256}, nil, b),
		"cipher by itself":     mustKey(t, gcm, a, nil),
		"another AEAD":         mustKey(t, chacha, a, nil),
		"the hash's as AEAD's": mustKey(t, gcm, b, nil),
	} {
		if wrong.ID() == right.ID() {
			t.Fatalf("%s: the same id", what)
		}
		_, msg1 := initiateOK(t, wrong)
		unanswered(t, what, msg1, right)
		// With the id and the suite of the right one it is no better.
		copy(msg1[6:], right.id[:])
		unanswered(t, what+", its id", msg1, right)
		msg1[5] = right.suite.wire()
		unanswered(t, what+", its id and suite", msg1, right, wrong)
		// And the wrong export cannot answer.
		i, msg1 := initiateOK(t, right)
		n := begin(wrong, msg1)
		n.read1(msg1[HandshakeHead:])
		n.err = nil
		var s Secrets
		unfinished(t, what+", the export's", i, reply(n, private(t, golden(9)), msg1[HandshakeHead:HandshakeHead+pointSize], &s))
	}
	_, msg1 := initiateOK(t, right)
	unanswered(t, "no key at all", msg1)
	// Nor does the holder of a key choose another suite for it.
	for _, suite := range suites() {
		posing := &Key{suite: suite, id: right.id, psk: right.psk}
		if _, msg1 := initiateOK(t, posing); suite != right.suite {
			unanswered(t, fmt.Sprintf("posing as %v", suite), msg1, right)
		}
	}
	// An export that finds a key under an id that is not its own does not use it.
	_, msg1 = initiateOK(t, &Key{suite: right.suite, id: abi.KeyID{1}, psk: right.psk})
	if _, k, _, err := Respond(msg1, func(abi.KeyID) *Key { return right }); !errors.Is(err, unix.EACCES) || k != nil {
		t.Errorf("another id: %v, %v", k, err)
	}
}

// TestN13OtherProtocols: what is no handshake is refused by its first bytes.
func TestN13OtherProtocols(t *testing.T) {
	k := newKey(t, gcm)
	for _, text := range []string{
		"", "DST2", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "NBDMAGICIHAVEOPT" + strings.Repeat("\x00", 64),
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x11", 100), strings.Repeat("\x00", abi.HeaderSize), strings.Repeat("\xff", 84),
		"DST1" + strings.Repeat("\x00", 80), "DST2\x02\x10" + strings.Repeat("\x00", 80), "DST2\x00\x10" + strings.Repeat("\x00", 80),
	} {
		if n, err := MessageSize([]byte(text)); err == nil {
			t.Errorf("%q: %d bytes", text, n)
		}
		unanswered(t, text, []byte(text), k)
	}
	_, msg1 := initiateOK(t, k)
	for other := range 256 {
		msg1[4] = byte(other)
		if _, err := MessageSize(msg1); (err == nil) != (other == version) {
			t.Errorf("version %d: %v", other, err)
		}
	}
	msg1[4] = version
	for wire := range 256 {
		msg1[5] = byte(wire)
		_, known := suiteOf(byte(wire))
		if _, err := MessageSize(msg1); (err == nil) != known {
			t.Errorf("suite %#x: %v", wire, err)
		}
		if byte(wire) != gcm.wire() {
			unanswered(t, fmt.Sprintf("suite %#x", wire), msg1, k)
		}
	}
}

// lowOrder are the encodings of the points that make every secret zero, also with
// the bit that X25519 ignores.
func lowOrder(t testing.TB) (points [][]byte) {
	t.Helper()
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		p, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		high := slices.Clone(p)
		high[31] |= 0x80
		points = append(points, p, high)
	}
	return points
}

// forge1 is a message 1 of who has the key and shows p as his own.
func forge1(k *Key, p, payload []byte) []byte {
	head := appendClear(nil, k, len(p)+len(payload)+tagSize)
	n := begin(k, head)
	n.point(p)
	return n.seal(append(head, p...), payload)
}

// forge2 is a message 2 of who has the key, shows p as his own and says that shared
// is what both ends have.
func forge2(k *Key, msg1, p, shared, payload []byte) []byte {
	n := begin(k, msg1)
	n.read1(msg1[HandshakeHead:])
	n.point(p)
	n.mixKey(shared)
	return n.seal(slices.Clone(p), payload)
}

// TestN16LowOrderPoints: whoever has the key cannot choose the secrets either.
func TestN16LowOrderPoints(t *testing.T) {
	for _, suite := range []Suite{gcm, chacha} {
		k := newKey(t, suite)
		for _, p := range lowOrder(t) {
			unanswered(t, fmt.Sprintf("%x", p), forge1(k, p, make([]byte, payload1)), k)
			i, msg1 := initiateOK(t, k)
			unfinished(t, fmt.Sprintf("%x", p), i, forge2(k, msg1, p, make([]byte, 32), []byte{0, 0, 0, 0, 0, 1, 0, 0}))
		}
		// Made in the same way with an honest point, both are accepted.
		e := private(t, golden(3))
		if _, _, _, err := Respond(forge1(k, e.PublicKey().Bytes(), make([]byte, payload1)), finder(k)); err != nil {
			t.Fatal(err)
		}
		i, msg1 := initiateOK(t, k)
		shared, err := e.ECDH(i.e.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Finish(forge2(k, msg1, e.PublicKey().Bytes(), shared, []byte{0, 0, 0, 0, 0, 1, 0, 0})); err != nil {
			t.Fatal(err)
		}
	}
}

// TestN15Reflected: what an end has sent is nothing to itself.
func TestN15Reflected(t *testing.T) {
	k := newKey(t, gcm)
	i, msg1 := initiateOK(t, k)
	unfinished(t, "message 1", i, msg1)
	i, msg1 = initiateOK(t, k)
	unfinished(t, "message 1, the length of a message 2", i, msg1[HandshakeHead:HandshakeHead+ReplySize])
	_, msg1 = initiateOK(t, k)
	_, _, msg2, err := Respond(msg1, finder(k))
	if err != nil {
		t.Fatal(err)
	}
	unanswered(t, "message 2", msg2, k)
	head := appendClear(nil, k, len(msg2)+12)
	unanswered(t, "message 2 behind a clear part", append(append(head, msg2...), make([]byte, 12)...), k)
}

// TestN15Replayed: message 1 again is answered, with other numbers, and the answer
// is of no use without the private key of its first sender; message 2 again is
// refused by every other handshake.
func TestN15Replayed(t *testing.T) {
	k := newKey(t, gcm)
	i, msg1 := initiateOK(t, k)
	first, _, msg2, err := Respond(msg1, finder(k))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{string(msg2): true}
	for range 100 {
		s, _, again, err := Respond(msg1, finder(k))
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(again)] || seen[string(again[:pointSize])] || s.Send == first.Send || s.Receive == first.Receive {
			t.Fatal("an answer twice")
		}
		seen[string(again)], seen[string(again[:pointSize])] = true, true
		// The replayer has the key of another client at most, and not this private one.
		thief := &Initiator{suite: gcm, n: begin(k, msg1), e: private(t, golden(4))}
		thief.n.read1(msg1[HandshakeHead:])
		unfinished(t, "without the private key", thief, again)
	}
	later, _ := initiateOK(t, k)
	unfinished(t, "message 2 of another handshake", later, msg2)
	if s, err := i.Finish(msg2); err != nil || s.Send != first.Receive {
		t.Fatalf("the first client is disturbed: %v", err)
	}
	unfinished(t, "message 2 twice", i, msg2)
}

// TestLaterVersions: what a later version adds is skipped, unless it says that it
// must not be.
func TestLaterVersions(t *testing.T) {
	k, e := newKey(t, gcm), private(t, golden(5))
	fresh := make([]byte, freshness)
	for _, c := range []struct {
		features uint32
		more     int
		good     bool
	}{{0, 0, true}, {1, 0, true}, {0xFFFF, 188, true}, {1 << 16, 0, false}, {1 << 31, 3, false}, {0, 189, false}} {
		features := binary.BigEndian.AppendUint32(nil, c.features)
		msg1 := forge1(k, e.PublicKey().Bytes(), append(append(slices.Clone(fresh), features...), make([]byte, c.more)...))
		if _, _, _, err := Respond(msg1, finder(k)); (err == nil) != c.good {
			t.Errorf("message 1, %+v: %v", c, err)
		}
		i, msg1 := initiateOK(t, k)
		shared, err := e.ECDH(i.e.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		msg2 := forge2(k, msg1, e.PublicKey().Bytes(), shared, append(slices.Clone(features), 0, 1, 0, 0))
		if _, err := i.Finish(msg2); (err == nil) != (c.features&featuresMust == 0) {
			t.Errorf("message 2, %+v: %v", c, err)
		}
	}
	i, msg1 := initiateOK(t, k)
	shared, err := e.ECDH(i.e.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	unfinished(t, "records that are too small", i, forge2(k, msg1, e.PublicKey().Bytes(), shared, []byte{0, 0, 0, 0, 0, 0, 0xFF, 0xFF}))
}

// TestN15UnknownIDCostsTheSame: an unknown id and a wrong key are told apart
// neither by the error nor by the work: allocations are counted, and the time of
// the one is within half and twice that of the other.
func TestN15UnknownIDCostsTheSame(t *testing.T) {
	k, wrong := newKey(t, gcm), newKey(t, gcm)
	find := finder(k)
	_, unknown := initiateOK(t, wrong)
	bad := slices.Clone(unknown)
	copy(bad[6:], k.id[:])
	for range 100 { // the first of them makes the key that nobody has
		unanswered(t, "unknown", unknown, k)
	}
	work := func(msg1 []byte) float64 {
		return testing.AllocsPerRun(100, func() { _, _, _, _ = Respond(msg1, find) })
	}
	if a, b := work(unknown), work(bad); a != b {
		t.Errorf("%v allocations for an unknown id, %v for a wrong key", a, b)
	}
	var ratio float64
	for range 10 {
		var times [2][]time.Duration
		for n := range 4000 {
			msg1 := [][]byte{unknown, bad}[n%2]
			start := time.Now()
			_, _, _, _ = Respond(msg1, find)
			times[n%2] = append(times[n%2], time.Since(start))
		}
		slices.Sort(times[0])
		slices.Sort(times[1])
		ratio = float64(times[0][1000]) / float64(times[1][1000])
		if ratio > 0.5 && ratio < 2 {
			t.Logf("unknown id / wrong key: %.3f (medians %v, %v)", ratio, times[0][1000], times[1][1000])
			return
		}
	}
	t.Errorf("an unknown id takes %.2f of the time of a wrong key", ratio)
}

// TestWipedKeyIsRefused: as a wrong one, at both ends, also while it is used.
func TestWipedKeyIsRefused(t *testing.T) {
	k := newKey(t, gcm)
	i, msg1 := initiateOK(t, k)
	_, _, msg2, err := Respond(msg1, finder(k))
	if err != nil {
		t.Fatal(err)
	}
	begun, done := make(chan bool), make(chan int)
	go func() { // Started by the test, ends when the key is wiped.
		n := 0
		for {
			if _, _, _, err := Respond(msg1, finder(k)); err != nil {
				done <- n
				return
			}
			if n++; n == 1 {
				close(begun)
			}
		}
	}()
	<-begun
	k.Wipe()
	t.Logf("wiped after %d answers", <-done)
	k.Wipe()
	if _, err := i.Finish(msg2); err != nil {
		t.Errorf("what had begun: %v", err)
	}
	unanswered(t, "a wiped key", msg1, k)
	if _, _, err := Initiate(k); err != ErrRefused { //nolint:errorlint // it is to be the very same
		t.Errorf("%v", err)
	}
	if b := k.Append([]byte{1}); len(b) != 1 {
		t.Errorf("%x", b)
	}
}

// TestN26SecretsAreNotPrinted: with any verb.
func TestN26SecretsAreNotPrinted(t *testing.T) {
	k := newKey(t, gcm)
	i, msg1 := initiateOK(t, k)
	s, _, _, err := Respond(msg1, finder(k))
	if err != nil {
		t.Fatal(err)
	}
	psk := k.Append(nil)[2 : 2+secretSize]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, x := range []any{s, &s, k, i} {
			text := strings.ToLower(fmt.Sprintf(verb, x))
			for _, secret := range [][]byte{s.Send[:], s.Receive[:], psk} {
				for _, form := range []string{string(secret), "%x", "%v", "%#v"} {
					if strings.Contains(form, "%") {
						form = strings.Trim(fmt.Sprintf(form, secret), "[]")
					}
					if strings.Contains(text, strings.ToLower(form)) {
						t.Errorf("%s of %T shows a secret: %s", verb, x, text)
					}
				}
			}
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	k := newKey(b, gcm)
	find := finder(k)
	for b.Loop() {
		i, msg1 := initiateOK(b, k)
		_, _, msg2, err := Respond(msg1, find)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := i.Finish(msg2); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	k := newKey(b, gcm)
	_, msg1 := initiateOK(b, newKey(b, gcm))
	find := finder(k)
	for b.Loop() {
		_, _, _, _ = Respond(msg1, find)
	}
}
