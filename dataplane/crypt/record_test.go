package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	oracle "github.com/flynn/noise"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// everySuite is one of each way to make a record.
var everySuite = []Suite{
	{cipher: cipherGCM}, {cipher: cipherChaCha},
	{cipherCBC, macSHA256}, {cipherCBC, macSHA512}, {cipherCTR, macSHA256}, {cipherCTR, macSHA384}, {cipherCBC, macSHA1},
	{mac: macSHA256}, {mac: macSHA384}, {mac: macSHA512},
}

func (s Suite) String() string { return s.Cipher() + " " + s.Hash() }

func overSuites(t *testing.T, f func(t *testing.T, s Suite)) {
	for _, s := range everySuite {
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

// secretsOf are the secrets of both ends of connection n.
func secretsOf(s Suite, n byte) (client, export Secrets) {
	client.Suite, export.Suite = s, s
	for i := range client.Send {
		client.Send[i], client.Receive[i] = byte(i)^n, byte(i)^n^0x80
	}
	export.Send, export.Receive = client.Receive, client.Send
	return client, export
}

type fatal interface {
	Helper()
	Fatal(...any)
}

// direction is one direction of connection n: who seals and who opens.
func direction(t fatal, s Suite, n byte, p *Pool) (*Sealer, *Opener) {
	t.Helper()
	client, export := secretsOf(s, n)
	sealer, err := NewSealer(&client, p)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := NewOpener(&export, p)
	if err != nil {
		t.Fatal(err)
	}
	return sealer, opener
}

// text is n bytes that are the same for the same n.
func text(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b)
	return b
}

// sealAll makes a record of each text, in place or from elsewhere.
func sealAll(t fatal, s *Sealer, texts ...[]byte) (records [][]byte) {
	t.Helper()
	for i, p := range texts {
		rec := make([]byte, s.Size(len(p)))
		if i%2 == 0 {
			copy(rec[RecordHead:], p)
			p = rec[RecordHead:][:len(p)]
		}
		if n, err := s.Seal(rec, p); err != nil || n != len(rec) {
			t.Fatal(n, err)
		}
		records = append(records, rec)
	}
	s.Finish()
	return records
}

// openAll opens what stream has, each record into its place or where it lies. It
// is what was proven before the error.
func openAll(o *Opener, stream []byte, inPlace bool) (texts [][]byte, err error) {
	for len(stream) > 0 {
		n, size, err := o.Next(stream)
		if err != nil {
			return texts, err
		}
		if size == 0 || size > len(stream) {
			return texts, errors.New("cut")
		}
		dst := bytes.Repeat([]byte{0xEE}, n)
		if inPlace {
			dst = stream[RecordHead:][:n]
		}
		o.Open(dst, stream[:size])
		if err := o.Finish(); err != nil {
			if !bytes.Equal(dst, make([]byte, n)) {
				return texts, errors.New("what did not open was shown")
			}
			return texts, err
		}
		texts = append(texts, slices.Clone(dst))
		stream = stream[size:]
	}
	return texts, nil
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// TestRecordSizes: each size of plaintext makes a record as long as Size says, and
// opens.
func TestRecordSizes(t *testing.T) {
	overSuites(t, func(t *testing.T, s Suite) {
		sealer, opener := direction(t, s, 1, nil)
		var texts [][]byte
		for n := range 50 {
			texts = append(texts, text(n+1))
		}
		texts = append(texts, text(RecordData-1), text(RecordData))
		records := sealAll(t, sealer, texts...)
		for i, r := range records {
			if extra := len(r) - len(texts[i]); extra > RecordExtra || extra < RecordHead+tagSize || len(r) > RecordMax {
				t.Errorf("%d bytes more for %d", extra, len(texts[i]))
			}
			if s.Encrypts() && len(texts[i]) > 16 && bytes.Contains(r, texts[i]) {
				t.Error("in clear")
			}
		}
		got, err := openAll(opener, slices.Concat(records...), s.cipher == cipherGCM)
		if err != nil || !same(got, texts) {
			t.Errorf("other texts: %v", err)
		}
	})
}

// TestRecordIsNoise: a record is a transport message of the Noise protocol with
// the head as associated data, and REKEY is its own.
func TestRecordIsNoise(t *testing.T) {
	for s, function := range map[Suite]oracle.CipherFunc{{cipher: cipherGCM}: oracle.CipherAESGCM, {cipher: cipherChaCha}: oracle.CipherChaChaPoly} {
		sealer, _ := direction(t, s, 3, nil)
		client, _ := secretsOf(s, 3)
		sealer.lane.limits.records = 7
		state := oracle.UnsafeNewCipherState(oracle.NewCipherSuite(oracle.DH25519, function, oracle.HashSHA256), client.Send, 0)
		for i := 1; i < 40; i++ {
			rec := sealAll(t, sealer, text(i))[0]
			want, err := state.Encrypt(slices.Clone(rec[:RecordHead]), rec[:RecordHead], text(i))
			if err != nil || !bytes.Equal(rec, want) {
				t.Fatalf("%s, record %d: %x, want %x, %v", s, i, rec, want, err)
			}
			if (rec[3] == flagRekey) != (i%7 == 0) {
				t.Fatalf("record %d: flags %x", i, rec[3])
			}
			if i%7 == 0 {
				state.Rekey()
			}
		}
	}
}

// TestRecordByHand: cbc(aes) and ctr(aes) with hmac(sha256), made once more from
// what the description says.
func TestRecordByHand(t *testing.T) {
	for _, s := range []Suite{{cipherCBC, macSHA256}, {cipherCTR, macSHA256}, {mac: macSHA256}} {
		sealer, _ := direction(t, s, 5, nil)
		client, _ := secretsOf(s, 5)
		key := func(purpose string) []byte {
			k, err := hkdf.Expand(sha256.New, client.Send[:], "DST record v1 "+s.Cipher()+" "+s.Hash()+" "+purpose, 32)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		for counter := range uint64(40) {
			p := text(int(counter) + 1)
			want := []byte{0, 0, byte(len(p)), 0}
			iv := make([]byte, 16)
			binary.BigEndian.PutUint64(iv[8:], counter)
			ivs, _ := aes.NewCipher(key("iv"))
			ivs.Encrypt(iv, iv)
			block, _ := aes.NewCipher(key("cipher"))
			switch sealed := slices.Clone(p); s.cipher {
			case cipherCBC:
				pad := 16 - len(p)%16
				sealed = append(sealed, bytes.Repeat([]byte{byte(pad)}, pad)...)
				cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, sealed)
				want = append(want, sealed...)
			case cipherCTR:
				cipher.NewCTR(block, iv).XORKeyStream(sealed, sealed)
				want = append(want, sealed...)
			default:
				iv = nil
				want = append(want, sealed...)
			}
			mac := hmac.New(sha256.New, key("mac"))
			mac.Write(want[:4])
			mac.Write(iv)
			mac.Write(binary.BigEndian.AppendUint64(nil, counter))
			mac.Write(want[4:])
			if got := sealAll(t, sealer, p)[0]; !bytes.Equal(got, mac.Sum(want)) {
				t.Fatalf("%s, record %d: %x", s, counter, got)
			}
		}
	}
}

// TestRecordAny: any texts, sealed by one or several, opened in place or not, are
// the same texts, and the records are the same bytes whoever made them.
func TestRecordAny(t *testing.T) {
	pool := NewPool(3)
	defer pool.Close()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom(everySuite).Draw(t, "suite")
		alone, opener := direction(t, s, 1, nil)
		several, shared := direction(t, s, 1, pool)
		limit := rapid.Uint64Range(1, 30).Draw(t, "rekey")
		alone.lane.limits.records, several.lane.limits.records = limit, limit
		var texts [][]byte
		for range rapid.IntRange(1, 20).Draw(t, "records") {
			n := rapid.IntRange(1, 100).Draw(t, "small")
			if rapid.Bool().Draw(t, "big") {
				n = rapid.IntRange(bigRecord, RecordData).Draw(t, "size")
			}
			texts = append(texts, text(n))
		}
		one, other := slices.Concat(sealAll(t, alone, texts...)...), slices.Concat(sealAll(t, several, texts...)...)
		if !bytes.Equal(one, other) {
			t.Fatal("several made other records than one")
		}
		if got, err := openBatch(shared, one, texts); err != nil || !same(got, texts) {
			t.Fatalf("several: %v", err)
		}
		if got, err := openAll(opener, one, rapid.Bool().Draw(t, "in place")); err != nil || !same(got, texts) {
			t.Fatalf("one: %v", err)
		}
	})
}

// openBatch opens all records of stream as one batch.
func openBatch(o *Opener, stream []byte, like [][]byte) (texts [][]byte, err error) {
	for range like {
		n, size, err := o.Next(stream)
		if err != nil || size == 0 || size > len(stream) {
			return nil, errors.Join(err, errors.New("cut"))
		}
		texts = append(texts, make([]byte, n))
		o.Open(texts[len(texts)-1], stream[:size])
		stream = stream[size:]
	}
	return texts, o.Finish()
}

// TestRecordDoesNotAllocate: nothing per record; ctr(aes) alone needs a new stream
// of the standard library for each.
func TestRecordDoesNotAllocate(t *testing.T) {
	overSuites(t, func(t *testing.T, s Suite) {
		sealer, opener := direction(t, s, 1, nil)
		p, dst := text(4096), make([]byte, 4096)
		rec := make([]byte, sealer.Size(len(p)))
		n := testing.AllocsPerRun(100, func() {
			_, err := sealer.Seal(rec, p)
			sealer.Finish()
			if err != nil {
				t.Fatal(err)
			}
			_, size, _ := opener.Next(rec)
			opener.Open(dst, rec[:size])
			if err := opener.Finish(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 && s.cipher != cipherCTR || n > 4 {
			t.Errorf("%v allocations for sealing and opening", n)
		}
	})
}

// TestRecordNeedsASuite: without algorithms there are no records.
func TestRecordNeedsASuite(t *testing.T) {
	if _, err := NewSealer(&Secrets{}, nil); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if _, err := NewOpener(&Secrets{}, nil); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

func TestRecordWiped(t *testing.T) {
	sealer, opener := direction(t, everySuite[0], 1, nil)
	sealer.Wipe()
	opener.Wipe()
	if _, err := sealer.Seal(make([]byte, 100), make([]byte, 1)); !errors.Is(err, unix.EKEYEXPIRED) {
		t.Error(err)
	}
	if _, _, err := opener.Next(make([]byte, 100)); err == nil {
		t.Error("opens without a key")
	}
	if sealer.lane.key != [secretSize]byte{} || opener.lane.key != [secretSize]byte{} {
		t.Error("the key is still there")
	}
}
