package abi

import (
	"net/netip"

	"github.com/mdlayher/netlink"
)

// Encode adds the attributes of n to ae.
func (n *Node) Encode(ae *netlink.AttributeEncoder) {
	n.fields().encode(ae)
	if n.Status != nil {
		n.Status.fields().encode(ae)
	}
}

// Decode replaces n by what ad holds. There is a Status if the state is given.
func (n *Node) Decode(ad *netlink.AttributeDecoder) error {
	*n = Node{}
	var status Status
	fs := append(n.fields(), status.fields()...)
	fs = append(fs, field{attr: AttrNodeState, get: func(*netlink.AttributeDecoder) { n.Status = &status }})
	return fs.decode(ad)
}

func (n *Node) fields() fields {
	k := &n.Knobs
	return fields{
		text(AttrNodeName, &n.Name),
		num32(AttrNodeKind, &n.Kind),
		text(AttrNodeDevice, &n.Device),
		num64(AttrNodeSize, &n.Size),
		list(AttrNodeAddress, &n.Addrs),
		text(AttrNodeExport, &n.Export),
		num32(AttrNodeAttach, &n.Attach),
		text(AttrNodeSocket, &n.Socket),
		num32(AttrNodeFlags, &n.Flags),
		num32(AttrNodeFlagsMask, &n.Mask),
		opt32(AttrNodeMaxPages, &k.MaxPages),
		opt32(AttrNodeDepth, &k.Depth),
		opt64(AttrNodeArena, &k.Arena),
		opt32(AttrNodeKeepalive, &k.Keepalive),
		opt32(AttrNodeRequestTimeout, &k.RequestTimeout),
		opt32(AttrNodeFailAfter, &k.FailAfter),
		opt32(AttrNodeLogAge, &k.LogAge),
		text(AttrNodeHash, &n.Hash),
		opt32(AttrNodeWorkers, &k.Workers),
		opt32(AttrNodeCryptoThreads, &k.CryptoThreads),
		numbers(AttrNodeDefault, &n.Default),
	}
}

func (s *Status) fields() fields {
	return fields{
		must32(AttrNodeState, &s.State),
		num64(AttrNodeStateAge, &s.StateAge),
		text(AttrNodeReason, &s.Reason),
		num64(AttrNodeEpoch, &s.Epoch),
		exact(AttrNodeClientID, s.ClientID[:]),
		exact(AttrNodeVerifier, s.Verifier[:]),
		exact(AttrNodeStoreID, s.StoreID[:]),
		num32(AttrNodePermission, &s.Perm),
		num32(AttrNodeBlockMin, &s.BlockMin),
		num32(AttrNodeMaxSize, &s.MaxSize),
		num32(AttrNodeInFlight, &s.InFlight),
		num64(AttrNodeOldest, &s.Oldest),
		num64(AttrNodeUnflushed, &s.Unflushed),
		num64(AttrNodeLogBytes, &s.LogBytes),
		num32(AttrNodeWait, &s.Wait),
		one(AttrNodePeer, &s.Peer),
		text(AttrNodeKernelDevice, &s.Device),
		text(AttrNodeLink, &s.Link),
		texts(AttrNodeUser, &s.Users),
		list(AttrNodeSession, &s.Sessions),
		list(AttrNodeRule, &s.Rules),
		list(AttrNodeKey, &s.Keys),
		texts(AttrNodeWarning, &s.Warnings),
		list(AttrNodeTransition, &s.Transitions),
	}
}

// numbers are u32 attributes, one for each small number.
func numbers(attr uint16, p *[]uint16) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			for _, n := range *p {
				ae.Uint32(attr, uint32(n))
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = append(*p, uint16(ad.Uint32())) }}
}

func texts(attr uint16, p *[]string) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			for _, s := range *p {
				ae.String(attr, s)
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = append(*p, readText(ad)) }}
}

func (a *Addr) fields() fields {
	return fields{
		num32(AttrAddressType, &a.Type),
		num32(AttrAddressProto, &a.Proto),
		raw(AttrAddressSockaddr, &a.Sockaddr),
	}
}

func (s *Session) fields() fields {
	return fields{
		one(AttrSessionPeer, &s.Peer),
		exact(AttrSessionClientID, s.ClientID[:]),
		num64(AttrSessionEpoch, &s.Epoch),
		num32(AttrSessionPermission, &s.Perm),
		num64(AttrSessionAge, &s.Age),
		num32(AttrSessionInFlight, &s.InFlight),
		num32(AttrSessionWorkers, &s.Workers),
		boolean(AttrSessionDraining, &s.Draining),
		exact(AttrSessionKey, s.Key[:]),
	}
}

func (k *Key) fields() fields {
	return fields{
		exact(AttrKeyID, k.ID[:]),
		text(AttrKeyCipher, &k.Cipher),
		text(AttrKeyHash, &k.Hash),
		num32(AttrKeySessions, &k.Sessions),
	}
}

func (t *Transition) fields() fields {
	return fields{
		num32(AttrTransitionState, &t.State),
		num64(AttrTransitionAge, &t.Age),
		text(AttrTransitionReason, &t.Reason),
	}
}

// fields of a rule: the prefix comes in two attributes, in any order. Without
// its length there is no prefix at all: a missing word must not open a door.
func (r *Rule) fields() fields {
	ip, bits := r.Prefix.Addr(), r.Prefix.Bits()
	join := func() {
		if r.Prefix = netip.PrefixFrom(ip, bits); !r.Prefix.IsValid() {
			r.Prefix = netip.Prefix{}
		}
	}
	return fields{
		num32(AttrRuleKind, &r.Kind),
		{AttrRulePrefix,
			func(ae *netlink.AttributeEncoder) {
				if r.Prefix.IsValid() {
					ae.Bytes(AttrRulePrefix, ip.AsSlice())
				}
			},
			func(ad *netlink.AttributeDecoder) {
				ip, _ = netip.AddrFromSlice(ad.Bytes())
				join()
			}},
		{AttrRulePrefixLen,
			func(ae *netlink.AttributeEncoder) {
				if r.Prefix.IsValid() {
					ae.Uint32(AttrRulePrefixLen, uint32(bits))
				}
			},
			func(ad *netlink.AttributeDecoder) {
				bits = int(min(ad.Uint32(), 255)) // 255: longer than any address
				join()
			}},
		opt32(AttrRuleID, &r.ID),
		num32(AttrRulePermission, &r.Perm),
		exact(AttrRuleKey, r.Key[:]),
	}
}
