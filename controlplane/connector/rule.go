package connector

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// rule is u as a security rule: it names the peers whose sockets bear that
// address, whatever their port, and no others. An address that a rule cannot
// express is refused rather than widened: a rule has no interface and no path.
// Errors: EAFNOSUPPORT, EOPNOTSUPP.
func rule(u abi.SecureUser) (abi.Rule, error) {
	r := abi.Rule{Perm: u.Perm}
	switch family := u.Addr.Family(); family {
	case unix.AF_INET, unix.AF_INET6:
		ap, _ := u.Addr.AddrPort() // SecureUser.Parse has checked the length
		ip := ap.Addr().Unmap()
		if ip.Zone() != "" {
			return r, fmt.Errorf("address %v: a rule is for all interfaces: send scope id 0: %w", ip, unix.EOPNOTSUPP)
		}
		r.Kind, r.Prefix = abi.RuleKindInet6, netip.PrefixFrom(ip, ip.BitLen())
		if ip.Is4() {
			r.Kind = abi.RuleKindInet
		}
	case unix.AF_UNIX:
		// A Unix client that did not bind, which is every one, has no path.
		if strings.Trim(u.Addr.Sockaddr[2:], "\x00") != "" {
			return r, fmt.Errorf("%v: rules for Unix peers go by user: send a path of zeroes for all, or use dstctl security add: %w",
				u.Addr, unix.EOPNOTSUPP)
		}
		r.Kind = abi.RuleKindUnix
	case unix.AF_VSOCK:
		cid, _, _ := u.Addr.Vsock()
		r.Kind, r.ID = abi.RuleKindVsock, &cid
	default:
		return r, fmt.Errorf("there are no rules for addresses of family %d: %w", family, unix.EAFNOSUPPORT)
	}
	return r, nil
}
