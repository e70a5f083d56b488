package abi

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestValidName(t *testing.T) {
	for _, s := range []string{"a", "0", "vol0", "A.b_c:d-e", strings.Repeat("x", 31)} {
		if err := ValidName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "-a", "_a", ":a", "a/b", "a b", "a\x00", "ä", "aä", "..", "a\n", strings.Repeat("x", 32)} {
		if err := ValidName(s); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "write") {
			t.Errorf("%q: got %v, want EINVAL and what to write", s, err)
		}
	}
}

func TestRuleCheck(t *testing.T) {
	p, n := netip.MustParsePrefix, uint32(7)
	for _, r := range []Rule{
		{Kind: RuleKindAny, Perm: PermRW},
		{Kind: RuleKindAny},
		{Kind: RuleKindInet, Prefix: p("10.0.0.0/8"), Perm: PermRead},
		{Kind: RuleKindInet, Prefix: p("0.0.0.0/0"), Perm: PermRead},
		{Kind: RuleKindInet6, Prefix: p("2001:db8::7/128"), Perm: PermRW},
		{Kind: RuleKindUnix, Perm: PermRW},
		{Kind: RuleKindUnix, ID: &n, Perm: PermRW},
		{Kind: RuleKindVsock, ID: &n},
	} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []Rule{
		{},
		{Kind: 6},
		{Kind: RuleKindAny, Prefix: p("10.0.0.0/8")},
		{Kind: RuleKindAny, ID: &n},
		{Kind: RuleKindInet},
		{Kind: RuleKindInet, Prefix: p("2001:db8::/32")},
		{Kind: RuleKindInet6, Prefix: p("10.0.0.0/8")},
		{Kind: RuleKindInet6, Prefix: p("::ffff:10.0.0.0/104")},
		{Kind: RuleKindInet, Prefix: p("10.0.0.1/8")},
		{Kind: RuleKindInet, Prefix: p("10.0.0.0/8"), ID: &n},
		{Kind: RuleKindUnix, Prefix: p("10.0.0.0/8")},
		{Kind: RuleKindAny, Perm: PermWrite},
		{Kind: RuleKindAny, Perm: 4},
	} {
		if err := r.Check(); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: got %v, want EINVAL", r, err)
		}
	}
	if err := (Rule{Kind: RuleKindInet, Prefix: p("10.0.0.1/8")}).Check(); !strings.Contains(err.Error(), "10.0.0.0/8 or 10.0.0.1/32") {
		t.Errorf("got %v, want what to write", err)
	}
}
