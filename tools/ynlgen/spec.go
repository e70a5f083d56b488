package main

import (
	"bytes"
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
)

// Spec is a YNL genetlink specification, as far as this generator knows it.
type Spec struct {
	Name          string
	Protocol      string
	Doc           string
	Definitions   []*Definition
	AttributeSets []*Set `yaml:"attribute-sets"`
	Operations    struct{ List []*Operation }
}

// Definition is a constant, an enum or a set of flags.
type Definition struct {
	Name       string
	Type       string // const, enum, flags
	Doc        string
	Value      uint64 // of a const
	ValueStart uint64 `yaml:"value-start"`
	Entries    []*Entry
}

// Entry is one value of an enum, or one bit of flags.
type Entry struct {
	Name  string
	Value *uint64 // as written; the one before plus 1 if not
	Doc   string
	index uint64 // the value of an enum, the bit of flags
}

// Set is an attribute set.
type Set struct {
	Name       string
	Doc        string
	Attributes []*Attribute
}

// Attribute is one attribute of a set.
type Attribute struct {
	Name        string
	Type        string
	Value       *int // as written; the one before plus 1 if not
	Doc         string
	Enum        string
	EnumAsFlags bool   `yaml:"enum-as-flags"`
	Nested      string `yaml:"nested-attributes"`
	Multi       bool   `yaml:"multi-attr"`
	Checks      Checks
	number      int
}

// Checks are the limits of an attribute.
type Checks struct {
	Min, Max *int64
	MinLen   *uint64 `yaml:"min-len"`
	MaxLen   *uint64 `yaml:"max-len"`
	ExactLen *uint64 `yaml:"exact-len"`
}

// Operation is a command.
type Operation struct {
	Name   string
	Doc    string
	Value  *int
	Set    string `yaml:"attribute-set"`
	Flags  []string
	Do     *Exchange
	Dump   *Exchange
	Event  *List
	number int
}

// Exchange is a request and its reply.
type Exchange struct{ Request, Reply List }

// List names attributes.
type List struct{ Attributes []string }

// UnmarshalYAML takes an entry as a word or as a mapping. (A decoder started here would not refuse unknown keys.)
func (e *Entry) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&e.Name)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; !slices.Contains([]string{"name", "value", "doc"}, key) {
			return fmt.Errorf("line %d: field %s not found in an entry", n.Content[i].Line, key)
		}
	}
	type plain Entry
	return n.Decode((*plain)(e))
}

// Load reads and checks a specification and numbers everything in it. Errors: all that is wrong, one a line.
func Load(text []byte) (*Spec, error) {
	s := &Spec{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	s.number()
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// number gives every entry, attribute and operation its value: the one written, or one more than that before.
func (s *Spec) number() {
	for _, d := range s.Definitions {
		next := d.ValueStart
		for _, e := range d.Entries {
			if e.Value != nil {
				next = *e.Value
			}
			e.index = next
			next++
		}
	}
	for _, set := range s.AttributeSets {
		next := 1
		for _, a := range set.Attributes {
			if a.Value != nil {
				next = *a.Value
			}
			a.number = next
			next++
		}
	}
	next := 1
	for _, op := range s.Operations.List {
		if op.Value != nil {
			next = *op.Value
		}
		op.number = next
		next++
	}
}

// value is what stands for the entry in an attribute.
func (d *Definition) value(e *Entry) uint64 {
	if d.Type == "flags" {
		return 1 << e.index
	}
	return e.index
}

func (s *Spec) definition(name string) *Definition {
	return find(s.Definitions, func(d *Definition) bool { return d.Name == name })
}

func (s *Spec) set(name string) *Set {
	return find(s.AttributeSets, func(set *Set) bool { return set.Name == name })
}

func (set *Set) attribute(name string) *Attribute {
	return find(set.Attributes, func(a *Attribute) bool { return a.Name == name })
}

// find returns the first that is wanted, or nil.
func find[T any](all []*T, want func(*T) bool) *T {
	if i := slices.IndexFunc(all, want); i >= 0 {
		return all[i]
	}
	return nil
}
