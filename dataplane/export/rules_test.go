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
