package abi

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestParseAddr(t *testing.T) {
	resolve := func(host string) (netip.Addr, error) {
		if host == "disk-host" {
			return netip.MustParseAddr("192.0.2.1"), nil
		}
		return netip.Addr{}, errors.Join(errors.New("no such host"), unix.ENOENT)
	}
	for _, tt := range []struct {
		in, out string
		family  uint16
		size    int
	}{
		{"tcp:10.0.0.1:9876", "", unix.AF_INET, 16},
		{"tcp:0.0.0.0:65535", "", unix.AF_INET, 16},
		{"tcp:[::]:1", "", unix.AF_INET6, 28},
		{"tcp:[2001:db8::7]:9876", "", unix.AF_INET6, 28},
		{"tcp:[fe80::1%2]:9876", "", unix.AF_INET6, 28},
		{"tcp:[::ffff:10.0.0.1]:9876", "", unix.AF_INET6, 28},
		{"tcp:disk-host:9876", "tcp:192.0.2.1:9876", unix.AF_INET, 16},
		{"tcp:10.0.0.1:09876", "tcp:10.0.0.1:9876", unix.AF_INET, 16},
		{"unix:/run/dst/a.sock", "", unix.AF_UNIX, 18},
		{"unix:/with:colon", "", unix.AF_UNIX, 14},
		{"unix:/" + strings.Repeat("x", 106), "", unix.AF_UNIX, 110},
		{"mptcp:10.0.0.1:9876", "", unix.AF_INET, 16},
		{"mptcp:[fe80::1%2]:9876", "", unix.AF_INET6, 28},
		{"mptcp:disk-host:9876", "mptcp:192.0.2.1:9876", unix.AF_INET, 16},
		{"sctp:10.0.0.1:9876", "", unix.AF_INET, 16},
		{"sctp:[2001:db8::7%4294967295]:9876", "", unix.AF_INET6, 28},
		{"sctp:disk-host:9876", "sctp:192.0.2.1:9876", unix.AF_INET, 16},
		{"vsock:2:9876", "", unix.AF_VSOCK, 16},
		{"vsock:0:0", "", unix.AF_VSOCK, 16},
		{"vsock:any:4294967294", "", unix.AF_VSOCK, 16},
		{"vsock:4294967295:1", "vsock:any:1", unix.AF_VSOCK, 16},
	} {
		a, err := ParseAddr(tt.in, resolve)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if tt.out == "" {
			tt.out = tt.in
		}
		if a.String() != tt.out || a.Family() != tt.family || len(a.Sockaddr) != tt.size || a.Type != unix.SOCK_STREAM || a.Check() != nil {
			t.Errorf("%s: got %s, family %d, %d bytes, check %v", tt.in, a, a.Family(), len(a.Sockaddr), a.Check())
		}
		if again, err := ParseAddr(a.String(), nil); err != nil || again != a {
			t.Errorf("%s: read again it is %s, %v", tt.in, again, err)
		}
	}
	for _, in := range []string{
		"", ":", "tcp", "tcp:", "tcp::", "tcp::1", "tcp:10.0.0.1", "tcp:10.0.0.1:", "tcp:10.0.0.1:0", "tcp:10.0.0.1:65536",
		"tcp:10.0.0.1:-1", "tcp:10.0.0.1:+1", "tcp:10.0.0.1:0x50", "tcp:10.0.0.1: 80", "tcp:10.0.0.1:80 ", "tcp:10.0.0.256:80", "tcp:10.0.1:80",
		"tcp:2001:db8::7:9876", "tcp:[2001:db8::7]", "tcp:[2001:db8::7:9876", "tcp:[10.0.0.1]:9876", "tcp:[fe80::1%eth0]:9876",
		"tcp:[fe80::1%4294967296]:9876", "tcp:[]:80", "tcp:[disk-host]:80", "tcp:10.0.0.1:99999999999999999999", "udp:10.0.0.1:80", "TCP:10.0.0.1:80",
		"unix:", "unix:relative", "unix:/" + strings.Repeat("x", 107), "unix:/a\x00b", "family:1:00", "none",
		"mptcp:", "mptcp:2001:db8::7:80", "mptcp:/run/a", "sctp:10.0.0.1:0", "sctp:[fe80::1%eth0]:80", "sctp:disk-host:80", "dccp:10.0.0.1:80",
		"vsock:", "vsock:3", "vsock:3:", "vsock::3", "vsock::", "vsock:3:4:5", "vsock:-1:5", "vsock:+1:5", "vsock:1:-1", "vsock:1:any", "vsock:host:5",
		"vsock:4294967296:5", "vsock:3:4294967295", "vsock:3:4294967296", "vsock:0x3:5", "vsock: 3:5", "vsock:ANY:5", "vsock:[3]:5", "vsock:10.0.0.1:5",
	} {
		if a, err := ParseAddr(in, nil); !errors.Is(err, unix.EINVAL) || !a.IsZero() || !strings.Contains(err.Error(), "address ") {
			t.Errorf("%q: got %v, %v, want EINVAL and a sentence", in, a, err)
		}
	}
	for word, says := range map[string]string{
		"carrier-pigeon:1": "write tcp:HOST:PORT, mptcp:HOST:PORT, sctp:HOST:PORT, unix:PATH or vsock:CID:PORT",
		"vsock:x:1":        "2 for the host, 1 for one's own, or, to listen on all, any",
		"vsock:1:x":        "from 0 to 4294967294",
	} {
		if _, err := ParseAddr(word, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", word, err, says)
		}
	}
	if _, err := ParseAddr("tcp:nowhere:80", resolve); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a name that resolve does not know: got %v", err)
	}
}

func TestAddrString(t *testing.T) {
	ap := netip.MustParseAddrPort("10.0.0.1:80")
	for want, a := range map[string]Addr{
		"none":                                  {},
		"tcp:10.0.0.1:80":                       NetAddr(unix.IPPROTO_TCP, ap),
		"mptcp:10.0.0.1:80":                     NetAddr(unix.IPPROTO_MPTCP, ap),
		"sctp:10.0.0.1:80":                      NetAddr(unix.IPPROTO_SCTP, ap),
		"vsock:2:9876":                          VsockAddr(2, 9876),
		"vsock:any:1":                           VsockAddr(unix.VMADDR_CID_ANY, 1),
		"unix:/run/a":                           UnixAddr("/run/a"),
		"unix:@name":                            {Sockaddr: UnixAddr("").Sockaddr[:2] + "\x00name"},
		"unix:":                                 {Sockaddr: UnixAddr("").Sockaddr[:2]},                                   // of a client, which has no name
		"tcp:10.0.0.2:80":                       {Sockaddr: NetAddr(0, netip.MustParseAddrPort("10.0.0.2:80")).Sockaddr}, // in a rule of the original
		"family:17:0003abcd":                    {Sockaddr: string(host.AppendUint16(nil, unix.AF_PACKET)) + "\x00\x03\xab\xcd"},
		"family:2:0050":                         {Sockaddr: string(host.AppendUint16(nil, unix.AF_INET)) + "\x00\x50"},
		"family:40:":                            {Sockaddr: string(host.AppendUint16(nil, unix.AF_VSOCK))},
		"family:0:":                             {Sockaddr: "x"},
		"family:2:00500a0000010000000000000000": NetAddr(unix.IPPROTO_UDP, ap),
		"family:2:00500a0000030000000000000000": {Type: unix.SOCK_DGRAM, Proto: unix.IPPROTO_TCP,
			Sockaddr: NetAddr(0, netip.MustParseAddrPort("10.0.0.3:80")).Sockaddr},
		"tcp:[fe80::1%7]:443": NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("[fe80::1%7]:443")),
	} {
		if a.String() != want {
			t.Errorf("got %s, want %s", a, want)
		}
		medium, _, _ := strings.Cut(want, ":")
		if medium == "none" || medium == "family" {
			medium = ""
		}
		if a.Medium() != medium {
			t.Errorf("%s: medium %q", want, a.Medium())
		}
	}
	if cid, port, ok := VsockAddr(3, 9).Vsock(); cid != 3 || port != 9 || !ok {
		t.Errorf("CID %d, port %d, %v", cid, port, ok)
	}
	for _, a := range []Addr{{}, UnixAddr("/a"), {Sockaddr: VsockAddr(1, 2).Sockaddr[:12]}} {
		if _, _, ok := a.Vsock(); ok {
			t.Errorf("%s is a vsock address", a)
		}
	}
	if p := UnixAddr("/run/a").Path(); p != "/run/a" {
		t.Errorf("path %q", p)
	}
	if p := VsockAddr(1, 2).Path(); p != "" {
		t.Errorf("path %q of vsock", p)
	}
}

func TestAddrCheck(t *testing.T) {
	family := func(f uint16, n int) Addr {
		return Addr{Sockaddr: string(append(host.AppendUint16(nil, f), make([]byte, n-2)...))}
	}
	for _, tt := range []struct {
		a    Addr
		want error
	}{
		{family(unix.AF_INET, 16), nil},
		{family(unix.AF_INET6, 28), nil},
		{family(unix.AF_VSOCK, 16), nil},
		{family(unix.AF_PACKET, 20), nil},
		{UnixAddr("/a"), nil},
		{Addr{}, unix.EINVAL},
		{Addr{Sockaddr: "x"}, unix.EINVAL},
		{family(99, 130), nil},
		{family(99, 131), unix.EINVAL},
		{family(0, 16), unix.EAFNOSUPPORT},
		{family(unix.AF_INET, 15), unix.EINVAL},
		{family(unix.AF_INET, 28), unix.EINVAL},
		{family(unix.AF_INET6, 16), unix.EINVAL},
		{family(unix.AF_VSOCK, 15), unix.EINVAL},
		{family(unix.AF_UNIX, 2), unix.EINVAL},
		{family(unix.AF_UNIX, 3), unix.EINVAL},
	} {
		if err := tt.a.Check(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.a, err, tt.want)
		}
	}
}

// anyAddr draws an address of any medium.
func anyAddr(t *rapid.T) Addr {
	inet := func(proto uint32) Addr {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		ip, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "ip"))
		if scope := rapid.Uint32().Draw(t, "scope"); size == 16 && scope != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		want := netip.AddrPortFrom(ip, uint16(rapid.IntRange(1, 65535).Draw(t, "port")))
		a := NetAddr(proto, want)
		if got, ok := a.AddrPort(); !ok || got != want {
			t.Fatalf("%v became %v", want, got)
		}
		return a
	}
	switch medium := rapid.SampledFrom(media).Draw(t, "medium"); medium.word {
	case "unix":
		return UnixAddr("/" + rapid.StringMatching(`[^\x00]{0,26}`).Draw(t, "path"))
	case "vsock":
		return VsockAddr(rapid.Uint32().Draw(t, "cid"), rapid.Uint32Max(unix.VMADDR_PORT_ANY-1).Draw(t, "port"))
	default:
		return inet(medium.proto)
	}
}

func TestAddrRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyAddr(t)
		if again, err := ParseAddr(a.String(), nil); err != nil || again != a || a.Check() != nil || !strings.HasPrefix(a.String(), a.Medium()+":") {
			t.Fatalf("%s became %s: %v, %v", a, again, err, a.Check())
		}
	})
}

func TestRuleWho(t *testing.T) {
	id := uint32(7)
	for want, r := range map[string]Rule{
		"any":           {Kind: RuleKindAny},
		"10.0.0.0/8":    {Kind: RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		"2001:db8::/32": {Kind: RuleKindInet6, Prefix: netip.MustParsePrefix("2001:db8::/32")},
		"unix":          {Kind: RuleKindUnix},
		"unix:7":        {Kind: RuleKindUnix, ID: &id},
		"vsock":         {Kind: RuleKindVsock},
		"vsock:7":       {Kind: RuleKindVsock, ID: &id},
	} {
		if got := r.Who(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"tcp:10.0.0.1:80", "tcp:[fe80::1%2]:80", "unix:/run/a", "tcp:[::ffff:1.2.3.4]:1", "tcp:host:1",
		"mptcp:[::]:1", "sctp:10.0.0.1:65535", "vsock:1:2", "vsock:any:0", "unix:/@a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddr(s, nil)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) {
				t.Fatalf("%q: %v has no errno", s, err)
			}
			return
		}
		if again, err := ParseAddr(a.String(), nil); a.Check() != nil || err != nil || again != a {
			t.Fatalf("%q is %s, read again %s: %v, %v", s, a, again, err, a.Check())
		}
	})
}

// FuzzAddrString: an address of whatever bytes has a text, and one with a medium
// that the kernel would take is read again as it was, or refused with a sentence.
func FuzzAddrString(f *testing.F) {
	for _, a := range []Addr{NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("10.0.0.1:80")), UnixAddr("/a"), VsockAddr(1, 2),
		NetAddr(unix.IPPROTO_SCTP, netip.MustParseAddrPort("[fe80::1%7]:80")), {}, {Sockaddr: "x"}, {Sockaddr: UnixAddr("").Sockaddr + "a\x00b"}} {
		f.Add(a.Type, a.Proto, []byte(a.Sockaddr))
	}
	f.Fuzz(func(t *testing.T, typ, proto uint32, raw []byte) {
		a := Addr{typ, proto, string(raw)}
		text := a.String()
		if medium, _, _ := strings.Cut(text, ":"); a.Medium() != "" && medium != a.Medium() {
			t.Fatalf("%q is of medium %q", text, a.Medium())
		}
		again, err := ParseAddr(text, nil)
		switch {
		case err != nil && !errors.Is(err, unix.EINVAL):
			t.Fatalf("%q: %v has no errno", text, err)
		case err == nil && (again.String() != text || again.Family() != a.Family()):
			t.Fatalf("%q is read as %q", text, again)
		}
	})
}
