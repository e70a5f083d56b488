package abi

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ValidName says whether s may name a node: [A-Za-z0-9][A-Za-z0-9_.:-]{0,30}.
// Errors: EINVAL with a sentence.
func ValidName(s string) error {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == ':' || c == '-'):
		default:
			return fmt.Errorf("name %q: character %q is not allowed there: write letters, digits and, not first, any of _ . : -: %w", s, c, unix.EINVAL)
		}
	}
	if s == "help" {
		return fmt.Errorf("name \"help\": dstctl takes it for a question: write another: %w", unix.EINVAL)
	}
	if s == "" || len(s) > NameMax {
		return fmt.Errorf("name %q has %d characters: write 1 to %d: %w", s, len(s), NameMax, unix.EINVAL)
	}
	return nil
}

// Check says what is wrong with a rule by itself. Errors: EINVAL.
func (r Rule) Check() error {
	inet := r.Kind == RuleKindInet || r.Kind == RuleKindInet6
	id := r.Kind == RuleKindUnix || r.Kind == RuleKindVsock
	switch {
	case r.Kind < RuleKindAny || r.Kind > RuleKindVsock:
		return fmt.Errorf("rule kind %d is not known: %w", uint32(r.Kind), unix.EINVAL)
	case inet && (!r.Prefix.IsValid() || r.Prefix.Addr().Is4() != (r.Kind == RuleKindInet)):
		return fmt.Errorf("the rule needs an address of its family and the number of its significant bits: %w", unix.EINVAL)
	case inet && r.Prefix.Addr().Is4In6():
		return fmt.Errorf("prefix %v: write IPv4 addresses as such: %w", r.Prefix, unix.EINVAL)
	case inet && r.Prefix != r.Prefix.Masked():
		return fmt.Errorf("prefix %v has bits set behind its length: write %v or %v: %w", r.Prefix, r.Prefix.Masked(),
			netip.PrefixFrom(r.Prefix.Addr(), r.Prefix.Addr().BitLen()), unix.EINVAL)
	case !inet && r.Prefix.IsValid():
		return fmt.Errorf("only rules for internet addresses have a prefix: %w", unix.EINVAL)
	case !id && r.ID != nil:
		return fmt.Errorf("only rules for unix and vsock have a number: %w", unix.EINVAL)
	case r.Perm&^PermRW != 0 || r.Perm == PermWrite:
		return fmt.Errorf("permission %#x: allowed are deny (0), ro (1) and rw (3): %w", uint32(r.Perm), unix.EINVAL)
	}
	return nil
}
