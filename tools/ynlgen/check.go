package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// words are names as YNL specifications write them.
var words = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// lengths says, of the types that are served, which checks they may have: by value or by length.
var lengths = map[string]struct{ value, length bool }{
	"u8": {value: true}, "u16": {value: true}, "u32": {value: true}, "u64": {value: true}, "s32": {value: true},
	"string": {length: true}, "binary": {length: true}, "flag": {}, "nest": {},
}

// faults collects what is wrong with a specification.
type faults []error

func (f *faults) add(where, format string, args ...any) {
	*f = append(*f, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

// check holds the specification against the rules of the schema that its types cannot express.
func (s *Spec) check() error {
	var f faults
	if !words.MatchString(s.Name) || len(s.Name) > 15 {
		f.add("name", "%q is no family name of 1 to 15 letters", s.Name)
	}
	if s.Doc == "" || len(s.AttributeSets) == 0 || len(s.Operations.List) == 0 {
		f.add(s.Name, "doc, attribute-sets and operations are required")
	}
	if s.Protocol != "" && s.Protocol != "genetlink" {
		f.add("protocol", "%q instead of genetlink", s.Protocol)
	}
	seen := map[string]bool{}
	for _, d := range s.Definitions {
		f.name("definition "+d.Name, d.Name, seen)
		f.definition(d)
	}
	clear(seen)
	for _, set := range s.AttributeSets {
		f.name("attribute set "+set.Name, set.Name, seen)
		f.set(s, set)
	}
	f.operations(s)
	return errors.Join(f...)
}

// name demands a well-formed word that has not been seen.
func (f *faults) name(where, name string, seen map[string]bool) {
	if !words.MatchString(name) {
		f.add(where, "the name is not a word of small letters, digits and dashes")
	}
	if seen[name] {
		f.add(where, "the name is given twice")
	}
	seen[name] = true
}

func (f *faults) definition(d *Definition) {
	where := "definition " + d.Name
	if !slices.Contains([]string{"const", "enum", "flags"}, d.Type) {
		f.add(where, "type %q is not const, enum or flags", d.Type)
	}
	if (d.Type == "const") != (len(d.Entries) == 0) {
		f.add(where, "an enum or flags have entries, a const has none")
	}
	names, values := map[string]bool{}, map[uint64]bool{}
	for _, e := range d.Entries {
		in := where + ": " + e.Name
		f.name(in, e.Name, names)
		if values[e.index] {
			f.add(in, "the value %d is given twice", e.index)
		}
		if e.index >= 1<<32 || (d.Type == "flags" && e.index > 31) {
			f.add(in, "the value %d does not fit 32 bits", e.index)
		}
		values[e.index] = true
	}
}

func (f *faults) set(s *Spec, set *Set) {
	names, numbers := map[string]bool{}, map[int]bool{}
	for _, a := range set.Attributes {
		in := "attribute " + set.Name + "." + a.Name
		f.name(in, a.Name, names)
		if a.number < 1 || a.number > 0x3fff || numbers[a.number] {
			f.add(in, "the number %d is taken or not in 1 to 16383", a.number)
		}
		numbers[a.number] = true
		f.attribute(s, in, a)
	}
	if len(set.Attributes) == 0 {
		f.add("attribute set "+set.Name, "it is empty")
	}
}

func (f *faults) attribute(s *Spec, in string, a *Attribute) {
	may, ok := lengths[a.Type]
	if !ok {
		f.add(in, "type %q is not served", a.Type)
	}
	if (a.Type == "nest") != (a.Nested != "") || (a.Nested != "" && s.set(a.Nested) == nil) {
		f.add(in, "a nest, and nothing else, names an attribute set in nested-attributes: %q", a.Nested)
	}
	d := s.definition(a.Enum)
	if a.Enum != "" && (d == nil || d.Type == "const" || !may.value) {
		f.add(in, "enum %q is not defined, or the type is no integer", a.Enum)
	}
	if a.EnumAsFlags && a.Enum == "" {
		f.add(in, "enum-as-flags without enum")
	}
	c := a.Checks
	if (c.Min != nil || c.Max != nil) && !may.value {
		f.add(in, "min and max are for integers")
	}
	if (c.MinLen != nil || c.MaxLen != nil || c.ExactLen != nil) && !may.length {
		f.add(in, "lengths are for strings and binaries")
	}
	if c.ExactLen != nil && (c.MinLen != nil || c.MaxLen != nil) {
		f.add(in, "exact-len excludes min-len and max-len")
	}
	if (c.Min != nil && c.Max != nil && *c.Min > *c.Max) || (c.MinLen != nil && c.MaxLen != nil && *c.MinLen > *c.MaxLen) {
		f.add(in, "the least is more than the most")
	}
	for _, n := range []*int64{c.Min, c.Max} {
		if n != nil && *n < 0 && a.Type != "s32" {
			f.add(in, "%d: %s is not signed", *n, a.Type)
		}
	}
	for _, n := range []*uint64{c.MaxLen, c.ExactLen} {
		if n != nil && *n == 0 {
			f.add(in, "a length of 0: use a flag")
		}
	}
	if c.Max != nil && *c.Max == 0 {
		f.add(in, "a max of 0 allows nothing")
	}
}

func (f *faults) operations(s *Spec) {
	names, numbers := map[string]bool{}, map[int]bool{}
	for _, op := range s.Operations.List {
		in := "operation " + op.Name
		f.name(in, op.Name, names)
		if op.Doc == "" {
			f.add(in, "doc is required")
		}
		if op.number < 1 || op.number > 255 || numbers[op.number] {
			f.add(in, "the number %d is taken or not in 1 to 255", op.number)
		}
		numbers[op.number] = true
		for _, flag := range op.Flags {
			if flag != "admin-perm" {
				f.add(in, "flag %q is not admin-perm", flag)
			}
		}
		if op.Do == nil && op.Dump == nil && op.Event == nil {
			f.add(in, "it has no do, dump or event")
		}
		set := s.set(op.Set)
		if set == nil {
			f.add(in, "attribute set %q is not defined", op.Set)
			continue
		}
		for _, name := range op.names() {
			if set.attribute(name) == nil {
				f.add(in, "attribute set %s has no attribute %q", op.Set, name)
			}
		}
	}
}

// names are all attributes that the operation names.
func (op *Operation) names() (all []string) {
	for _, x := range []*Exchange{op.Do, op.Dump} {
		if x != nil {
			all = append(append(all, x.Request.Attributes...), x.Reply.Attributes...)
		}
	}
	if op.Event != nil {
		all = append(all, op.Event.Attributes...)
	}
	return all
}
