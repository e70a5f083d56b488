package export

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

func prefix(s string, perm abi.Perm) abi.Rule {
	p := netip.MustParsePrefix(s)
	r := abi.Rule{Kind: abi.RuleKindInet, Prefix: p, Perm: perm}
	if p.Addr().Is6() {
		r.Kind = abi.RuleKindInet6
	}
	return r
}

func from(ip string) caller {
	return caller{addr: abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(netip.MustParseAddr(ip), 999))}
}

func vsock(cid uint32) caller { return caller{addr: abi.VsockAddr(cid, 999)} }

// TestRulesAllow: see also TestN17Prefixes and TestN17RulesOfKeys.
func TestRulesAllow(t *testing.T) {
	id := func(n uint32) *uint32 { return &n }
	uid := func(n uint32) caller { return caller{addr: abi.UnixAddr("/x"), uid: n, cred: true} }
	const ro, rw, deny = abi.PermRead, abi.PermRW, abi.Perm(0)
	nets := rules{prefix("10.0.0.0/8", ro), prefix("10.0.0.1/32", rw), prefix("10.9.0.0/16", deny), prefix("fe80::/10", rw), anyone(0)}
	all := rules{anyone(ro), prefix("192.0.2.0/24", deny), prefix("2001:db8::/127", rw), prefix("::/0", deny)}
	ids := rules{{Kind: abi.RuleKindUnix, Perm: ro}, {Kind: abi.RuleKindUnix, ID: id(1000), Perm: rw},
		{Kind: abi.RuleKindVsock, ID: id(3), Perm: rw}}
	for _, tt := range []struct {
		rules rules
		who   caller
		want  abi.Perm
	}{
		{nil, from("10.0.0.1"), deny},
		{nets, from("10.0.0.1"), rw},
		{nets, from("10.0.0.11"), ro},
		{nets, from("10.0.0.10"), ro},
		{nets, from("::ffff:10.0.0.1"), rw}, // mapped, as an IPv6 socket shows it
		{nets, from("10.9.1.1"), deny},
		{nets, from("11.0.0.1"), deny},
		{nets, from("fe80::1%3"), rw},
		{nets, from("::a00:1"), deny}, // not 10.0.0.1
		{all, from("192.0.2.255"), deny},
		{all, from("192.0.3.0"), ro},
		{all, from("2001:db8::1"), rw},
		{all, from("2001:db8::2"), deny},
		{all, uid(5), ro},
		{ids, uid(5), ro},
		{ids, uid(1000), rw},
		{ids, caller{addr: abi.UnixAddr("/x")}, ro},
		{ids, from("10.0.0.1"), deny},
		{ids, vsock(3), rw},
		{ids, vsock(4), deny},
		{ids.with(abi.Rule{Kind: abi.RuleKindVsock, Perm: ro}), vsock(4), ro},
		{ids.with(abi.Rule{Kind: abi.RuleKindVsock, Perm: ro}), vsock(3), rw},
		{ids.with(abi.Rule{Kind: abi.RuleKindVsock, Perm: ro}), caller{addr: abi.Addr{Sockaddr: vsock(4).addr.Sockaddr[:8]}}, deny},
		{nets, vsock(3), deny},
		{all, vsock(3), ro},
	} {
		if got := tt.rules.allow(tt.who); got != tt.want {
			t.Errorf("%v: %v may %v, want %v", tt.rules, tt.who, got, tt.want)
		}
	}
}

// TestN17Prefixes: every length that is a border of something, and neighbours on
// both sides of it. Nothing that is written alike names the other family.
func TestN17Prefixes(t *testing.T) {
	for _, tt := range []struct{ prefix, in, out string }{
		{"0.0.0.0/0", "0.0.0.0 255.255.255.255 ::ffff:10.0.0.1 10.0.0.1", ":: ::1 ::a00:1 2001:db8::1 64:ff9b::a00:1"},
		{"::/0", ":: ::1 ffff::1 fe80::1%7", "10.0.0.1 ::ffff:10.0.0.1 0.0.0.0"},
		{"10.0.0.0/8", "10.0.0.0 10.255.255.255 ::ffff:10.1.2.3", "9.255.255.255 11.0.0.0 1.0.0.0 100.0.0.0 ::a00:0"},
		{"10.0.0.0/31", "10.0.0.0 10.0.0.1", "10.0.0.2 10.0.0.10 10.0.0.11 9.255.255.255"},
		{"10.0.0.1/32", "10.0.0.1 ::ffff:10.0.0.1", "10.0.0.0 10.0.0.2 10.0.0.11 10.0.0.10 10.0.0.100 110.0.0.1 ::10.0.0.1"},
		{"2001:db8::2/127", "2001:db8::2 2001:db8::3", "2001:db8::1 2001:db8::4 2001:db8::22 2001:db8::20"},
		{"2001:db8::1/128", "2001:db8::1 2001:db8:0:0:0:0:0:1", "2001:db8::11 2001:db8::10 2001:db8::2 2001:db8:1::1"},
		{"fe80::/10", "fe80::1 fe80::1%eth0 febf::1", "fec0::1 fe00::1"},
		{"0.0.0.0/1", "127.255.255.255 0.0.0.1", "128.0.0.0 ::1"},
	} {
		rs := rules{prefix(tt.prefix, abi.PermRW)}
		for _, in := range strings.Fields(tt.in) {
			want(t, tt.prefix+" names "+in, rs.allow(from(in)), abi.PermRW)
		}
		for _, out := range strings.Fields(tt.out) {
			want(t, tt.prefix+" names "+out, rs.allow(from(out)), abi.Perm(0))
		}
	}
	for _, odd := range []string{"10.0.0.01/32", "010.0.0.1/8", "10.0.0.1/032", "10.0.0.1/33", "10.0.1/24", "10.0.0.1", "::1/129", "fe80::1%1/64", "/8", "10.0.0.0/-1", "0x0a.0.0.0/8"} {
		if p, err := netip.ParsePrefix(odd); err == nil {
			t.Errorf("%s was read as %v", odd, p)
		}
	}
	for _, odd := range []string{"10.0.0.1/8", "::ffff:10.0.0.0/104", "2001:db8::1/64"} {
		if err := prefix(odd, abi.PermRW).Check(); !errors.Is(err, unix.EINVAL) {
			t.Errorf("rule %s: %v", odd, err)
		}
	}
}

// TestN17RulesOfKeys: a rule that is tied to a key names nobody else, and is narrower
// than the same one without.
func TestN17RulesOfKeys(t *testing.T) {
	a, b := abi.KeyID{1}, abi.KeyID{2}
	tied := func(r abi.Rule, k abi.KeyID) abi.Rule { r.Key = k; return r }
	has := func(c caller, k abi.KeyID) caller { c.key = k; return c }
	const ro, rw, deny = abi.PermRead, abi.PermRW, abi.Perm(0)
	ten, one := "10.0.0.0/8", "10.0.0.1/32"
	for i, tt := range []struct {
		rules rules
		who   caller
		want  abi.Perm
	}{
		{rules{tied(anyone(rw), a)}, from("10.0.0.1"), deny},
		{rules{tied(anyone(rw), a)}, has(from("10.0.0.1"), a), rw},
		{rules{tied(anyone(rw), a)}, has(from("10.0.0.1"), b), deny},
		{rules{anyone(ro), tied(anyone(rw), a)}, has(from("10.0.0.1"), a), rw},
		{rules{tied(anyone(rw), a), anyone(ro)}, has(from("10.0.0.1"), a), rw},
		{rules{tied(anyone(rw), a), anyone(ro)}, has(from("10.0.0.1"), b), ro},
		{rules{anyone(rw), tied(anyone(deny), a)}, has(from("10.0.0.1"), a), deny},
		{rules{tied(anyone(rw), a), prefix(ten, deny)}, has(from("10.0.0.1"), a), deny},
		{rules{tied(prefix(ten, rw), a), prefix(one, ro)}, has(from("10.0.0.1"), a), ro},
		{rules{tied(prefix(ten, rw), a), prefix(ten, ro)}, has(from("10.0.0.1"), a), rw},
		{rules{tied(prefix(ten, rw), a)}, has(from("::ffff:10.0.0.1"), a), rw},
		{rules{tied(prefix("::/0", rw), a)}, has(from("10.0.0.1"), a), deny},
		{rules{tied(abi.Rule{Kind: abi.RuleKindVsock, Perm: rw}, a)}, has(vsock(3), a), rw},
		{rules{tied(abi.Rule{Kind: abi.RuleKindVsock, Perm: rw}, a)}, vsock(3), deny},
	} {
		if got := tt.rules.allow(tt.who); got != tt.want {
			t.Errorf("%d: %v may %v, want %v", i, tt.who, got, tt.want)
		}
	}
	rs := rules{}.with(anyone(rw)).with(tied(anyone(ro), a)).with(tied(anyone(rw), a))
	want(t, "rules", len(rs), 2)
	rest, ok := rs.without(anyone(0))
	if !ok || len(rest) != 1 || rest[0].Key != a {
		t.Errorf("%v", rest)
	}
	if _, ok := rest.without(tied(anyone(0), b)); ok {
		t.Error("removed another key's")
	}
}

// FuzzRules compares the decision with one that is made without thought: of all
// rules that name the caller, the last of the narrowest.
func FuzzRules(f *testing.F) {
	f.Add([]byte{2, 3, 8, 10, 0, 0, 0, 0, 2, 0, 32, 10, 0, 0, 1, 1}, []byte{10, 0, 0, 1}, byte(1))
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 3, 3, 127, 0, 0, 0, 0, 2}, make([]byte, 16), byte(0))
	f.Add([]byte{2, 3, 0, 0, 0, 0, 0, 0}, append(append(make([]byte, 10), 0xff, 0xff), 10, 0, 0, 1), byte(2))
	f.Fuzz(func(t *testing.T, b, from []byte, key byte) {
		ip, ok := netip.AddrFromSlice(from)
		if !ok {
			return
		}
		who := caller{addr: abi.NetAddr(unix.IPPROTO_TCP, netip.AddrPortFrom(ip, 9)), key: abi.KeyID{key % 3}}
		var rs rules
		best, perm := -1, abi.Perm(0)
		for ; len(b) >= 8; b = b[8:] {
			r := abi.Rule{Kind: abi.RuleKind(b[0]%3 + 1), Perm: abi.Perm(b[1] % 4), Key: abi.KeyID{b[7] % 3}}
			addr := netip.AddrFrom4([4]byte(b[3:7]))
			if r.Kind == abi.RuleKindInet6 {
				addr = netip.AddrFrom16([16]byte{0x20, 1, b[3], b[4], b[5], 14: b[6]})
			}
			if r.Kind != abi.RuleKindAny {
				r.Prefix, _ = addr.Prefix(int(b[2]) % (addr.BitLen() + 1))
			}
			if r.Check() != nil {
				continue
			}
			rs = append(rs, r)
			if width := slowly(r, ip.Unmap(), who.key); width >= best && width >= 0 {
				best, perm = width, r.Perm
			}
		}
		if got := rs.allow(who); got != perm {
			t.Fatalf("%v: %v with key %v may %v, want %v", rs, ip, who.key, got, perm)
		}
	})
}

// slowly is how narrowly r names an address with a key, -1: not at all.
func slowly(r abi.Rule, ip netip.Addr, key abi.KeyID) (width int) {
	if r.Kind != abi.RuleKindAny {
		a, b := r.Prefix.Addr().AsSlice(), ip.AsSlice()
		if len(a) != len(b) {
			return -1
		}
		for i := range r.Prefix.Bits() {
			if (a[i/8]^b[i/8])>>(7-i%8)&1 != 0 {
				return -1
			}
		}
		width = 1000 + 10*r.Prefix.Bits()
	}
	switch r.Key {
	case abi.KeyID{}:
	case key:
		width++
	default:
		return -1
	}
	return width
}

// TestRulesIdle: rules of a family that does not call here are told of.
func TestRulesIdle(t *testing.T) {
	id := uint32(3)
	unixRule, vsockRule := abi.Rule{Kind: abi.RuleKindUnix}, abi.Rule{Kind: abi.RuleKindVsock, ID: &id}
	v4, v6 := prefix("10.0.0.0/8", 0), prefix("2001:db8::/32", 0)
	every := rules{anyone(0), v4, v6, unixRule, vsockRule}
	for _, tt := range []struct {
		listen string
		rules  rules
		who    string // of the warning
	}{
		{"tcp:10.0.0.1:9", rules{v4, anyone(0)}, ""},
		{"tcp:10.0.0.1:9", every, "rules 2001:db8::/32, unix, vsock:3 name no"},
		{"sctp:0.0.0.0:9", every, "rules 2001:db8::/32, unix, vsock:3 name no"},
		{"mptcp:[::]:9", every, "rules unix, vsock:3 name no"},
		{"tcp:[fe80::1%2]:9", every, "rules 10.0.0.0/8, unix, vsock:3 name no"},
		{"tcp:[::ffff:10.0.0.1]:9", every, "rules 2001:db8::/32, unix, vsock:3 name no"},
		{"unix:/a", every, "rules 10.0.0.0/8, 2001:db8::/32, vsock:3 name no"},
		{"vsock:any:9", rules{vsockRule, unixRule}, "rule unix names no"},
		{"vsock:any:9,tcp:[::]:9,unix:/a", every, ""},
		{"vsock:any:9,tcp:10.0.0.1:9", every, "rules 2001:db8::/32, unix name no"},
		{"unix:/a", rules{v4, v6, vsockRule, prefix("10.0.0.0/9", 0), prefix("10.0.0.0/10", 0), prefix("10.0.0.0/11", 0)},
			"rules 10.0.0.0/8, 2001:db8::/32, vsock:3, 10.0.0.0/9, 2 more name no"},
	} {
		var at []abi.Addr
		for s := range strings.SplitSeq(tt.listen, ",") {
			a, err := abi.ParseAddr(s, nil)
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, a)
		}
		full := ""
		if tt.who != "" {
			full = tt.who + " address that this export listens on: callers at " + strings.ReplaceAll(tt.listen, ",", ", ") + " are of another family"
		}
		want(t, "warning", tt.rules.idle(at), full)
	}
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	want(t, "warnings", len(w.Status().Warnings), 0)
	if err := w.AddRule(vsockRule); err != nil {
		t.Fatal(err)
	}
	want(t, "warnings", len(w.Status().Warnings), 1)
	if err := w.DelRule(vsockRule); err != nil {
		t.Fatal(err)
	}
	want(t, "warnings", len(w.Status().Warnings), 0)
}

// TestCallerPlace: limits count callers by where they call from.
func TestCallerPlace(t *testing.T) {
	other := vsock(3)
	other.addr = abi.VsockAddr(3, 1000)
	for _, tt := range []struct{ a, b caller }{
		{from("10.0.0.1"), from("::ffff:10.0.0.1")},
		{from("fe80::1%1"), from("fe80::1%2")},
		{vsock(3), other},
	} {
		want(t, "place", tt.a.place(), tt.b.place())
	}
	if vsock(3).place() == vsock(4).place() || from("10.0.0.1").place() == from("10.0.0.2").place() {
		t.Error("different callers have one place")
	}
}

func TestRulesChange(t *testing.T) {
	var rs rules
	rs = rs.with(prefix("10.0.0.0/8", abi.PermRW)).with(anyone(0)).with(prefix("10.0.0.0/8", abi.PermRead))
	want(t, "rules", len(rs), 2)
	want(t, "equal rule", rs.allow(from("10.1.1.1")), abi.PermRead)
	if _, ok := rs.without(prefix("10.0.0.0/9", 0)); ok {
		t.Error("removed what was not there")
	}
	rest, ok := rs.without(prefix("10.0.0.0/8", abi.PermRW))
	if !ok || len(rest) != 1 || len(rs) != 2 {
		t.Errorf("%v of %v", rest, rs)
	}
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	if err := w.DelRule(prefix("10.0.0.0/8", 0)); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	if err := w.AddRule(abi.Rule{Kind: 99}); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	want(t, "rules", len(w.Rules()), 1)
}

// TestRulesApplyAtOnce changes rules under living sessions.
func TestRulesApplyAtOnce(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "WRITE", c.write(0, pattern(512, 1), 0), 0)
	set := func(r abi.Rule) {
		t.Helper()
		if err := w.AddRule(r); err != nil {
			t.Fatal(err)
		}
	}
	set(prefix("127.0.0.0/8", abi.PermRead))
	want(t, "WRITE when read-only", c.write(0, pattern(512, 2), 0), unix.EPERM)
	_, errno := c.read(0, 512)
	want(t, "READ", errno, 0)
	set(prefix("127.0.0.0/8", abi.PermRW))
	want(t, "WRITE needs a new HELLO", c.write(0, pattern(512, 2), 0), unix.EPERM)
	c = w.client(helloOf(1, 2, abi.PermRW))
	want(t, "WRITE", c.write(0, pattern(512, 1), 0), 0)
	yes := true
	if err := w.Set(nil, nil, &yes); err != nil {
		t.Fatal(err)
	}
	want(t, "WRITE to a read-only export", c.write(0, pattern(512, 2), 0), unix.EPERM)
	set(prefix("127.0.0.1/32", 0))
	c.gone()
}
