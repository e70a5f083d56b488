package crypt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// golden is 32 made-up bytes that cannot be typed.
func golden(seed byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = byte(i)*7 + seed*31 + 0x80
	}
	return b
}

func randomStream() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1, 2, 3}) }

// TestKeyBytes: secret and id of made-up keys, computed by another program from
// the definition. They are frozen: others have them on disk and in their rules.
func TestKeyBytes(t *testing.T) {
	for _, c := range []struct {
		cipher, hash       string
		cipherKey, hashKey []byte
		psk, id            string
	}{
		{"gcm(aes)", "", golden(1), nil, "275ef63913058548564ae4af767d7828fddb2a2481a3bf4dd884b26a4a842908", "84340645cb6217b6"},
		{"", "", golden(1), nil, "275ef63913058548564ae4af767d7828fddb2a2481a3bf4dd884b26a4a842908", "84340645cb6217b6"},
		{"RFC7539(ChaCha20, Poly1305)", "", golden(1), nil, "fb187d93569716e294336bb94c2d419ffb3458197b6b344026f09cfb08a12167", "b80132cd6d9d4df5"},
		{"cbc(aes)", "hmac(sha256)", golden(1), golden(2), "2ed5d8594aefa5c154b520baac566e53465fe1202894ded5fc19a5629197f470", "30998c59206e345d"},
		{"CTR(AES)", " hmac(SHA512) ", golden(1), golden(2), "ad59a16523da7b4f0cdc326f1ebb0f5cff6c2a23557736bf911f1d098280ae88", "471ec3304f2438e1"},
		{"", "hmac(sha384)", nil, golden(2), "1e5dd805a614eebaa41024afc749078f17e807f4c40b3754d51fb7f4f69c353a", "7f5296320871daee"},
		{"cbc(aes)", "hmac(sha1)", golden(1), golden(2), "fb9e846396d28c4f1149a0157bd88831f9750bb91fd3505dd09c199c1f403253", "20ce81ae6fa67eea"},
	} {
		s, err := ParseSuite(c.cipher, c.hash, true)
		if err != nil {
			t.Fatal(err)
		}
		k := mustKey(t, s, c.cipherKey, c.hashKey)
		b := k.Append(nil)
		if got := hex.EncodeToString(b[2 : 2+secretSize]); got != c.psk || k.ID().String() != c.id || k.String() != c.id || k.Suite() != s {
			t.Errorf("%s %s: %s %s", c.cipher, c.hash, got, k.ID())
		}
		if want := "01" + hex.EncodeToString([]byte{s.wire()}) + c.psk + c.id; hex.EncodeToString(b) != want {
			t.Errorf("%s %s: kept as %x", c.cipher, c.hash, b)
		}
	}
}

// TestN15EachPartMakesAnotherKey: every suite and each bit of either key.
func TestN15EachPartMakesAnotherKey(t *testing.T) {
	seen := map[abi.KeyID]string{}
	check := func(what string, s Suite, a, b []byte) {
		t.Helper()
		k := mustKey(t, s, a, b)
		if was, ok := seen[k.ID()]; ok {
			t.Fatalf("%s: the key of %s", what, was)
		}
		seen[k.ID()] = what
	}
	for _, s := range suites() {
		var a, b []byte
		if s.Encrypts() {
			a = golden(1)
		}
		if s.Hash() != "" {
			b = golden(2)
		}
		name := s.Cipher() + " " + s.Hash()
		check(name, s, a, b)
		if a != nil && b != nil {
			check(name+" swapped", s, b, a)
			check(name+" alike", s, a, a)
			check(name+" one byte to the other", s, a[:31], append([]byte{a[31]}, b...))
		}
		for bit := range 256 {
			if a != nil {
				check(name+" cipher key, bit "+strconv.Itoa(bit), s, flipped(a, bit), b)
			}
			if b != nil {
				check(name+" hash key, bit "+strconv.Itoa(bit), s, a, flipped(b, bit))
			}
		}
		if a != nil {
			check(name+" cipher key, longer", s, append(bytes.Clone(a), 0), b)
		}
	}
}

// TestN15BadKeys: what is no key is refused with what to do.
func TestN15BadKeys(t *testing.T) {
	good, both, mac := golden(1), Suite{cipherCBC, macSHA256}, Suite{cipherNone, macSHA256}
	for _, c := range []struct {
		what               string
		suite              Suite
		cipherKey, hashKey []byte
		says               string // "" = accepted
	}{
		{"AEAD", gcm, good, nil, ""},
		{"both", both, good, golden(2), ""},
		{"the same twice", both, good, good, ""},
		{"hash only", mac, nil, good, ""},
		{"shortest", gcm, good[:16], nil, ""},
		{"longest", gcm, bytes.Repeat(good, 32), nil, ""},
		{"empty", gcm, nil, nil, "key gen"},
		{"empty, not nil", gcm, []byte{}, []byte{}, "key gen"},
		{"one byte", gcm, []byte{1}, nil, "1 bytes"},
		{"15 bytes", gcm, good[:15], nil, "15 bytes"},
		{"1025 bytes", gcm, append(bytes.Repeat(good, 32), 1), nil, "1025 bytes"},
		{"70000 bytes", gcm, make([]byte, 70000), nil, "70000 bytes"},
		{"no cipher key", both, nil, good, "cbc(aes) needs a key"},
		{"no hash key", both, good, nil, "hmac(sha256) needs a key"},
		{"short hash key", both, good, good[:15], "hash key of 15"},
		{"superfluous hash key", gcm, good, golden(2), "hash key without a hash"},
		{"superfluous cipher key", mac, good, golden(2), "cipher key without a cipher"},
		{"no suite", Suite{}, good, nil, "name a cipher"},
		{"passphrase", gcm, []byte("correct horse battery staple"), nil, "printable text"},
		{"passphrase and newline", gcm, []byte("correct horse battery staple\n"), nil, "printable text"},
		{"passphrase in Greek", gcm, []byte("ἀγεωμέτρητος μηδεὶς εἰσίτω"), nil, "printable text"},
		{"hex", gcm, []byte(hex.EncodeToString(good)), nil, "printable text"},
		{"hash passphrase", both, good, []byte("correct horse battery staple"), "hash key is printable text"},
	} {
		k, err := NewKey(c.suite, c.cipherKey, c.hashKey)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			} else {
				k.Wipe()
			}
			continue
		}
		if k != nil || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", c.what, k, err)
		}
	}
}

// TestKeptKey: what Append writes is read, several in a row, and no damage passes.
func TestKeptKey(t *testing.T) {
	var all []byte
	var keys []*Key
	for _, s := range suites() {
		k := newKey(t, s)
		keys = append(keys, k)
		all = k.Append(all)
	}
	rest := all
	for _, want := range keys {
		k, more, err := ParseKey(rest)
		if err != nil {
			t.Fatal(err)
		}
		if k.ID() != want.ID() || k.Suite() != want.Suite() || !bytes.Equal(k.Append(nil), rest[:keptSize]) {
			t.Fatalf("%v, want %v", k, want)
		}
		_, msg1 := initiateOK(t, k)
		if _, _, _, err := Respond(msg1, finder(want)); err != nil {
			t.Fatal(err)
		}
		k.Wipe()
		rest = more
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left", len(rest))
	}
	one := all[:keptSize]
	for n := range one {
		if k, _, err := ParseKey(one[:n]); k != nil || !errors.Is(err, unix.EUCLEAN) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for bit := range 8 * len(one) {
		if k, _, err := ParseKey(flipped(one, bit)); err == nil && k.Suite() == keys[0].Suite() || err != nil && !errors.Is(err, unix.EUCLEAN) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

// TestKeyKeepsNoReference: the caller wipes what he gave.
func TestKeyKeepsNoReference(t *testing.T) {
	a := golden(1)
	k := mustKey(t, gcm, a, nil)
	before := k.Append(nil)
	clear(a)
	kept, _, err := ParseKey(before)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Wipe()
	again := bytes.Clone(before)
	clear(before)
	if !bytes.Equal(kept.Append(nil), again) || !bytes.Equal(k.Append(nil), again) {
		t.Error("the key has changed")
	}
}

// TestVault: places are zero when they are given out, distinct, and come back.
func TestVault(t *testing.T) {
	var v vault
	var out []*[secretSize]byte
	seen := map[*[secretSize]byte]bool{}
	for range 300 {
		s, err := v.get()
		if err != nil {
			t.Fatal(err)
		}
		if seen[s] || *s != [secretSize]byte{} {
			t.Fatal("in use")
		}
		seen[s] = true
		copy(s[:], golden(7))
		out = append(out, s)
	}
	for _, s := range out {
		v.put(s)
		if *s != [secretSize]byte{} {
			t.Fatal("not wiped")
		}
	}
	if s, err := v.get(); err != nil || !seen[s] || *s != [secretSize]byte{} {
		t.Fatalf("%p is new, %v", s, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { // Ends when its keys have come and gone.
			for range 200 {
				s, err := v.get()
				if err != nil {
					t.Error(err)
					return
				}
				s[0]++
				if s[0] != 1 {
					t.Error("shared")
				}
				v.put(s)
			}
		})
	}
	wg.Wait()
}

// TestN26KeysAreNotDumped: the kernel has the secrets of keys in no core dump and
// in no forked child, and in memory if it can.
func TestN26KeysAreNotDumped(t *testing.T) {
	k := newKey(t, gcm)
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at, inside := uint64(uintptr(unsafe.Pointer(k.psk))), false
	for line := range strings.Lines(string(text)) {
		if from, to, ok := strings.Cut(strings.Fields(line)[0], "-"); ok {
			a, errA := strconv.ParseUint(from, 16, 64)
			b, errB := strconv.ParseUint(to, 16, 64)
			inside = errA == nil && errB == nil && a <= at && at < b
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			for _, want := range []string{" dd ", " wf "} {
				if !strings.Contains(flags, want) {
					t.Errorf("flags%sare without%s", flags, want)
				}
			}
			if strings.Contains(flags, " lo ") != canLock(t) {
				t.Errorf("locked: flags%s", flags)
			}
			return
		}
	}
	t.Error("the secret is in no mapping")
}

// canLock tells whether this process may keep a page in memory.
func canLock(t *testing.T) bool {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	return unix.Mlock(b) == nil
}
