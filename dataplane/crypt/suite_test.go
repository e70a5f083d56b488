package crypt

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSuiteNames is the whole table of names: what is accepted, what it says of
// itself, and what is refused with which sentence.
func TestSuiteNames(t *testing.T) {
	const slower, clear, old = "slower than gcm(aes)", "not encrypted", "out of date"
	for _, c := range []struct {
		cipher, hash string
		legacy       bool
		want         Suite
		warning      string
		err          error
		says         string
	}{
		{cipher: "", hash: "", want: gcm},
		{cipher: "gcm(aes)", want: gcm},
		{cipher: " GCM( AES ) ", want: gcm},
		{cipher: "rfc7539(chacha20,poly1305)", want: chacha},
		{cipher: "rfc7539(chacha20, poly1305)", want: chacha},
		{cipher: "cbc(aes)", hash: "hmac(sha256)", want: Suite{cipherCBC, macSHA256}, warning: slower},
		{cipher: "cbc(aes)", hash: "hmac(sha384)", want: Suite{cipherCBC, macSHA384}, warning: slower},
		{cipher: "cbc(aes)", hash: "hmac(sha512)", want: Suite{cipherCBC, macSHA512}, warning: slower},
		{cipher: "ctr(aes)", hash: "hmac(sha256)", want: Suite{cipherCTR, macSHA256}, warning: slower},
		{cipher: "ctr(aes)", hash: "hmac(sha384)", want: Suite{cipherCTR, macSHA384}, warning: slower},
		{cipher: "CTR(AES)", hash: "HMAC(SHA512)", want: Suite{cipherCTR, macSHA512}, warning: slower},
		{hash: "hmac(sha256)", want: Suite{cipherNone, macSHA256}, warning: clear},
		{hash: "hmac(sha384)", want: Suite{cipherNone, macSHA384}, warning: clear},
		{hash: "hmac(sha512)", want: Suite{cipherNone, macSHA512}, warning: clear},
		{cipher: "cbc(aes)", hash: "hmac(sha1)", legacy: true, want: Suite{cipherCBC, macSHA1}, warning: old},
		{cipher: "ctr(aes)", hash: "hmac(sha1)", legacy: true, want: Suite{cipherCTR, macSHA1}, warning: old},
		{hash: "hmac(sha1)", legacy: true, want: Suite{cipherNone, macSHA1}, warning: old},

		{cipher: "cbc(aes)", hash: "hmac(sha1)", err: unix.EOPNOTSUPP, says: "say allow-legacy"},
		{cipher: "ctr(aes)", hash: "hmac(sha1)", err: unix.EOPNOTSUPP, says: "say allow-legacy"},
		{hash: "hmac(sha1)", err: unix.EOPNOTSUPP, says: "say allow-legacy"},
		{cipher: "cbc(aes)", err: unix.EOPNOTSUPP, says: "add hash hmac(sha256)"},
		{cipher: "ctr(aes)", err: unix.EOPNOTSUPP, says: "add hash hmac(sha256)"},
		{cipher: "cbc(aes)", hash: "crc32c", err: unix.EOPNOTSUPP, says: "no key"},
		{cipher: "cbc(aes)", hash: "md5", legacy: true, err: unix.EOPNOTSUPP, says: "no key"},
		{cipher: "cbc(aes)", hash: "sha1", legacy: true, err: unix.EOPNOTSUPP, says: "no key"},
		{cipher: "ctr(aes)", hash: "sha256", err: unix.EOPNOTSUPP, says: "no key"},
		{cipher: "ctr(aes)", hash: "none", err: unix.EOPNOTSUPP, says: "no key"},
		{cipher: "cbc(aes)", hash: "hmac(md5)", legacy: true, err: unix.EOPNOTSUPP, says: "broken"},
		{hash: "crc32c", err: unix.EOPNOTSUPP, says: "no key"},
		{hash: "hmac(sha224)", err: unix.EINVAL, says: "not known"},
		{hash: "hmac(sha2)", err: unix.EINVAL, says: "write hmac(sha256)"},
		{hash: "gcm(aes)", err: unix.EINVAL, says: "not known"},
		{cipher: "gcm(aes)", hash: "hmac(sha256)", err: unix.EINVAL, says: "leave hash"},
		{cipher: "gcm(aes)", hash: "crc32c", err: unix.EINVAL, says: "leave hash"},
		{cipher: "rfc7539(chacha20,poly1305)", hash: "hmac(sha512)", err: unix.EINVAL, says: "leave hash"},
		{cipher: "ecb(aes)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "ECB(AES)", hash: "hmac(sha256)", legacy: true, err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "cbc(des)", hash: "hmac(sha256)", legacy: true, err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "cbc(des3_ede)", hash: "hmac(sha256)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "arc4", hash: "hmac(sha256)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "ecb(arc4)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "cipher_null", hash: "hmac(sha256)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "none", hash: "hmac(sha256)", err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{cipher: "aes", err: unix.EINVAL, says: "write gcm(aes)"},
		{cipher: "xts(aes)", hash: "hmac(sha256)", err: unix.EINVAL, says: "not known"},
		{cipher: "gcm(aes)\x00", err: unix.EINVAL, says: "not known"},
		{cipher: strings.Repeat("a", 70000), err: unix.EINVAL, says: "not known"},
		{cipher: strings.Repeat("ecb", 70000), err: unix.EOPNOTSUPP, says: "use gcm(aes)"},
		{hash: strings.Repeat("\xff", 70000), err: unix.EINVAL, says: "not known"},
		{cipher: "gcm(aes)", hash: strings.Repeat("\x00", 70000), err: unix.EINVAL, says: "leave hash"},
	} {
		got, err := ParseSuite(c.cipher, c.hash, c.legacy)
		name := strings.ToValidUTF8(c.cipher[:min(len(c.cipher), 40)]+" "+c.hash[:min(len(c.hash), 40)], "?")
		if c.err == nil {
			if err != nil || got != c.want || c.warning == "" && got.Warning() != "" || !strings.Contains(got.Warning(), c.warning) {
				t.Errorf("%s: %+v, %q, %v", name, got, got.Warning(), err)
			}
			continue
		}
		if got != (Suite{}) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestSuiteNumbers: the numbers on the wire are frozen.
func TestSuiteNumbers(t *testing.T) {
	want := map[byte]Suite{
		0x10: gcm, 0x20: chacha,
		0x01: {cipherNone, macSHA256}, 0x02: {cipherNone, macSHA384}, 0x03: {cipherNone, macSHA512}, 0x04: {cipherNone, macSHA1},
		0x31: {cipherCBC, macSHA256}, 0x32: {cipherCBC, macSHA384}, 0x33: {cipherCBC, macSHA512}, 0x34: {cipherCBC, macSHA1},
		0x41: {cipherCTR, macSHA256}, 0x42: {cipherCTR, macSHA384}, 0x43: {cipherCTR, macSHA512}, 0x44: {cipherCTR, macSHA1},
	}
	for wire := range 256 {
		s, ok := suiteOf(byte(wire))
		if known, good := want[byte(wire)]; ok != good || s != known || ok && s.wire() != byte(wire) {
			t.Errorf("%#x: %+v, %v", wire, s, ok)
		}
		if !ok {
			continue
		}
		if again, err := ParseSuite(s.Cipher(), s.Hash(), true); err != nil || again != s || !s.Keyed() {
			t.Errorf("%#x: %+v, %v", wire, again, err)
		}
	}
	if (Suite{}).Keyed() || (Suite{}).Encrypts() || (Suite{}).Warning() != "" || (Suite{}).wire() != 0 {
		t.Error("the zero Suite is something")
	}
}
