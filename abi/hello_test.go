package abi

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tlv is one attribute of the handshake.
func tlv(t WireAttr, v ...byte) []byte { return putBytes(nil, t, v) }

// without drops the attribute t from b; with appends one.
func without(b []byte, t WireAttr) (rest []byte) {
	for len(b) > 0 {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if WireAttr(binary.BigEndian.Uint16(b)&^mustUnderstand) != t {
			rest = append(rest, b[:n]...)
		}
		b = b[n:]
	}
	return rest
}

// replaced is b with the attribute t saying v.
func replaced(b []byte, t WireAttr, v ...byte) []byte {
	return append(without(b, t), tlv(t|mustUnderstand, v...)...)
}

func TestHandshakeRoundTrip(t *testing.T) {
	again := sampleHello
	again.Export, again.Tenure, again.Steal, again.Epoch = "", id16(1), true, 1<<64-1
	for _, want := range []Hello{sampleHello, again} {
		var got Hello
		if err := got.Parse(want.Append(nil)); err != nil || got != want {
			t.Errorf("%v: sent %+v, got %+v", err, want, got)
		}
	}
	var w Welcome
	if err := w.Parse(sampleWelcome.Append(nil)); err != nil || w != sampleWelcome {
		t.Errorf("%v: sent %+v, got %+v", err, sampleWelcome, w)
	}
	for _, want := range sampleRefusals {
		var got Refuse
		if err := got.Parse(want.Append(nil)); err != nil || got != want {
			t.Errorf("%v: sent %+v, got %+v", err, want, got)
		}
	}
	var r Refuse
	if err := r.Parse((&Refuse{Code: 99, Text: strings.Repeat("x", 300)}).Append(nil)); err != nil || len(r.Text) != TextMax {
		t.Errorf("%v: a long sentence has %d bytes", err, len(r.Text))
	}
	longest := sampleHello
	longest.Export, longest.Digest, longest.Tenure, longest.Steal = strings.Repeat("x", NameMax), strings.Repeat("x", NameMax), id16(1), true
	if n := len(longest.Append(nil)); n > HelloMax {
		t.Errorf("the longest HELLO has %d bytes, at most %d are read", n, HelloMax)
	}
	if n := len((&Refuse{Text: strings.Repeat("x", 300)}).Append(sampleWelcome.Append(nil))); n > TLVMax {
		t.Errorf("WELCOME and REFUSE together have %d bytes, at most %d are read", n, TLVMax)
	}
}

// TestHandshakeExtends: what this version does not know is skipped, unless it must be understood.
func TestHandshakeExtends(t *testing.T) {
	for _, typ := range []WireAttr{0, 20, 31, 32, 0x7fff, WireVerifier} {
		var h Hello
		if err := h.Parse(append(tlv(typ, 1, 2, 3), sampleHello.Append(nil)...)); err != nil || h != sampleHello {
			t.Errorf("attribute %d: got %v, %+v; it should be skipped", typ, err, h)
		}
		err := h.Parse(append(sampleHello.Append(nil), tlv(typ|mustUnderstand, 1)...))
		if r := (*Refuse)(nil); !errors.As(err, &r) || r.Code != RefuseUnknown || !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("attribute %d that must be understood: got %v", typ, err)
		}
	}
}

func TestHandshakeMalformed(t *testing.T) {
	hello, welcome, refuse := sampleHello.Append(nil), sampleWelcome.Append(nil), sampleRefusals[0].Append(nil)
	parseHello, parseWelcome, parseRefuse := new(Hello).Parse, new(Welcome).Parse, new(Refuse).Parse
	u32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	type row struct {
		name  string
		parse func([]byte) error
		b     []byte
	}
	rows := []row{
		{"empty HELLO", parseHello, nil},
		{"empty WELCOME", parseWelcome, nil},
		{"empty REFUSE", parseRefuse, nil},
		{"one byte", parseHello, []byte{1}},
		{"three bytes left", parseHello, append(slices.Clone(hello), 0, 0, 0)},
		{"length of one too many", parseHello, append(slices.Clone(hello), 0, 20, 0, 1)},
		{"length 65535", parseHello, append(slices.Clone(hello), 0, 20, 255, 255)},
		{"cut", parseHello, hello[:len(hello)-1]},
		{"given twice", parseHello, append(slices.Clone(hello), tlv(WireEpoch, u64(1)...)...)},
		{"name of 32", parseHello, replaced(hello, WireExport, make([]byte, 32)...)},
		{"digest of 32", parseHello, replaced(hello, WireDigest, make([]byte, 32)...)},
		{"client id of zeroes", parseHello, replaced(hello, WireClientID, make([]byte, 16)...)},
		{"client id of 15", parseHello, replaced(hello, WireClientID, make([]byte, 15)...)},
		{"epoch 0", parseHello, replaced(hello, WireEpoch, u64(0)...)},
		{"epoch of 4 bytes", parseHello, replaced(hello, WireEpoch, u32(1)...)},
		{"mode 0", parseHello, replaced(hello, WireMode, u32(0)...)},
		{"mode 4", parseHello, replaced(hello, WireMode, u32(4)...)},
		{"mode of 8 bytes", parseHello, replaced(hello, WireMode, u64(1)...)},
		{"keepalive of 3 bytes", parseHello, replaced(hello, WireKeepalive, 1, 2, 3)},
		{"max size of 0 bytes", parseHello, replaced(hello, WireMaxSize)},
		{"depth of 5 bytes", parseHello, replaced(hello, WireDepth, 1, 2, 3, 4, 5)},
		{"tenure of 1 byte", parseHello, append(slices.Clone(hello), tlv(WireTenure, 1)...)},
		{"steal with a value", parseHello, append(slices.Clone(hello), tlv(WireSteal, 1)...)},

		{"mode without read", parseWelcome, replaced(welcome, WireMode, u32(2)...)},
		{"mode 7", parseWelcome, replaced(welcome, WireMode, u32(7)...)},
		{"max size 4095", parseWelcome, replaced(welcome, WireMaxSize, u32(4095)...)},
		{"max size above the wire's", parseWelcome, replaced(welcome, WireMaxSize, u32(MaxRequest+1)...)},
		{"max size 2^32-1", parseWelcome, replaced(welcome, WireMaxSize, u32(1<<32-1)...)},
		{"depth 0", parseWelcome, replaced(welcome, WireDepth, u32(0)...)},
		{"store id of zeroes", parseWelcome, replaced(welcome, WireStoreID, make([]byte, 16)...)},
		{"verifier of 17", parseWelcome, replaced(welcome, WireVerifier, make([]byte, 17)...)},
		{"size 2^63", parseWelcome, replaced(welcome, WireSize, u64(1<<63)...)},
		{"size 2^64-1", parseWelcome, replaced(welcome, WireSize, u64(1<<64-1)...)},
		{"block 0", parseWelcome, replaced(welcome, WireBlockMin, u32(0)...)},
		{"block 256", parseWelcome, replaced(welcome, WireBlockMin, u32(256)...)},
		{"block 768", parseWelcome, replaced(welcome, WireBlockMin, u32(768)...)},
		{"block 128 KiB", parseWelcome, replaced(welcome, WireBlockPref, u32(128<<10)...)},
		{"features of 4 bytes", parseWelcome, replaced(welcome, WireFeatures, u32(0)...)},
		{"tenure of 17", parseWelcome, replaced(welcome, WireTenure, make([]byte, 17)...)},
		{"keepalive of 2 bytes", parseWelcome, replaced(welcome, WireKeepalive, 1, 2)},
		{"epoch of 1 byte", parseWelcome, replaced(welcome, WireEpoch, 1)},

		{"code of 2 bytes", parseRefuse, replaced(refuse, WireCode, 0, 1)},
		{"errno 65536", parseRefuse, replaced(refuse, WireErrno, u32(1<<16)...)},
		{"text of 256", parseRefuse, replaced(refuse, WireText, make([]byte, 256)...)},
	}
	for _, a := range []WireAttr{WireExport, WireClientID, WireEpoch, WireMode, WireDigest} {
		rows = append(rows, row{"HELLO without " + wireAttrNames[a], parseHello, without(hello, a)})
	}
	for _, a := range []WireAttr{WireEpoch, WireMode, WireMaxSize, WireDepth, WireVerifier, WireStoreID, WireSize, WireBlockMin} {
		rows = append(rows, row{"WELCOME without " + wireAttrNames[a], parseWelcome, without(welcome, a)})
	}
	rows = append(rows, row{"REFUSE without code", parseRefuse, without(refuse, WireCode)})
	for _, tt := range rows {
		err := tt.parse(tt.b)
		if r := (*Refuse)(nil); !errors.As(err, &r) || r.Code != RefuseMalformed || !errors.Is(err, unix.EPROTO) || len(r.Text) > TextMax {
			t.Errorf("%s: got %v, want a refusal of malformed attributes", tt.name, err)
		}
	}
	for _, optional := range []WireAttr{WireKeepalive, WireMaxSize, WireDepth} {
		if err := parseHello(without(hello, optional)); err != nil {
			t.Errorf("HELLO without %s: %v", wireAttrNames[optional], err)
		}
	}
}

func TestWords(t *testing.T) {
	for p, want := range map[Perm]string{0: "deny", PermRead: "ro", PermRW: "rw"} {
		if p.String() != want {
			t.Errorf("permission %d is %q", uint32(p), p)
		}
	}
	if s := id16(0).String(); s != "000102030405060708090a0b0c0d0e0f" || Verifier(id16(0)).String() != s {
		t.Errorf("id is %q", s)
	}
	if s := (&Refuse{Code: RefuseBusy, Errno: unix.EBUSY}).Error(); !strings.Contains(s, "code 2") {
		t.Errorf("refusal without a sentence says %q", s)
	}
	if s := sampleRefusals[1].Error(); s != sampleRefusals[1].Text {
		t.Errorf("refusal says %q", s)
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(sampleHello.Append(nil))
	f.Add(sampleWelcome.Append(nil))
	for i := range sampleRefusals {
		f.Add(sampleRefusals[i].Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, h2 Hello
		if err := h.Parse(b); err == nil {
			if err := h2.Parse(h.Append(nil)); err != nil || h != h2 {
				t.Fatalf("%v: %+v became %+v", err, h, h2)
			}
		} else if r := (*Refuse)(nil); !errors.As(err, &r) {
			t.Fatalf("%v is no refusal", err)
		}
		var w, w2 Welcome
		if w.Parse(b) == nil {
			// An attribute that was not given is written as 0, which not all may say.
			if err := w2.Parse(w.Append(nil)); w.BlockPref != 0 && (err != nil || w != w2) {
				t.Fatalf("%v: %+v became %+v", err, w, w2)
			}
		}
		var r, r2 Refuse
		if r.Parse(b) == nil {
			if err := r2.Parse(r.Append(nil)); err != nil || r != r2 {
				t.Fatalf("%v: %+v became %+v", err, r, r2)
			}
		}
	})
}
