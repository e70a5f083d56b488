package export

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// caller is who connects, as far as rules can tell.
type caller struct {
	addr abi.Addr
	uid  uint32    // of a unix peer (SO_PEERCRED), if known
	cred bool      // uid is known
	key  abi.KeyID // that it proved to have; zero: none, the connection is not secure
}

// String is the caller as logs and events show it.
func (c caller) String() string {
	if c.addr.Family() == unix.AF_UNIX && c.cred {
		return fmt.Sprintf("unix uid %d", c.uid)
	}
	return c.addr.String()
}

// proven tells whether c proved a key: its connection is secure.
func (c caller) proven() bool { return c.key != (abi.KeyID{}) }

// place names where a caller calls from, for limits: without the port.
func (c caller) place() string {
	if ap, ok := c.addr.AddrPort(); ok {
		return ap.Addr().Unmap().WithZone("").String()
	}
	if cid, _, ok := c.addr.Vsock(); ok {
		return fmt.Sprintf("vsock CID %d", cid)
	}
	return c.String()
}

// rules says who may do what on an export, in the order of adding.
type rules []abi.Rule

// same tells whether two rules name the same peers.
func same(a, b abi.Rule) bool {
	return a.Kind == b.Kind && a.Prefix == b.Prefix && a.Key == b.Key && (a.ID == nil) == (b.ID == nil) && (a.ID == nil || *a.ID == *b.ID)
}

// with is rs and r; an equal rule gets r's permission. rs stays as it is.
func (rs rules) with(r abi.Rule) rules {
	rest := slices.DeleteFunc(slices.Clone(rs), func(x abi.Rule) bool { return same(x, r) })
	return append(rest, r)
}

// without is rs without the rule that names the same peers; ok tells whether
// there was one.
func (rs rules) without(r abi.Rule) (rest rules, ok bool) {
	rest = slices.DeleteFunc(slices.Clone(rs), func(x abi.Rule) bool { return same(x, r) })
	return rest, len(rest) < len(rs)
}

// allowAnybody tells whether there is a rule that does not deny.
func (rs rules) allowAnybody() bool {
	return slices.ContainsFunc(rs, func(r abi.Rule) bool { return r.Perm != 0 })
}

// allow is what c may do: the narrowest rule that names it decides, among
// equally narrow ones the last; none means nothing.
func (rs rules) allow(c caller) (perm abi.Perm) {
	best := -1
	for _, r := range rs {
		if width := matches(r, c); width >= 0 && width >= best {
			best, perm = width, r.Perm
		}
	}
	return perm
}

// matches is how narrowly r names c: -1 if it does not, else by the number of
// bits of the address that had to be equal, and among equal ones by the key.
func matches(r abi.Rule, c caller) int {
	width := 2 * matchAddr(r, c)
	switch {
	case width < 0 || r.Key != (abi.KeyID{}) && r.Key != c.key:
		return -1
	case r.Key != (abi.KeyID{}):
		width++
	}
	return width
}

// matchAddr is how narrowly r names the address of c: -1 if it does not, 0 for
// any, else 1 and the number of bits that had to be equal.
func matchAddr(r abi.Rule, c caller) int {
	switch r.Kind {
	case abi.RuleKindAny:
		return 0
	case abi.RuleKindInet, abi.RuleKindInet6:
		// A socket that listens on IPv6 shows IPv4 peers as v4-mapped.
		ap, ok := c.addr.AddrPort()
		if ok && r.Prefix.Contains(ap.Addr().Unmap().WithZone("")) {
			return 1 + r.Prefix.Bits()
		}
	case abi.RuleKindUnix:
		return matchID(r, c.addr.Family() == unix.AF_UNIX, c.uid, c.cred)
	case abi.RuleKindVsock:
		cid, _, ok := c.addr.Vsock()
		return matchID(r, ok, cid, ok)
	}
	return -1
}

func matchID(r abi.Rule, family bool, id uint32, known bool) int {
	switch {
	case !family:
		return -1
	case r.ID == nil:
		return 1
	case known && *r.ID == id:
		return 33
	}
	return -1
}

// idle is a warning of rules that can match nobody, as their families do not call
// at the addresses in listen; "" if there are none.
func (rs rules) idle(listen []abi.Addr) string {
	const most = 4 // named
	var who []string
	for _, r := range rs {
		if !slices.ContainsFunc(listen, func(a abi.Addr) bool { return reaches(r, a) }) {
			who = append(who, r.Who())
		}
	}
	subject := "rules %s name"
	switch {
	case len(who) == 0:
		return ""
	case len(who) == 1:
		subject = "rule %s names"
	case len(who) > most:
		who = append(who[:most], fmt.Sprintf("%d more", len(who)-most))
	}
	var at []string
	for _, a := range listen {
		at = append(at, a.String())
	}
	return fmt.Sprintf(subject+" no address that this export listens on: callers at %s are of another family",
		strings.Join(who, ", "), strings.Join(at, ", "))
}

// reaches tells whether callers at a are of the family that r names. IPv4 callers
// come to an IPv6 address too, if it is all of them or an IPv4 one.
func reaches(r abi.Rule, a abi.Addr) bool {
	ap, _ := a.AddrPort()
	mapped := ap.Addr().Is4In6()
	switch r.Kind {
	case abi.RuleKindInet:
		return ap.Addr().Is4() || mapped || ap.Addr().IsUnspecified()
	case abi.RuleKindInet6:
		return ap.Addr().Is6() && !mapped
	case abi.RuleKindUnix:
		return a.Family() == unix.AF_UNIX
	case abi.RuleKindVsock:
		return a.Family() == unix.AF_VSOCK
	}
	return true
}
