package abi

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func vsockAddr(cid, port uint32) Addr {
	b := make([]byte, unix.SizeofSockaddrVM)
	host.PutUint16(b, unix.AF_VSOCK)
	host.PutUint32(b[4:], port)
	host.PutUint32(b[8:], cid)
	return Addr{Type: unix.SOCK_STREAM, Sockaddr: string(b)}
}

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
		"unix:", "unix:relative", "unix:/" + strings.Repeat("x", 107), "unix:/a\x00b", "mptcp:10.0.0.1:80", "vsock:2:9876", "family:1:00",
	} {
		if a, err := ParseAddr(in, nil); !errors.Is(err, unix.EINVAL) || !a.IsZero() || !strings.Contains(err.Error(), "address ") {
			t.Errorf("%q: got %v, %v, want EINVAL and a sentence", in, a, err)
		}
	}
	if _, err := ParseAddr("tcp:nowhere:80", resolve); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a name that resolve does not know: got %v", err)
	}
}

func TestAddrString(t *testing.T) {
	ap := netip.MustParseAddrPort("10.0.0.1:80")
	for want, a := range map[string]Addr{
		"none":                {},
		"tcp:10.0.0.1:80":     NetAddr(unix.IPPROTO_TCP, ap),
		"mptcp:10.0.0.1:80":   NetAddr(unix.IPPROTO_MPTCP, ap),
		"sctp:10.0.0.1:80":    NetAddr(unix.IPPROTO_SCTP, ap),
		"vsock:2:9876":        vsockAddr(2, 9876),
		"unix:/run/a":         UnixAddr("/run/a"),
		"family:17:0003abcd":  {Sockaddr: string(host.AppendUint16(nil, unix.AF_PACKET)) + "\x00\x03\xab\xcd"},
		"family:2:0050":       {Sockaddr: string(host.AppendUint16(nil, unix.AF_INET)) + "\x00\x50"},
		"tcp:[fe80::1%7]:443": NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("[fe80::1%7]:443")),
	} {
		if a.String() != want {
			t.Errorf("got %s, want %s", a, want)
		}
	}
	if p := UnixAddr("/run/a").Path(); p != "/run/a" {
		t.Errorf("path %q", p)
	}
	if p := vsockAddr(1, 2).Path(); p != "" {
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

func TestAddrRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		ip, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "ip"))
		want := netip.AddrPortFrom(ip, uint16(rapid.IntRange(1, 65535).Draw(t, "port")))
		a := NetAddr(unix.IPPROTO_TCP, want)
		if got, ok := a.AddrPort(); !ok || got != want || a.Check() != nil {
			t.Fatalf("%v became %v", want, got)
		}
		if again, err := ParseAddr(a.String(), nil); err != nil || again != a {
			t.Fatalf("%s became %s: %v", a, again, err)
		}
	})
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"tcp:10.0.0.1:80", "tcp:[fe80::1%2]:80", "unix:/run/a", "tcp:[::ffff:1.2.3.4]:1", "tcp:host:1", "vsock:1:2"} {
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
