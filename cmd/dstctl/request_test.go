package main

import (
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dst/abi"
)

func mustAddr(t *testing.T, s string) abi.Addr {
	t.Helper()
	a, err := abi.ParseAddr(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestRequests: what the words become.
func TestRequests(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		command string
		call    string
		want    abi.Node
	}{
		{"export add vol0 device /srv/vol0.img listen tcp:0.0.0.0:9876", "add-export vol0",
			abi.Node{Name: "vol0", Kind: abi.KindExport, Device: "/srv/vol0.img", Addrs: []abi.Addr{mustAddr(t, "tcp:0.0.0.0:9876")}}},
		{"export add vol0 start listen tcp:store1:9876,tcp:[fe80::1%eth7]:9,unix:/run/x size 10GiB shared writethrough read-only direct " +
			"max-pages 8192 depth 4096 arena 32m keepalive 1m30s workers 1 hash none device vol0.img", "add-export vol0",
			abi.Node{Name: "vol0", Kind: abi.KindExport, Device: filepath.Join(here, "vol0.img"), Size: 10 << 30, Hash: "none",
				Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876"), mustAddr(t, "tcp:[fe80::1%7]:9"), mustAddr(t, "unix:/run/x")},
				Flags: abi.NodeFlagStarted | abi.NodeFlagShared | abi.NodeFlagWritethrough | abi.NodeFlagReadOnly | abi.NodeFlagDirect,
				Knobs: abi.Knobs{MaxPages: new(uint32(8192)), Depth: new(uint32(4096)), Arena: new(uint64(32 << 20)), Keepalive: new(uint32(90_000)), Workers: new(uint32(1))}}},
		{"remote add disk0 peer tcp:10.0.0.1:9876", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}}},
		{"remote add disk0 peer mptcp:store1:9876,sctp:[fe80::1%eth7]:9,vsock:2:9876,unix:/run/x,tcp:[::1]:1", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "mptcp:10.0.0.1:9876"), mustAddr(t, "sctp:[fe80::1%7]:9"),
				mustAddr(t, "vsock:2:9876"), mustAddr(t, "unix:/run/x"), mustAddr(t, "tcp:[::1]:1")}}},
		{"export add vol0 device /x listen vsock:any:9876", "add-export vol0",
			abi.Node{Name: "vol0", Kind: abi.KindExport, Device: "/x", Addrs: []abi.Addr{mustAddr(t, "vsock:4294967295:9876")}}},
		{"remote add disk0 peer tcp:10.0.0.1:9876 partscan off", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}, Flags: abi.NodeFlagNoPartscan}},
		{"remote add disk0 peer tcp:10.0.0.1:9876 partscan on", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}}},
		{"remote add disk0 peer tcp:10.0.0.1:9876 attach none", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}, Attach: abi.AttachNone}},
		{"remote add disk0 peer tcp:10.0.0.1:9876 export vol0 attach socket /run/d.sock read-only request-timeout off fail-after never size 512", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}, Export: "vol0", Size: 512,
				Attach: abi.AttachSocket, Socket: "/run/d.sock", Flags: abi.NodeFlagReadOnly,
				Knobs: abi.Knobs{RequestTimeout: new(uint32(0)), FailAfter: new(uint32(0))}}},
		{"remote add disk0 peer tcp:10.0.0.1:9876 attach nbd fail-after 1193h", "add-remote disk0",
			abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{mustAddr(t, "tcp:10.0.0.1:9876")}, Attach: abi.AttachNbd,
				Knobs: abi.Knobs{FailAfter: new(uint32(1193 * 3600_000))}}},
	} {
		d := newFake()
		got := dstctl(t, d, "-wait 0s "+tt.command)
		if got != (result{}) || len(d.calls) != 1 || d.calls[0] != tt.call {
			t.Errorf("%q: %+v, calls %q", tt.command, got, d.calls)
			continue
		}
		n := *d.nodes[tt.want.Name]
		n.Status = nil
		if !reflect.DeepEqual(n, tt.want) {
			t.Errorf("%q:\n%+v\nwant\n%+v", tt.command, n, tt.want)
		}
	}
}

func TestSet(t *testing.T) {
	for command, want := range map[string]abi.Node{
		"export set vol0 read-only on":                     {Name: "vol0", Mask: abi.NodeFlagReadOnly, Flags: abi.NodeFlagReadOnly},
		"export set vol0 read-only off workers 3":          {Name: "vol0", Mask: abi.NodeFlagReadOnly, Knobs: abi.Knobs{Workers: new(uint32(3))}},
		"remote set disk0 fail-after 10m keepalive 200ms":  {Name: "disk0", Knobs: abi.Knobs{FailAfter: new(uint32(600_000)), Keepalive: new(uint32(200))}},
		"remote set disk0 request-timeout off":             {Name: "disk0", Knobs: abi.Knobs{RequestTimeout: new(uint32(0))}},
		"remote set disk0 size 10G":                        {Name: "disk0", Size: 10 << 30},
		"export set vol0 size all":                         {Name: "vol0", Size: abi.SizeAll},
		"export set vol0 size 0":                           {},
		"remote set disk0 fail-after never":                {Name: "disk0", Knobs: abi.Knobs{FailAfter: new(uint32(0))}},
		"remote set disk0 request-timeout 49d":             {},
		"remote set disk0 request-timeout 1193h2m47s295ms": {Name: "disk0", Knobs: abi.Knobs{RequestTimeout: new(uint32(math.MaxUint32))}},
	} {
		d := exampleNodes()
		got := dstctl(t, d, command)
		if want.Name == "" {
			if got.code != exitMistake {
				t.Errorf("%q: %+v", command, got)
			}
			continue
		}
		if got != (result{}) || !reflect.DeepEqual(*d.nodes[want.Name], want) {
			t.Errorf("%q: %+v, %+v", command, got, *d.nodes[want.Name])
		}
	}
}

func TestRulesAndCrypto(t *testing.T) {
	for word, want := range map[string]abi.Rule{
		"any":           {Kind: abi.RuleKindAny},
		"10.0.0.0/8":    {Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		"10.1.2.3":      {Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("10.1.2.3/32")},
		"0.0.0.0/0":     {Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("0.0.0.0/0")},
		"fd00::/8":      {Kind: abi.RuleKindInet6, Prefix: netip.MustParsePrefix("fd00::/8")},
		"::1":           {Kind: abi.RuleKindInet6, Prefix: netip.MustParsePrefix("::1/128")},
		"unix":          {Kind: abi.RuleKindUnix},
		"unix:0":        {Kind: abi.RuleKindUnix, ID: new(uint32(0))},
		"vsock":         {Kind: abi.RuleKindVsock},
		"vsock:4294967": {Kind: abi.RuleKindVsock, ID: new(uint32(4294967))},
	} {
		for perm, bits := range map[string]abi.Perm{"ro": abi.PermRead, "rw": abi.PermRW, "deny": 0} {
			d := exampleNodes()
			d.nodes["vol0"].Status.Rules = nil
			got := dstctl(t, d, "security add vol0 "+word+" "+perm)
			want.Perm = bits
			if rules := d.nodes["vol0"].Status.Rules; got.code != 0 || len(rules) != 1 || !reflect.DeepEqual(rules[0], want) {
				t.Errorf("%s %s: %+v, %+v", word, perm, got, rules)
			}
			if shown := want.Who(); shown != word && shown != word+"/32" && shown != word+"/128" {
				t.Errorf("%s is shown as %s", word, shown)
			}
		}
	}
	d := exampleNodes()
	for _, command := range []string{"security del vol0 any", "security delete vol0 any deny", "del disk0 force", "delete vol0"} {
		if got := dstctl(t, d, command); got != (result{}) {
			t.Errorf("%q: %+v", command, got)
		}
	}
	if got := strings.Join(d.calls, ","); got != "security-del vol0,security-get vol0,security-del vol0,del disk0,force,del vol0" {
		t.Error(got)
	}
	// What it says has to be what the rule gives.
	d = exampleNodes()
	want := "Error: the rule says deny: leave the word out to remove it whatever it says.\n  dstctl security del vol0 any rw\n                               ^~\n"
	if got := dstctl(t, d, "security del vol0 any rw"); got != (result{exitRefused, "", want}) || slices.Contains(d.calls, "security-del vol0") {
		t.Errorf("%+v, %v", got, d.calls)
	}
}

// TestCrypto: what the words of crypto become.
func TestCrypto(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	id := abi.KeyID{0x5d, 0x0c, 0xbb, 0x2a, 0x1f, 0x6a, 0x9e, 0x34}
	for command, want := range map[string]abi.Crypto{
		"crypto set vol0 cipher aes cipher-key /k threads 0 hash sha hash-key /h": {Op: abi.CryptoOpSet, Cipher: "aes", CipherKeyFile: "/k", Hash: "sha", HashKeyFile: "/h", Threads: new(uint32(0))},
		"crypto set vol0 key my.key":                          {Op: abi.CryptoOpSet, CipherKeyFile: filepath.Join(here, "my.key")},
		"crypto set vol0 key /k cipher ctr(aes) allow-legacy": {Op: abi.CryptoOpSet, Cipher: "ctr(aes)", CipherKeyFile: "/k", Flags: abi.CryptoFlagAllowLegacy},
		"crypto set vol0 hash crc32c":                         {Op: abi.CryptoOpSet, Hash: "crc32c"},
		"crypto add vol0 hash hmac(sha256) hash-key /h":       {Op: abi.CryptoOpAdd, Hash: "hmac(sha256)", HashKeyFile: "/h"},
		"crypto del vol0 key-id 5d0cbb2a1f6a9e34":             {Op: abi.CryptoOpDel, KeyID: id},
		"crypto delete vol0 key-id 5D0CBB2A1F6A9E34":          {Op: abi.CryptoOpDel, KeyID: id},
	} {
		d := newFake()
		want.Name = "vol0"
		if got := dstctl(t, d, command); got != (result{}) || !reflect.DeepEqual(*d.crypto, want) {
			t.Errorf("%q: %+v, %+v", command, got, *d.crypto)
		}
	}
	d := exampleNodes()
	d.nodes["vol0"].Status.Rules = nil
	for _, command := range []string{"security add vol0 any rw key 5d0cbb2a1f6a9e34", "security del vol0 any key 5d0cbb2a1f6a9e34"} {
		if got := dstctl(t, d, command); got != (result{}) {
			t.Errorf("%q: %+v", command, got)
		}
	}
	if rules := d.nodes["vol0"].Status.Rules; !reflect.DeepEqual(rules, []abi.Rule{{Kind: abi.RuleKindAny, Perm: abi.PermRW, Key: id}}) || d.deleted != (abi.Rule{Kind: abi.RuleKindAny, Key: id}) {
		t.Errorf("%+v, %+v", rules, d.deleted)
	}
}

// TestKeyGen: a key is made here, no daemon is asked.
func TestKeyGen(t *testing.T) {
	d := newFake()
	if got := dstctl(t, d, "key gen /k"); got.code != 0 || !strings.Contains(got.out, "dstctl crypto set NAME key /k\n") {
		t.Errorf("%+v", got)
	}
	if got := dstctl(t, d, "-j key gen /k"); got.code != 0 || got.out != `{"schema":1,"file":"/k"}`+"\n" {
		t.Errorf("%+v", got)
	}
	got := dstctl(t, d, "key gen /there")
	if want := "Error: key file /there exists: choose another name.\n  dstctl key gen /there\n                 ^~~~~~\n"; got != (result{exitRefused, "", want}) {
		t.Errorf("%+v", got)
	}
	if len(d.calls) != 0 || !reflect.DeepEqual(d.made, []string{"/k", "/k", "/there"}) {
		t.Errorf("%q, %q", d.calls, d.made)
	}
}

// TestValues: numbers as they are read and written.
func TestValues(t *testing.T) {
	for word, want := range map[string]uint64{"1": 1, "512": 512, "512B": 512, "1K": 1 << 10, "1k": 1 << 10, "1KiB": 1 << 10, "2M": 2 << 20,
		"10g": 10 << 30, "3TiB": 3 << 40, "1P": 1 << 50, "7E": 7 << 60, "9223372036854775807": math.MaxInt64} {
		if n, err := parseSize(word); n != want || err != nil {
			t.Errorf("%s: %d, %v", word, n, err)
		}
	}
	for ms, want := range map[uint64][2]string{0: {"0s", "0s"}, 1: {"1ms", "1ms"}, 999: {"999ms", "999ms"}, 1500: {"1s500ms", "1s"}, 90_000: {"1m30s", "1m30s"},
		3600_000: {"1h", "1h"}, 3_661_001: {"1h1m1s1ms", "1h1m"}, 86_400_000: {"24h", "1d"}, 93_600_001: {"26h1ms", "1d2h"}} {
		if textTime(ms) != want[0] || textAge(ms) != want[1] {
			t.Errorf("%d: %s, %s", ms, textTime(ms), textAge(ms))
		}
		if back, err := parseTime(textTime(ms)); err != nil || back != ms {
			t.Errorf("%d comes back as %d, %v", ms, back, err)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 10 << 30: "10GiB", math.MaxUint64: "15.9EiB", 1<<20 + 1: "1MiB"} {
		if textSize(n) != want {
			t.Errorf("%d: %s", n, textSize(n))
		}
	}
}

// FuzzCommand: any words are understood or refused with exit code 1 and one
// sentence, and never panic; what is understood carries a valid name.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{"export add v device /x listen tcp:10.0.0.1:9 size 1G", "remote add r peer unix:/x attach socket /y start", "security add v 10.0.0.0/8 rw",
		"-j -wait 5s start v", "crypto set v hash crc32c threads 3", "crypto add v key /k", "crypto del v key-id 5d0cbb2a1f6a9e34", "crypto show v", "key gen /k", "security del v any key 5d0cbb2a1f6a9e34", "export set v read-only on", "help export add", "-b - ", "del \x1b force", "export add 'ä' \xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, " ")
		if strings.HasPrefix(words[0], "__") {
			return
		}
		d := newFake()
		d.get = func(n *abi.Node) { n.Status.State = abi.StateEstablished }
		close(d.events) // monitor ends
		got := runWords(t, d, words, len(s)%2 == 0, "show\n")
		if got.code < 0 || got.code > 5 {
			t.Fatalf("exit %d", got.code)
		}
		if (got.code == 0) != (got.err == "") || hostile(got.err) {
			t.Fatalf("exit %d, %q", got.code, got.err)
		}
		if got.code == exitMistake && len(d.calls) != 0 {
			t.Fatalf("not understood, but %q", d.calls)
		}
		for name := range d.nodes {
			if abi.ValidName(name) != nil {
				t.Fatalf("name %q was sent", name)
			}
		}
	})
}
