package dataplane

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// What is refused before anything is touched is decided here and in the check
// of each kind of node, for every door alike. An error blames its attribute.

// wrong is EINVAL and a sentence, blamed on attr.
func wrong(attr uint16, format string, args ...any) error {
	return abi.Blame(attr, fmt.Errorf(format+": %w", append(args, unix.EINVAL)...))
}

// checkNode is what remotes and exports have in common.
func checkNode(n *abi.Node) error {
	for i, a := range n.Addrs {
		if err := a.Check(); err != nil {
			return abi.BlameNth(abi.AttrNodeAddress, i, err)
		}
		if slices.Contains(n.Addrs[:i], a) {
			return abi.BlameNth(abi.AttrNodeAddress, i, fmt.Errorf("address %v is given twice: leave one out: %w", a, unix.EINVAL))
		}
	}
	switch {
	case n.Size%abi.SectorSize != 0:
		return wrong(abi.AttrNodeSize, "size %d is not a multiple of %d: give whole sectors", n.Size, abi.SectorSize)
	case n.Size >= 1<<63:
		return wrong(abi.AttrNodeSize, "size %d is beyond what a device can have: give less", n.Size)
	}
	return checkKnobs(&n.Knobs)
}

// checkPeers refuses addresses that nobody has, in a new node: one that is
// remembered may have them, and this host answers there.
func checkPeers(addrs []abi.Addr) error {
	for i, a := range addrs {
		ap, inet := a.AddrPort()
		cid, _, vsock := a.Vsock()
		if inet && ap.Addr().IsUnspecified() || vsock && cid == unix.VMADDR_CID_ANY {
			return abi.BlameNth(abi.AttrNodeAddress, i, fmt.Errorf("%v is where an export listens, not where it is: name the peer's own address: %w", a, unix.EADDRNOTAVAIL))
		}
	}
	return nil
}

// checkKnobs refuses values outside of the ABI's limits: the generic-netlink
// door has checked them already, other doors and saved files have not.
func checkKnobs(k *abi.Knobs) error {
	for _, c := range []struct {
		name     string
		attr     uint16
		value    *uint32
		low, top uint32
	}{
		{"max-pages", abi.AttrNodeMaxPages, k.MaxPages, 1, abi.MaxRequest / pageSize},
		{"depth", abi.AttrNodeDepth, k.Depth, 1, trans.DepthMax},
		{"keepalive", abi.AttrNodeKeepalive, k.Keepalive, 10, 3600_000},
		{"workers", abi.AttrNodeWorkers, k.Workers, 1, 1024},
		{"log-age", abi.AttrNodeLogAge, k.LogAge, 10, math.MaxUint32},
		{"crypto-threads", abi.AttrNodeCryptoThreads, k.CryptoThreads, 0, 1024},
	} {
		if c.value != nil && (*c.value < c.low || *c.value > c.top) {
			return abi.Blame(c.attr, fmt.Errorf("%s %d is not from %d to %d: %w", c.name, *c.value, c.low, c.top, unix.ERANGE))
		}
	}
	if k.Arena != nil && (*k.Arena < arenaGuaranteed || *k.Arena > 1<<40) {
		return abi.Blame(abi.AttrNodeArena, fmt.Errorf("arena %d is not from %d bytes to 1 TiB: %w", *k.Arena, arenaGuaranteed, unix.ERANGE))
	}
	return nil
}

// checkSet refuses changes that no node can make.
func checkSet(n *abi.Node) error {
	switch {
	case n.Mask == 0 && n.Flags == 0 && n.Size == 0 && n.Knobs == abi.Knobs{}:
		return fmt.Errorf("nothing to set: name what is to change: %w", unix.EINVAL)
	case n.Knobs.CryptoThreads != nil:
		return wrong(abi.AttrNodeCryptoThreads, "the number of crypto threads goes with the keys: give it to crypto set")
	case n.Mask&^abi.NodeFlagReadOnly != 0:
		return wrong(abi.AttrNodeFlagsMask, "only read-only may change while a node lives: remove it and add it again")
	case n.Size != abi.SizeAll && (n.Size%abi.SectorSize != 0 || n.Size >= 1<<63):
		return wrong(abi.AttrNodeSize, "size %d is not a number of whole sectors that a device can have: give a multiple of %d", n.Size, abi.SectorSize)
	case n.Flags&^n.Mask != 0:
		return wrong(abi.AttrNodeFlags, "flags %#x are not in flags-mask: name there what changes", uint32(n.Flags&^n.Mask))
	}
	return checkKnobs(&n.Knobs)
}
