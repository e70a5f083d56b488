package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// policyHead is the part of controlplane/policy_gen.go that does not depend on the specification.
const policyHead = `import (
	"dst/abi"
	"dst/controlplane/genl"
)

// operation is what the specification says of a command.
type operation struct {
	name     string
	admin    bool         // uid 0 only
	do, dump *genl.Policy // of the requests; nil: there is no such form
}

// pick is the policy of a request that may have only some attributes of a set.
func pick(name string, set *genl.Policy, types ...uint16) *genl.Policy {
	p := &genl.Policy{Name: name, Attrs: make(map[uint16]genl.Rule, len(types))}
	for _, t := range types {
		p.Attrs[t] = set.Attrs[t]
	}
	return p
}
`

// kinds are the types of attributes in package genl.
var kinds = map[string]string{
	"u8": "U8", "u16": "U16", "u32": "U32", "u64": "U64", "s32": "S32",
	"string": "String", "binary": "Binary", "flag": "Flag", "nest": "Nest",
}

// writePolicy makes package controlplane's share: the policy of each set and of each operation.
func writePolicy(s *Spec) ([]byte, error) {
	w := &writer{}
	w.line(head+policyHead, "controlplane")
	w.line("// operations are the commands that can be asked for.\nvar operations = map[uint8]operation{")
	for _, op := range s.Operations.List {
		if op.Do == nil && op.Dump == nil {
			continue
		}
		w.line("abi.%s: {\nname: %q,", ident("cmd", op.Name), op.Name)
		if slices.Contains(op.Flags, "admin-perm") {
			w.line("admin: true,")
		}
		w.pick("do", op, op.Do)
		w.pick("dump", op, op.Dump)
		w.line("},")
	}
	w.line("}\n")
	for _, set := range s.reachable() {
		w.doc("set"+ident(set.Name), set.Doc)
		w.line("var set%s = &genl.Policy{Name: %q, Attrs: map[uint16]genl.Rule{", ident(set.Name), set.Name)
		for _, a := range set.Attributes {
			w.line("abi.%s: {%s},", ident("attr", set.Name, a.Name), s.rule(a))
		}
		w.line("}}\n")
	}
	return w.source()
}

// pick writes the policy of one form of an operation, if it has that form.
func (w *writer) pick(form string, op *Operation, x *Exchange) {
	if x == nil {
		return
	}
	w.line("%s: pick(%q, set%s,", form, op.Name, ident(op.Set))
	for _, name := range x.Request.Attributes {
		w.line("abi.%s,", ident("attr", op.Set, name))
	}
	w.line("),")
}

// reachable are the sets that requests can have, those in nests too, in the order of the specification.
func (s *Spec) reachable() (sets []*Set) {
	used := map[string]bool{}
	var use func(name string)
	use = func(name string) {
		if used[name] {
			return
		}
		used[name] = true
		for _, a := range s.set(name).Attributes {
			if a.Nested != "" {
				use(a.Nested)
			}
		}
	}
	for _, op := range s.Operations.List {
		if op.Do != nil || op.Dump != nil {
			use(op.Set)
		}
	}
	for _, set := range s.AttributeSets {
		if used[set.Name] {
			sets = append(sets, set)
		}
	}
	return sets
}

// rule is the inside of a genl.Rule literal.
func (s *Spec) rule(a *Attribute) string {
	f := []string{fmt.Sprintf("Name: %q", a.Name), "Kind: genl." + kinds[a.Type]}
	low, high := a.limits()
	if low != 0 {
		f = append(f, fmt.Sprintf("Min: %d", low))
	}
	if high != 0 {
		f = append(f, fmt.Sprintf("Max: %d", high))
	}
	if a.Multi {
		f = append(f, "Multi: true")
	}
	if a.Nested != "" {
		f = append(f, "Nest: set"+ident(a.Nested))
	}
	if d := s.definition(a.Enum); d != nil {
		f = append(f, s.values(a, d))
	}
	return strings.Join(f, ", ")
}

// limits are Min and Max of a genl.Rule.
func (a *Attribute) limits() (low, high uint64) {
	c := a.Checks
	switch {
	case c.ExactLen != nil:
		return *c.ExactLen, *c.ExactLen
	case a.Type == "s32" && (c.Min != nil || c.Max != nil):
		signedLow, signedHigh := int64(math.MinInt32), int64(math.MaxInt32)
		if c.Min != nil {
			signedLow = *c.Min
		}
		if c.Max != nil {
			signedHigh = *c.Max
		}
		return uint64(signedLow), uint64(signedHigh)
	}
	if c.MinLen != nil {
		low = *c.MinLen
	}
	if c.MaxLen != nil {
		high = *c.MaxLen
	}
	if c.Min != nil {
		low = uint64(*c.Min)
	}
	if c.Max != nil {
		high = uint64(*c.Max)
	}
	return low, high
}

// values are the values or the bits that an attribute of an enum may have.
func (s *Spec) values(a *Attribute, d *Definition) string {
	if d.Type == "enum" && !a.EnumAsFlags {
		var all []string
		for _, e := range d.Entries {
			all = append(all, fmt.Sprintf("{Number: %d, Word: %q}", e.index, e.Name))
		}
		return "Enum: []genl.Value{" + strings.Join(all, ", ") + "}"
	}
	mask := uint64(0)
	for _, e := range d.Entries {
		mask |= 1 << e.index
	}
	return fmt.Sprintf("Mask: %#x", mask)
}
