package genl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const ctrlVersion = 2 // of the kernel's own controller

var familyPolicy = &Policy{Name: "getfamily", Attrs: map[uint16]Rule{
	unix.CTRL_ATTR_FAMILY_ID:   {Name: "family-id", Kind: U16},
	unix.CTRL_ATTR_FAMILY_NAME: {Name: "family-name", Kind: String, Min: 1, Max: unix.GENL_NAMSIZ - 1},
}}

// controller is the family "nlctrl" as one server knows it: f and itself. It
// answers CTRL_CMD_GETFAMILY, by name, by id or as a dump, to anybody.
func controller(f *Family) *Family {
	c := &Family{Name: "nlctrl", ID: unix.GENL_ID_CTRL, Version: ctrlVersion, MaxAttr: unix.CTRL_ATTR_OP}
	all := []*Family{c, f}
	c.Ops = map[uint8]Op{
		unix.CTRL_CMD_GETFAMILY: {
			Policy: familyPolicy,
			Reply:  unix.CTRL_CMD_NEWFAMILY,
			Do:     func(r *Request) error { return getFamily(r, all) },
			Dump: func(r *Request) error {
				for _, f := range all {
					if err := r.Reply(f.describe); err != nil {
						return err
					}
				}
				return nil
			},
		},
		unix.CTRL_CMD_GETPOLICY: {
			Dump: func(*Request) error {
				return fmt.Errorf("the policy is in the family's specification, GETPOLICY is not served: %w", unix.EOPNOTSUPP)
			},
			DumpPolicy: &Policy{Name: "getpolicy", Attrs: map[uint16]Rule{
				unix.CTRL_ATTR_FAMILY_ID:   familyPolicy.Attrs[unix.CTRL_ATTR_FAMILY_ID],
				unix.CTRL_ATTR_FAMILY_NAME: familyPolicy.Attrs[unix.CTRL_ATTR_FAMILY_NAME],
				unix.CTRL_ATTR_OP:          {Name: "op", Kind: U32},
			}},
		},
	}
	return c
}

// getFamily answers with the one family that has the name and the id given.
func getFamily(r *Request, all []*Family) error {
	name, byName := r.Attrs.Get(unix.CTRL_ATTR_FAMILY_NAME)
	id, byID := r.Attrs.Get(unix.CTRL_ATTR_FAMILY_ID)
	if !byName && !byID {
		return familyPolicy.missing(unix.CTRL_ATTR_FAMILY_NAME)
	}
	for _, f := range all {
		if (!byName || name.String() == f.Name) && (!byID || id.Uint() == uint64(f.ID)) {
			return r.Reply(f.describe)
		}
	}
	return fmt.Errorf("only family %s is served at this port: %w", all[len(all)-1].Name, unix.ENOENT)
}

// describe encodes what GETFAMILY tells of f (ctrl_fill_info of the kernel).
func (f *Family) describe(ae *netlink.AttributeEncoder) {
	ae.String(unix.CTRL_ATTR_FAMILY_NAME, f.Name)
	ae.Uint16(unix.CTRL_ATTR_FAMILY_ID, f.ID)
	ae.Uint32(unix.CTRL_ATTR_VERSION, uint32(f.Version))
	ae.Uint32(unix.CTRL_ATTR_HDRSIZE, 0)
	ae.Uint32(unix.CTRL_ATTR_MAXATTR, f.MaxAttr)
	ae.Nested(unix.CTRL_ATTR_OPS, func(ops *netlink.AttributeEncoder) error {
		for i, cmd := range slices.Sorted(maps.Keys(f.Ops)) {
			ops.Nested(uint16(i+1), func(op *netlink.AttributeEncoder) error {
				op.Uint32(unix.CTRL_ATTR_OP_ID, uint32(cmd))
				op.Uint32(unix.CTRL_ATTR_OP_FLAGS, f.Ops[cmd].flags())
				return nil
			})
		}
		return nil
	})
}
