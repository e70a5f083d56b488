package abi

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// messages is one of every kind of Message.
func messages() []Message {
	return []Message{&Node{}, &Del{}, &NodeRules{}, &NodeStats{}, &Crypto{}, &Sys{}, &Event{}}
}

var prefixType = reflect.TypeFor[netip.Prefix]()

// fill makes every field of v something else than zero, and no two alike.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == prefixType {
			v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(*n)}), 16)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetUint(uint64(*n) % 256)
	}
}

// TestCodecForgetsNothing: a value with every field set comes back whole.
func TestCodecForgetsNothing(t *testing.T) {
	for _, m := range messages() {
		n := 0
		fill(reflect.ValueOf(m).Elem(), &n)
		roundTrip(t, m)
	}
}

type failer interface{ Fatalf(string, ...any) }

func roundTrip(t failer, m Message) {
	b, err := Marshal(m)
	if err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
	if err := Unmarshal(b, got); err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	if !reflect.DeepEqual(m, got) {
		t.Fatalf("%T: sent %+v\ngot  %+v", m, m, got)
	}
}

// draw sets v to anything that the ABI can say.
func draw(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "given") {
			v.Set(reflect.New(v.Type().Elem()))
			draw(t, v.Elem())
		}
	case reflect.Struct:
		if v.Type() == prefixType {
			v.Set(reflect.ValueOf(drawPrefix(t)))
			return
		}
		for i := range v.NumField() {
			draw(t, v.Field(i))
		}
	case reflect.Slice:
		if n := rapid.IntRange(0, 3).Draw(t, "items"); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			draw(t, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			draw(t, v.Index(i))
		}
	case reflect.String:
		v.SetString(strings.ReplaceAll(rapid.StringN(0, 40, 100).Draw(t, "text"), "\x00", "0"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "flag"))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Uint8().Draw(t, "byte")))
	case reflect.Uint16:
		v.SetUint(uint64(rapid.Uint16().Draw(t, "u16")))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(t, "u32")))
	default:
		v.SetUint(rapid.Uint64().Draw(t, "u64"))
	}
}

func drawPrefix(t *rapid.T) netip.Prefix {
	size := rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "address")
	ip, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "bytes"))
	if !ip.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(ip, rapid.IntRange(0, ip.BitLen()).Draw(t, "bits"))
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom(messages()).Draw(t, "message")
		v := reflect.New(reflect.TypeOf(m).Elem())
		draw(t, v.Elem())
		roundTrip(t, v.Interface().(Message))
	})
}

func TestUnmarshalMalformed(t *testing.T) {
	attr := func(typ uint16, v ...byte) []byte {
		b := host.AppendUint16(nil, uint16(4+len(v)))
		b = append(host.AppendUint16(b, typ), v...)
		return append(b, make([]byte, (4-len(v)%4)%4)...)
	}
	nested := attr(AttrNodeRule|netlink.Nested, attr(AttrRuleKind, 1, 2)...)
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"three bytes", []byte{1, 2, 3}},
		{"length 3", []byte{3, 0, 1, 0}},
		{"longer than the message", attr(AttrNodeName, []byte("abcdefgh")...)[:8]},
		{"number of 2 bytes", attr(AttrNodeKind, 1, 2)},
		{"number of 4 instead of 8", attr(AttrNodeSize, 1, 2, 3, 4)},
		{"id of 15 bytes", attr(AttrNodeClientID, make([]byte, 15)...)},
		{"NUL inside", attr(AttrNodeName, []byte("a\x00b\x00")...)},
		{"NUL inside a warning", attr(AttrNodeWarning, []byte("a\x00b\x00")...)},
		{"inside a nest", nested},
		{"short nest", attr(AttrNodePeer|netlink.Nested, 1, 2)},
	} {
		var n Node
		if err := Unmarshal(tt.b, &n); !errors.Is(err, unix.EBADMSG) && host.Uint16([]byte{1, 0}) == 1 {
			t.Errorf("%s: got %v, want EBADMSG", tt.name, err)
		}
	}
	var n Node
	if err := Unmarshal(attr(9999, 1, 2, 3), &n); err != nil {
		t.Errorf("an unknown attribute is skipped, got %v", err)
	}
	if _, err := Marshal(&Node{Name: strings.Repeat("x", 1<<16)}); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("name of 64 KiB: got %v, want EMSGSIZE", err)
	}
}

// TestRuleNeedsBits: half a prefix is no prefix, in whatever order.
func TestRuleNeedsBits(t *testing.T) {
	want := netip.MustParsePrefix("10.0.0.0/8")
	for _, tt := range []struct {
		name       string
		ip, bits   bool
		length     uint32
		want       netip.Prefix
		bitsBefore bool
	}{
		{"both", true, true, 8, want, false},
		{"bits first", true, true, 8, want, true},
		{"no bits", true, false, 0, netip.Prefix{}, false},
		{"no address", false, true, 8, netip.Prefix{}, false},
		{"too many bits", true, true, 33, netip.Prefix{}, false},
		{"2^32-1 bits", true, true, 1<<32 - 1, netip.Prefix{}, false},
	} {
		b, err := Marshal(encoder(func(ae *netlink.AttributeEncoder) {
			ae.Nested(AttrNodeRule, func(ae *netlink.AttributeEncoder) error {
				if tt.bits && tt.bitsBefore {
					ae.Uint32(AttrRulePrefixLen, tt.length)
				}
				if tt.ip {
					ae.Bytes(AttrRulePrefix, []byte{10, 0, 0, 0})
				}
				if tt.bits && !tt.bitsBefore {
					ae.Uint32(AttrRulePrefixLen, tt.length)
				}
				return nil
			})
		}))
		if err != nil {
			t.Fatal(err)
		}
		var n NodeRules
		if err := Unmarshal(b, &n); err != nil || len(n.Rules) != 1 || n.Rules[0].Prefix != tt.want {
			t.Errorf("%s: got %v, %+v, want %v", tt.name, err, n, tt.want)
		}
	}
}

// encoder is a Message that only encodes.
type encoder func(*netlink.AttributeEncoder)

func (e encoder) Encode(ae *netlink.AttributeEncoder)       { e(ae) }
func (e encoder) Decode(ad *netlink.AttributeDecoder) error { return nil }

// TestCryptoWipes: neither the decoder's copy nor the value keeps a key.
func TestCryptoWipes(t *testing.T) {
	key := bytes.Repeat([]byte{0xab}, 32)
	b, err := Marshal(&Crypto{Name: "a", CipherKey: key, HashKey: key})
	if err != nil {
		t.Fatal(err)
	}
	var c Crypto
	if err := Unmarshal(b, &c); err != nil || !bytes.Equal(c.CipherKey, key) || !bytes.Equal(c.HashKey, key) {
		t.Fatalf("got %v, %+v", err, c)
	}
	c.Wipe()
	if zero := make([]byte, 32); !bytes.Equal(c.CipherKey, zero) || !bytes.Equal(c.HashKey, zero) {
		t.Errorf("keys are left after Wipe: %+v", c)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for i, m := range messages() {
		n := 0
		fill(reflect.ValueOf(m).Elem(), &n)
		b, err := Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
		f.Add(uint8(i), b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		m, again := messages()[int(kind)%7], messages()[int(kind)%7]
		if Unmarshal(b, m) != nil {
			return
		}
		first, err := Marshal(m)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		if err := Unmarshal(first, again); err != nil {
			t.Fatal(err)
		}
		if second, err := Marshal(again); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v: %x became %x", err, first, second)
		}
	})
}
