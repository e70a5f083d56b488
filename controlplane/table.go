package controlplane

import (
	"dst/abi"
	"dst/controlplane/genl"
)

// row is one command: what runs, and what a request cannot be without. The
// policy and the privilege come from dst.yaml (policy_gen.go).
type row struct {
	do   func(*genl.Request) error
	need []uint16
	dump func(*genl.Request) error
}

// table is the control plane.
func (d *Door) table() map[uint8]row {
	name := []uint16{abi.AttrNodeName}
	rule := []uint16{abi.AttrNodeName, abi.AttrNodeRule}
	return map[uint8]row{
		abi.CmdDelNode:     {do: d.delNode, need: name},
		abi.CmdAddRemote:   {do: d.addRemote, need: []uint16{abi.AttrNodeName, abi.AttrNodeAddress}},
		abi.CmdAddExport:   {do: d.addExport, need: []uint16{abi.AttrNodeName, abi.AttrNodeDevice, abi.AttrNodeAddress}},
		abi.CmdCrypto:      {do: d.crypto, need: []uint16{abi.AttrCryptoName}},
		abi.CmdSecurity:    {do: d.addRule, need: rule},
		abi.CmdStart:       {do: d.start, need: name},
		abi.CmdGet:         {do: d.get, need: name, dump: d.dumpNodes},
		abi.CmdSet:         {do: d.set, need: name},
		abi.CmdSecurityDel: {do: d.delRule, need: rule},
		abi.CmdSecurityGet: {dump: d.dumpRules},
		abi.CmdStats:       {do: d.stats, need: name, dump: d.dumpStats},
		abi.CmdSys:         {do: d.sys},
		abi.CmdSubscribe:   {do: d.subscribe},
		abi.CmdUnsubscribe: {do: d.unsubscribe},
	}
}

// ops joins the table with the policies.
func (d *Door) ops() map[uint8]genl.Op {
	ops := map[uint8]genl.Op{}
	for cmd, row := range d.table() {
		spec := operations[cmd]
		op := genl.Op{Policy: spec.do, DumpPolicy: spec.dump, Need: row.need, Admin: spec.admin, Dump: row.dump}
		if row.do != nil {
			op.Do = func(r *genl.Request) error { return located(r, row.do(r)) }
		}
		ops[cmd] = op
	}
	return ops
}
