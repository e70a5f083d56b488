package conn_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"

	"pgregory.net/rapid"
)

// TestSecureFrames: any frames in are the same frames out, over any stream, with
// any suite, whoever helps, however the receiver takes them.
func TestSecureFrames(t *testing.T) {
	pool := crypt.NewPool(3)
	defer pool.Close()
	names := [][2]string{{"gcm(aes)", ""}, {"rfc7539(chacha20,poly1305)", ""}, {"cbc(aes)", "hmac(sha256)"}, {"ctr(aes)", "hmac(sha512)"}, {"", "hmac(sha384)"}}
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SampledFrom(names).Draw(rt, "suite")
		a, b := conntest.Pipe()
		if rapid.Bool().Draw(rt, "socket") {
			a, b = conntest.SockPair(t)
		}
		p := pool
		if rapid.Bool().Draw(rt, "alone") {
			p = nil
		}
		sa, sb := conntest.Secure(t, a, b, suite(t, names[0], names[1]), p)
		defer sa.Free()
		defer sb.Free()
		o, l := conn.NewOut(sa), newLedger()
		defer o.Close()
		defer func() { _ = b.Close() }()
		var want []byte
		n := rapid.IntRange(1, 30).Draw(rt, "frames")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "bytes"), 1))
		for range n {
			size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 9000), rapid.IntRange(30<<10, 200<<10), rapid.IntRange(0, 1<<20)).Draw(rt, "size")
			f := frame(l, make([]byte, random.IntN(57)), make([]byte, size))
			for i := range f.Data {
				f.Data[i] = byte(random.Uint32())
			}
			want = append(append(want, f.Head...), f.Data...)
			o.Push(f)
			if rapid.IntRange(0, 3).Draw(rt, "flush") == 0 {
				o.Flush()
			}
		}
		o.Flush()
		in := conn.NewIn(sb, make([]byte, rapid.IntRange(100, 256<<10).Draw(rt, "buffer")))
		if err := take(rt, in, want); err != nil {
			rt.Fatal(err)
		}
		l.wait(n)
		if i := slices.IndexFunc(l.errs, func(err error) bool { return err != nil }); i >= 0 {
			rt.Fatal(l.errs[i])
		}
	})
}

// take reads want from in, in pieces of any size.
func take(t *rapid.T, in *conn.In, want []byte) error {
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "pieces"), 2))
	for len(want) > 0 {
		n := 1 + random.IntN(min(len(want), 1+random.IntN(300<<10)))
		switch random.IntN(4) {
		case 0:
			if err := in.Discard(int64(n)); err != nil {
				return err
			}
		case 1:
			n = min(n, 100)
			p, err := in.Peek(n)
			if err != nil || !bytes.Equal(p, want[:n]) {
				return fmt.Errorf("peek of %d: %v", n, err)
			}
			in.Skip(n)
		default:
			p := make([]byte, n)
			if err := in.ReadFull(p); err != nil || !bytes.Equal(p, want[:n]) {
				return fmt.Errorf("%d bytes: %v", n, err)
			}
		}
		want = want[n:]
	}
	return nil
}

func BenchmarkSecure(b *testing.B) {
	pool := crypt.NewPool(1)
	defer pool.Close()
	for _, name := range []string{"gcm(aes)", "rfc7539(chacha20,poly1305)"} {
		for _, size := range []int{0, 4 << 10, 128 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/unix/%dK", name, size>>10), func(b *testing.B) {
				s, r := conntest.SockPair(b)
				ss, sr := conntest.Secure(b, s, r, suite(b, name, ""), pool)
				frames(b, ss, sr, size)
			})
			b.Run(fmt.Sprintf("%s/tcp/%dK", name, size>>10), func(b *testing.B) {
				s, r := conntest.TCPPair(b)
				ss, sr := conntest.Secure(b, s, r, suite(b, name, ""), pool)
				frames(b, ss, sr, size)
			})
		}
	}
}
