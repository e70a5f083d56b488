package main

import (
	"slices"
	"strings"
)

// The grammar is one table (objects.go): the parser, help, completion and the
// manual page are read off it, so that none of them can differ.

// object is the first word of a command. An object with one command that has
// no name is a command itself: start, del, show.
type object struct {
	name  string
	doc   string // one line, no full stop
	verbs []*verb
}

// verb is a command of an object.
type verb struct {
	name     string // "" = the object is the command
	also     []string
	optional bool   // what an object without a command means
	endless  bool   // it ends only when it is interrupted: not in a batch
	some     bool   // at least one word is needed
	doc      string // a sentence
	more     string // paragraphs for the manual
	args     []*arg
	run      runner
	example  []string // what follows "dstctl"
}

// arg is one argument of a command: a place (no word) or a word, and what
// follows it. Places come first, in order; words follow in any order.
type arg struct {
	word   string
	kind   *kind  // the value, nil if there is none or if choice says it
	choice []*arg // the value is one of these words, which may take a value of their own
	need   bool
	with   string // the word that this one needs beside it, one of several with | between
	group  string // of the words with the same group only one may be given
	attr   uint16 // the attribute that carries it, for pointing at the word that the daemon refused
	min    uint64 // limits of a number; milliseconds of a TIME
	max    uint64
	zero   string // the word that says 0: off, never
	whole  string // the word that says as much as there is: all
	doc    string
	put    putter
}

// putter checks the value of an argument and stores it in the request. Its
// error is the sentence of a mistake.
type putter func(p *parser, a *arg, s string) error

// runner carries out a command that was understood.
type runner func(s *session, r *request) error

// names are the words that mean v.
func (v *verb) names() []string { return append([]string{v.name}, v.also...) }

// metavar is what help calls the value of a, "" if it has none.
func (a *arg) metavar() string {
	switch {
	case a.choice != nil:
		all := make([]string, len(a.choice))
		for i, c := range a.choice {
			all[i] = c.label()
		}
		return strings.Join(all, "|")
	case a.kind == nil:
		return ""
	case a.zero != "":
		return a.kind.name + "|" + a.zero
	case a.whole != "":
		return a.kind.name + "|" + a.whole
	}
	return a.kind.name
}

// label is a as help writes it: its word and its value.
func (a *arg) label() string { return strings.TrimSpace(a.word + " " + a.metavar()) }

// passed tells whether the place a of v is left out where word stands.
func (a *arg) passed(v *verb, word string) bool {
	among := func(all []*arg) bool { return slices.ContainsFunc(all, func(b *arg) bool { return b.word == word }) }
	return !a.need && a.choice != nil && !among(a.choice) && among(v.words())
}

// bare tells whether o is a command itself.
func (o *object) bare() bool { return len(o.verbs) == 1 && o.verbs[0].name == "" }

// fallback is the command of o when none is given, nil if there must be one.
func (o *object) fallback() *verb {
	i := slices.IndexFunc(o.verbs, func(v *verb) bool { return v.optional || v.name == "" })
	if i < 0 {
		return nil
	}
	return o.verbs[i]
}

// verbNames lists the commands of o, without aliases.
func (o *object) verbNames() (names []string) {
	for _, v := range o.verbs {
		names = append(names, v.name)
	}
	return names
}

// objectNames lists all objects.
func objectNames() (names []string) {
	for _, o := range objects {
		names = append(names, o.name)
	}
	return names
}

// findObject finds an object by its full name.
func findObject(name string) *object {
	for _, o := range objects {
		if o.name == name || o.bare() && slices.Contains(o.verbs[0].also, name) {
			return o
		}
	}
	return nil
}

// findVerb finds a command of o by its full name or an alias.
func (o *object) findVerb(name string) *verb {
	for _, v := range o.verbs {
		if name != "" && slices.Contains(v.names(), name) {
			return v
		}
	}
	return nil
}

// places are the arguments without a word, in order; words are the others.
func (v *verb) places() (all []*arg) { return v.pick(func(a *arg) bool { return a.word == "" }) }
func (v *verb) words() (all []*arg)  { return v.pick(func(a *arg) bool { return a.word != "" }) }

func (v *verb) pick(ok func(*arg) bool) (all []*arg) {
	for _, a := range v.args {
		if ok(a) {
			all = append(all, a)
		}
	}
	return all
}
