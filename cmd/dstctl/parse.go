package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dst/abi"
)

// request is a command that was understood: the table's row and its values.
type request struct {
	verb   *verb
	object *object
	line   line           // the words, for pointing at one
	at     map[uint16]int // attribute → word that it came from
	help   bool           // the command asks for its help only
	rest   int            // the first word behind the object

	name   string // "" = all
	node   abi.Node
	rule   abi.Rule
	permAt int // the word that is the rule's permission; 0 = none
	crypto abi.Crypto
	force  bool
	file   string // key gen
}

// started tells whether the command starts the node that it adds.
func (r *request) started() bool { return r.node.Flags&abi.NodeFlagStarted != 0 }

// parser reads the words of one command.
type parser struct {
	ctx    context.Context
	names  names
	abbrev bool // a unique prefix of an object or command will do
	line   line
	pos    int // the next word
	req    *request
	seen   map[*arg]bool
	last   int // the word that carries the value being stored
}

// parse understands the command that begins at word pos of l, or says what is
// wrong with it: the error is a *fault with exit code 1.
func parse(ctx context.Context, n names, l line, pos int, abbrev bool) (*request, error) {
	p := &parser{ctx: ctx, names: n, abbrev: abbrev, line: l, pos: pos, seen: map[*arg]bool{},
		req: &request{line: l, at: map[uint16]int{}}}
	if err := p.command(); err != nil {
		return nil, err
	}
	if p.req.help {
		return p.req, nil
	}
	if err := p.arguments(); err != nil {
		return nil, err
	}
	return p.req, p.complete()
}

// command reads the object and its command.
func (p *parser) command() error {
	word, _ := p.next()
	o := findObject(word)
	if o == nil {
		name, err := p.prefix(word, "object %q", objectNames())
		if err != nil {
			return err
		}
		o = findObject(name)
	}
	p.req.object, p.req.rest = o, p.pos
	if o.bare() {
		p.req.verb = o.verbs[0]
	} else if err := p.verb(o); err != nil {
		return err
	}
	if o.name != "help" && p.pos == len(p.line.words)-1 && p.line.words[p.pos] == "help" {
		p.req.help = true
	}
	return nil
}

func (p *parser) verb(o *object) error {
	word, ok := p.next()
	if !ok {
		if p.req.verb = o.fallback(); p.req.verb == nil {
			return p.mistake(p.pos, "%s needs a command: %s", o.name, oneOf(o.verbNames()))
		}
		return nil
	}
	v := o.findVerb(word)
	if v == nil && word != "help" {
		name, err := p.prefix(word, "command %q of "+o.name, append(o.verbNames(), "help"))
		if err != nil {
			return err
		}
		v = o.findVerb(name)
	}
	p.req.verb, p.req.help = v, v == nil // only help is no command of o
	return nil
}

// prefix finds the one of all that begins with word, where that is allowed.
func (p *parser) prefix(word, what string, all []string) (string, error) {
	var fit []string
	for _, s := range all {
		if word != "" && strings.HasPrefix(s, word) {
			fit = append(fit, s)
		}
	}
	switch {
	case p.abbrev && len(fit) == 1:
		return fit[0], nil
	case p.abbrev && len(fit) > 1:
		return "", p.mistake(p.pos-1, "%q could be %s: write more of it", word, strings.Join(fit, " or "))
	}
	return "", p.unknown(p.pos-1, what, all, objectNames())
}

// arguments reads the places, then the words in any order.
func (p *parser) arguments() error {
	v := p.req.verb
	for _, a := range v.places() {
		if p.pos == len(p.line.words) || a.passed(v, p.line.words[p.pos]) {
			break
		}
		if err := p.value(a, p.pos); err != nil {
			return err
		}
	}
	for {
		at := p.pos
		word, ok := p.next()
		if !ok {
			return nil
		}
		if err := p.word(v, at, word); err != nil {
			return err
		}
	}
}

func (p *parser) word(v *verb, at int, word string) error {
	all := v.words()
	i := slices.IndexFunc(all, func(a *arg) bool { return a.word == word })
	if i < 0 {
		if len(all) == 0 {
			return p.mistake(at, "unknown word %q: nothing may follow here", word)
		}
		return p.unknown(at, "word %q", p.open(v), nil)
	}
	a := all[i]
	if p.seen[a] {
		return p.mistake(at, "%q is given twice: leave one out", word)
	}
	for b := range p.seen {
		if a.group != "" && b.group == a.group {
			return p.mistake(at, "%q contradicts %q: leave one out", word, b.word)
		}
	}
	return p.value(a, at)
}

// open lists the words of v that may still be given.
func (p *parser) open(v *verb) (words []string) {
	for _, a := range v.words() {
		taken := p.seen[a]
		for b := range p.seen {
			taken = taken || a.group != "" && a.group == b.group
		}
		if !taken {
			words = append(words, a.word)
		}
	}
	return words
}

// value reads what follows the word of a, or the place a, and stores it.
func (p *parser) value(a *arg, at int) error {
	p.seen[a] = true
	if a.choice != nil {
		return p.choose(a)
	}
	p.last = at
	s := ""
	if a.kind != nil {
		var ok bool
		if s, ok = p.next(); !ok {
			return p.mistake(p.pos, "%q needs a value: %s", a.word, a.metavar())
		}
		p.last = p.pos - 1
	}
	if err := a.put(p, a, s); err != nil {
		if _, ok := findOption(s); ok && strings.HasPrefix(s, "-") {
			return p.mistake(p.last, "options stand before the object: dstctl %s %s", s, p.req.object.name)
		}
		return p.mistake(p.last, "%s", plain(err))
	}
	if _, ok := p.req.at[a.attr]; !ok {
		p.req.at[a.attr] = p.last
	}
	return nil
}

// choose reads one of the words that a allows.
func (p *parser) choose(a *arg) error {
	word, ok := p.next()
	if !ok {
		return p.mistake(p.pos, "%q needs a value: %s", a.word, a.metavar())
	}
	all := make([]string, len(a.choice))
	for i, c := range a.choice {
		if all[i] = c.word; c.word == word {
			if err := p.value(c, p.pos-1); err != nil {
				return err
			}
			if _, ok := p.req.at[a.attr]; !ok {
				p.req.at[a.attr] = p.last
			}
			return nil
		}
	}
	return p.unknown(p.pos-1, "word %q", all, nil)
}

// complete checks that nothing is missing.
func (p *parser) complete() error {
	if v := p.req.verb; v.some && !slices.ContainsFunc(v.words(), func(a *arg) bool { return p.seen[a] }) {
		return p.mistake(len(p.line.words), "nothing to %s: expected %s", v.name, oneOf(p.open(v)))
	}
	for _, a := range p.req.verb.args {
		if a.need && !p.seen[a] {
			return p.mistake(len(p.line.words), "%s is missing", a.label())
		}
		if a.with == "" || !p.seen[a] {
			continue
		}
		with := strings.Split(a.with, "|")
		if !slices.ContainsFunc(p.req.verb.args, func(b *arg) bool { return p.seen[b] && slices.Contains(with, b.word) }) {
			return p.mistake(len(p.line.words), "%q needs %q beside it", a.word, with[0])
		}
	}
	return nil
}

func (p *parser) next() (string, bool) {
	if p.pos >= len(p.line.words) {
		return "", false
	}
	p.pos++
	return p.line.words[p.pos-1], true
}

// unknown says that the word at is none of what was expected, and what it may
// have been meant to be; others are words that would be right elsewhere. what
// has a place for the word.
func (p *parser) unknown(at int, what string, expected, others []string) error {
	word := p.line.words[at]
	text := fmt.Sprintf("unknown "+what, word)
	if len(expected) == 0 {
		return p.mistake(at, "%s: nothing more is expected", text)
	}
	text += ": expected " + oneOf(expected)
	near := nearest(word, expected)
	switch {
	case slices.Contains(others, word):
		return p.mistake(at, "%s; did you mean \"dstctl %s\"?", text, word)
	case near != "":
		return p.mistake(at, "%s; did you mean %q?", text, near)
	}
	if name := p.req.name; name != "" && p.line.words[at-1] == name &&
		slices.ContainsFunc(p.req.verb.words(), func(a *arg) bool { return a.word == name }) {
		return p.mistake(at, "unknown "+what+": %q was read as the name of the node; is the name missing?", word, name)
	}
	return p.mistake(at, "%s", text)
}

func (p *parser) mistake(at int, format string, args ...any) error {
	return &fault{code: exitMistake, text: fmt.Sprintf(format, args...), line: p.line, at: at}
}
