package abi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files in testdata are what other versions and other programs rely on.
// A difference means that the ABI changed; -update writes them anew.
var update = flag.Bool("update", false, "write the golden bytes anew")

// littleEndian tells whether the golden bytes of host order are those of this host.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// part is a run of bytes and what it means.
type part struct {
	b    []byte
	what string
}

// cut takes the next n bytes of b and says what they mean.
func cut(b *[]byte, n int, format string, args ...any) part {
	p := part{(*b)[:n:n], fmt.Sprintf(format, args...)}
	*b = (*b)[n:]
	return p
}

// hexText writes parts as a golden file: bytes, then the meaning behind a #.
func hexText(title string, parts []part) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# %s\n", title)
	for _, p := range parts {
		for i := 0; i == 0 || i < len(p.b); i += 16 {
			row := fmt.Sprintf("% x", p.b[i:min(i+16, len(p.b))])
			if i == 0 && p.what != "" {
				row = fmt.Sprintf("%-48s # %s", row, p.what)
			}
			s.WriteString(strings.TrimLeft(row, " ") + "\n")
		}
	}
	return s.String()
}

// readHex reads a golden file.
func readHex(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// golden compares the bytes of parts with the file name.
func golden(t *testing.T, name, title string, parts []part) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", name+".hex"), []byte(hexText(title, parts)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	for _, p := range parts {
		got = append(got, p.b...)
	}
	if want := readHex(t, name); !bytes.Equal(got, want) {
		t.Errorf("%s: the ABI changed:\n%s\nwant\n%x", name, hexText(title, parts), want)
	}
}

// TestGoldenCanFail: one changed bit is found.
func TestGoldenCanFail(t *testing.T) {
	b := readHex(t, "wire-ping")
	b[7] ^= 1
	var h Header
	if h.Parse(b); bytes.Equal(headerBytes(h), readHex(t, "wire-ping")) {
		t.Error("a changed size makes the same bytes")
	}
}

func headerBytes(h Header) []byte {
	b := make([]byte, HeaderSize)
	h.Put(b)
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is h, its crc32c if h has one, and data.
func frame(h Header, data []byte) []byte {
	b := headerBytes(h)
	if h.CSize == 4 {
		sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, data)
		b = binary.BigEndian.AppendUint32(b, sum)
	}
	return append(b, data...)
}

// headerParts names the fields of the header at the start of b.
func headerParts(b *[]byte) []part {
	var h Header
	h.Parse(*b)
	return []part{
		cut(b, 4, "cmd: %v", h.Cmd),
		cut(b, 4, "size: %d", h.Size),
		cut(b, 4, "csize: %d", h.CSize),
		cut(b, 4, "reserved: errno %d, stable %v", h.Errno(), h.Reserved&Stable != 0),
		cut(b, 8, "rw"),
		cut(b, 8, "flags"),
		cut(b, 8, "id"),
		cut(b, 8, "sector: %d", h.Sector),
	}
}

var wireAttrNames = map[WireAttr]string{
	WireExport: "export", WireClientID: "client id", WireEpoch: "epoch", WireMode: "mode", WireFeatures: "features",
	WireKeepalive: "keepalive, ms", WireMaxSize: "largest request", WireDepth: "depth", WireDigest: "digest",
	WireTenure: "tenure", WireVerifier: "verifier", WireStoreID: "store id", WireSize: "size", WireBlockMin: "block min",
	WireBlockPref: "block preferred", WireCode: "code", WireErrno: "errno", WireText: "text", WireSteal: "steal",
}

// attrParts names the attributes of a handshake message.
func attrParts(b []byte) (ps []part) {
	for len(b) > 0 {
		raw, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		what := wireAttrNames[WireAttr(raw&^mustUnderstand)]
		if raw&mustUnderstand != 0 {
			what += ", must be understood"
		}
		ps = append(ps, cut(&b, 4, "%s, %d bytes", what, n))
		if n > 0 {
			what = ""
			if v := string(b[:n]); strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789 ,:") == "" {
				what = fmt.Sprintf("%q", v)
			}
			ps = append(ps, cut(&b, n, "%s", what))
		}
	}
	return ps
}
