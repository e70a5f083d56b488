package abi

import "github.com/mdlayher/netlink"

// Del is the DEL_NODE request.
type Del struct {
	Name  string
	Flags DelFlag
}

// NodeRules are rules of one export: the SECURITY and SECURITY_DEL requests
// (one rule), and a row of SECURITY_GET.
type NodeRules struct {
	Name  string
	Rules []Rule
}

// NodeStats are the counters of one node: an answer of STATS.
type NodeStats struct {
	Name     string
	Counters Counters
}

// Encode adds the attributes of d to ae.
func (d *Del) Encode(ae *netlink.AttributeEncoder) { d.fields().encode(ae) }

// Decode replaces d by what ad holds.
func (d *Del) Decode(ad *netlink.AttributeDecoder) error {
	*d = Del{}
	return d.fields().decode(ad)
}

func (d *Del) fields() fields {
	return fields{text(AttrNodeName, &d.Name), num32(AttrNodeDelFlags, &d.Flags)}
}

// Encode adds the attributes of n to ae.
func (n *NodeRules) Encode(ae *netlink.AttributeEncoder) { n.fields().encode(ae) }

// Decode replaces n by what ad holds.
func (n *NodeRules) Decode(ad *netlink.AttributeDecoder) error {
	*n = NodeRules{}
	return n.fields().decode(ad)
}

func (n *NodeRules) fields() fields {
	return fields{text(AttrNodeName, &n.Name), list(AttrNodeRule, &n.Rules)}
}

// Encode adds the attributes of n to ae; the counters are always there.
func (n *NodeStats) Encode(ae *netlink.AttributeEncoder) { n.fields().encode(ae) }

// Decode replaces n by what ad holds.
func (n *NodeStats) Decode(ad *netlink.AttributeDecoder) error {
	*n = NodeStats{}
	return n.fields().decode(ad)
}

func (n *NodeStats) fields() fields {
	return fields{text(AttrNodeName, &n.Name), one(AttrNodeCounters, &n.Counters)}
}

func (c *Counters) fields() fields {
	return fields{
		num64(AttrCountersReads, &c.Reads),
		num64(AttrCountersWrites, &c.Writes),
		num64(AttrCountersFlushes, &c.Flushes),
		num64(AttrCountersDiscards, &c.Discards),
		num64(AttrCountersZeroes, &c.Zeroes),
		num64(AttrCountersReadBytes, &c.ReadBytes),
		num64(AttrCountersWrittenBytes, &c.WrittenBytes),
		num64(AttrCountersErrors, &c.Errors),
		num64(AttrCountersConnects, &c.Connects),
		num64(AttrCountersBreaks, &c.Breaks),
		num64(AttrCountersResent, &c.Resent),
		num64(AttrCountersRefused, &c.Refused),
		num64(AttrCountersDigestErrors, &c.DigestErrors),
		num64(AttrCountersProtocolErrors, &c.ProtocolErrors),
		num64(AttrCountersMemoryWaits, &c.MemoryWaits),
		num64(AttrCountersReplayed, &c.Replayed),
		num64(AttrCountersAuthErrors, &c.AuthErrors),
	}
}

// Encode adds the attributes of c to ae, keys among them.
func (c *Crypto) Encode(ae *netlink.AttributeEncoder) { c.fields().encode(ae) }

// Decode replaces c by what ad holds. The caller wipes c when it is done.
func (c *Crypto) Decode(ad *netlink.AttributeDecoder) error {
	*c = Crypto{}
	return c.fields().decode(ad)
}

// Wipe overwrites the keys.
func (c *Crypto) Wipe() {
	clear(c.CipherKey)
	clear(c.HashKey)
}

func (c *Crypto) fields() fields {
	return fields{
		text(AttrCryptoName, &c.Name),
		text(AttrCryptoCipher, &c.Cipher),
		text(AttrCryptoHash, &c.Hash),
		text(AttrCryptoCipherKeyFile, &c.CipherKeyFile),
		text(AttrCryptoHashKeyFile, &c.HashKeyFile),
		secret(AttrCryptoCipherKey, &c.CipherKey),
		secret(AttrCryptoHashKey, &c.HashKey),
		opt32(AttrCryptoThreads, &c.Threads),
		num32(AttrCryptoOp, &c.Op),
		num32(AttrCryptoFlags, &c.Flags),
		exact(AttrCryptoKeyID, c.KeyID[:]),
	}
}

// Encode adds the attributes of s to ae.
func (s *Sys) Encode(ae *netlink.AttributeEncoder) { s.fields().encode(ae) }

// Decode replaces s by what ad holds.
func (s *Sys) Decode(ad *netlink.AttributeDecoder) error {
	*s = Sys{}
	return s.fields().decode(ad)
}

func (s *Sys) fields() fields {
	return fields{
		text(AttrSysVersion, &s.Version),
		num32(AttrSysPID, &s.PID),
		num64(AttrSysUptime, &s.Uptime),
		text(AttrSysRunDir, &s.RunDir),
		text(AttrSysStateDir, &s.StateDir),
		text(AttrSysDevDir, &s.DevDir),
		num32(AttrSysNodes, &s.Nodes),
		num32(AttrSysSessions, &s.Sessions),
		num32(AttrSysSubscribers, &s.Subscribers),
		num64(AttrSysBudget, &s.Budget),
		num64(AttrSysBudgetUsed, &s.BudgetUsed),
		num64(AttrSysHeap, &s.Heap),
		list(AttrSysProtection, &s.Protections),
	}
}

func (p *Protection) fields() fields {
	return fields{
		text(AttrProtectionName, &p.Name),
		boolean(AttrProtectionActive, &p.Active),
		text(AttrProtectionReason, &p.Reason),
	}
}

// Encode adds the attributes of e to ae.
func (e *Event) Encode(ae *netlink.AttributeEncoder) { e.fields().encode(ae) }

// Decode replaces e by what ad holds.
func (e *Event) Decode(ad *netlink.AttributeDecoder) error {
	*e = Event{}
	return e.fields().decode(ad)
}

func (e *Event) fields() fields {
	return fields{
		num64(AttrEventSeq, &e.Seq),
		num64(AttrEventLost, &e.Lost),
		num32(AttrEventKind, &e.Kind),
		num64(AttrEventTime, &e.Time),
		text(AttrEventName, &e.Name),
		num32(AttrEventState, &e.State),
		text(AttrEventReason, &e.Reason),
		one(AttrEventPeer, &e.Peer),
	}
}
