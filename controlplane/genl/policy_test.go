package genl

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The types of the policy under test: one of each kind.
const (
	tU8 = iota + 1
	tU16
	tU32
	tU64
	tS32
	tString
	tBinary
	tFlag
	tNest
	tMulti
	tEnum
	tMask
	tDeep
	tFree // an S32 without limits
	tBad  // a rule without a kind
)

// allKinds nests itself without end, so that only the depth limit ends it.
var allKinds = func() *Policy {
	p := &Policy{Name: "all", Attrs: map[uint16]Rule{
		tU8:     {Name: "u8", Kind: U8, Min: 1},
		tU16:    {Name: "u16", Kind: U16, Max: 1000},
		tU32:    {Name: "u32", Kind: U32, Min: 10, Max: 20},
		tU64:    {Name: "u64", Kind: U64},
		tS32:    {Name: "s32", Kind: S32, Min: math.MaxUint64 - 4, Max: 5}, // -5 to 5
		tString: {Name: "string", Kind: String, Min: 1, Max: 4},
		tBinary: {Name: "binary", Kind: Binary, Min: 2, Max: 8},
		tFlag:   {Name: "flag", Kind: Flag},
		tMulti:  {Name: "multi", Kind: U32, Multi: true},
		tEnum:   {Name: "enum", Kind: U32, Enum: []Value{{1, "one"}, {7, "seven"}}},
		tMask:   {Name: "mask", Kind: U32, Mask: 0x5},
		tFree:   {Name: "free", Kind: S32},
		tBad:    {Name: "bad"},
	}}
	p.Attrs[tNest] = Rule{Name: "nest", Kind: Nest, Nest: &Policy{Name: "inner", Attrs: map[uint16]Rule{1: {Name: "x", Kind: U32}}}}
	p.Attrs[tDeep] = Rule{Name: "deep", Kind: Nest, Nest: p}
	return p
}()

func wide(t uint16, v uint64) []byte { return attr(t, native.AppendUint64(nil, v)...) }

// deep nests depth times.
func deep(depth int) (b []byte) {
	for range depth {
		b = nest(tDeep, b)
	}
	return b
}

// withLen is the attribute b with another nla_len.
func withLen(b []byte, n uint16) []byte {
	b = slices.Clone(b)
	native.PutUint16(b, n)
	return b
}

func TestPolicyRefuses(t *testing.T) {
	good := num(tU32, 15) // 8 bytes
	for _, tt := range []struct {
		name  string
		attrs []byte
		errno unix.Errno
		text  string
		at    int
	}{
		{"unknown", slices.Concat(good, num(99, 1)), unix.EINVAL, "attribute 99 is not known in all", 8},
		{"type 0", num(0, 1), unix.EINVAL, "attribute 0", 0},
		{"duplicate", slices.Concat(good, good), unix.EINVAL, "u32 is given twice", 8},
		{"one byte left over", append(slices.Clone(good), 0), unix.EINVAL, "1 bytes are left over", 8},
		{"three bytes left over", append(slices.Clone(good), 0, 0, 0), unix.EINVAL, "3 bytes are left over", 8},
		{"length 0", slices.Concat(good, withLen(good, 0)), unix.EINVAL, "attribute of 0 bytes", 8},
		{"length below its header", slices.Concat(good, withLen(good, 3)), unix.EINVAL, "attribute of 3 bytes", 8},
		{"length one too much", slices.Concat(good, withLen(good, 9)), unix.EINVAL, "attribute of 9 bytes where 8", 8},
		{"length 65535", withLen(good, math.MaxUint16), unix.EINVAL, "attribute of 65535 bytes", 0},
		{"net byte order", num(tU32|unix.NLA_F_NET_BYTEORDER, 15), unix.EINVAL, "NLA_F_NET_BYTEORDER", 0},
		{"nested flag where none belongs", num(tU32|unix.NLA_F_NESTED, 15), unix.EINVAL, "NLA_F_NESTED is wrong", 0},
		{"nest without its flag", attr(tNest, num(1, 1)...), unix.EINVAL, "NLA_F_NESTED is missing", 0},
		{"u8 short", attr(tU8), unix.EINVAL, "0 bytes instead of 1", 0},
		{"u8 long", num(tU8, 1), unix.EINVAL, "4 bytes instead of 1", 0},
		{"u8 too small", attr(tU8, 0), unix.ERANGE, "u8 is 0: at least 1", 0},
		{"u16 short", attr(tU16, 1), unix.EINVAL, "instead of 2", 0},
		{"u16 too large", attr(tU16, native.AppendUint16(nil, 1001)...), unix.ERANGE, "allowed are 0 to 1000", 0},
		{"u32 short", attr(tU32, 1, 2), unix.EINVAL, "instead of 4", 0},
		{"u32 too small", num(tU32, 9), unix.ERANGE, "u32 is 9: allowed are 10 to 20", 0},
		{"u32 too large", num(tU32, 21), unix.ERANGE, "u32 is 21", 0},
		{"u64 as u32", num(tU64, 1), unix.EINVAL, "instead of 8", 0},
		{"s32 too small", num(tS32, 0xfffffffa), unix.ERANGE, "s32 is -6: allowed are -5 to 5", 0},
		{"s32 too large", num(tS32, 6), unix.ERANGE, "s32 is 6", 0},
		{"string without NUL", attr(tString, 'a', 'b'), unix.EINVAL, "its only NUL", 0},
		{"string without a byte", attr(tString), unix.EINVAL, "its only NUL", 0},
		{"string with a NUL inside", attr(tString, 'a', 0, 'b', 0), unix.EINVAL, "its only NUL", 0},
		{"string too short", str(tString, ""), unix.ERANGE, "string is 0 bytes long", 0},
		{"string too long", str(tString, "abcde"), unix.ERANGE, "allowed are 1 to 4", 0},
		{"binary too short", attr(tBinary, 1), unix.ERANGE, "binary is 1 bytes long", 0},
		{"binary too long", attr(tBinary, make([]byte, 9)...), unix.ERANGE, "binary is 9 bytes long", 0},
		{"flag with a payload", attr(tFlag, 1), unix.EINVAL, "instead of 0", 0},
		{"enum without such a value", num(tEnum, 2), unix.EINVAL, "enum is 2: allowed are 1 (one), 7 (seven)", 0},
		{"unknown bits", num(tMask, 0xf), unix.EINVAL, "unknown bits 0xa", 0},
		{"inside a nest", slices.Concat(good, nest(tNest, num(1, 1), num(1, 2))), unix.EINVAL, "x is given twice", 8 + 4 + 8},
		{"length beyond its nest", slices.Concat(nest(tNest, withLen(num(1, 1), 12)), good), unix.EINVAL, "attribute of 12 bytes where 8", 4},
		{"left over in a nest", attr(tNest|unix.NLA_F_NESTED, 1, 2), unix.EINVAL, "2 bytes are left over", 4},
		{"nested too deep", deep(maxDepth), unix.EINVAL, "deep is nested too deep", (maxDepth - 1) * 4},
		{"nested far too deep", deep(1000), unix.EINVAL, "deep is nested too deep", (maxDepth - 1) * 4},
		{"a rule of no kind", num(tBad, 0), unix.EINVAL, "bad has no type", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg := append(make([]byte, attrsAt), tt.attrs...)
			as, err := allKinds.Parse(msg, attrsAt)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("accepted: %+v", as)
			}
			if e.Errno != tt.errno || !strings.Contains(e.Msg, tt.text) || e.Offset != uint32(attrsAt+tt.at) {
				t.Errorf("errno %v at %d: %s", e.Errno, int(e.Offset)-attrsAt, e.Msg)
			}
		})
	}
}

func TestPolicyAccepts(t *testing.T) {
	msg := slices.Concat(make([]byte, attrsAt),
		attr(tU8, 200), attr(tU16, native.AppendUint16(nil, 1000)...), num(tU32, 10), wide(tU64, math.MaxUint64),
		num(tS32, 0xfffffffb), num(tFree, 0x80000000), str(tString, "abcd"), attr(tBinary, 1, 0), attr(tFlag),
		nest(tNest, num(1, 7)), num(tMulti, 1), num(tMulti, 2), num(tEnum, 7), num(tMask, 5), deep(maxDepth-1),
	)
	as, err := allKinds.Parse(msg, attrsAt)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path ...uint16) Attr {
		var a Attr
		in := as
		for _, p := range path {
			a, _ = in.Get(p)
			in = a.Nest
		}
		if a.Offset != as.Offset(path...) || native.Uint16(msg[a.Offset+2:])&^unix.NLA_F_NESTED != a.Type {
			t.Errorf("offset of %v is %d", path, a.Offset)
		}
		return a
	}
	for path, want := range map[uint16]uint64{tU8: 200, tU16: 1000, tU32: 10, tU64: math.MaxUint64, tMulti: 1, tEnum: 7, tMask: 5} {
		if v := get(path).Uint(); v != want {
			t.Errorf("attribute %d is %d, want %d", path, v, want)
		}
	}
	if get(tS32).Int() != -5 || get(tFree).Int() != math.MinInt32 || get(tNest, 1).Uint() != 7 {
		t.Error("signed or nested values are wrong")
	}
	if get(tString).String() != "abcd" || string(get(tBinary).Bytes()) != "\x01\x00" || !as.Has(tFlag) || as.Has(99) {
		t.Error("strings, bytes or flags are wrong")
	}
	if as.Offset(tNest, 9) != 0 || as.Offset() != 0 || (Attr{}).Uint() != 0 {
		t.Error("what is not there has a place")
	}
	if n := len(as); n != 15 || as[11].Uint() != 2 {
		t.Errorf("%d attributes", n)
	}
}

func TestLastAttributeNeedsNoPadding(t *testing.T) {
	msg := append(make([]byte, attrsAt), attr(tU8, 1)[:5]...)
	if as, err := allKinds.Parse(msg, attrsAt); err != nil || len(as) != 1 {
		t.Errorf("%v, %v", as, err)
	}
	if as, err := allKinds.Parse(msg, 1000); err != nil || len(as) != 0 {
		t.Errorf("from beyond the end: %v, %v", as, err)
	}
}

func TestNilPolicyAllowsNothing(t *testing.T) {
	var p *Policy
	if _, err := p.Parse(make([]byte, attrsAt), attrsAt); err != nil {
		t.Error("nothing is refused:", err)
	}
	if _, err := p.Parse(append(make([]byte, attrsAt), attr(1)...), attrsAt); !errors.Is(err, unix.EINVAL) {
		t.Error("something is allowed:", err)
	}
	if e := p.missing(5); !strings.Contains(e.Error(), "attribute 5 is missing in this request") {
		t.Error(e)
	}
}
