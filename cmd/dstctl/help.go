package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// helpWidth is the widest line of help.
const helpWidth = 79

// writeUsage prints what dstctl understands at its first level.
func writeUsage(w io.Writer) {
	fmt.Fprintln(w, "Usage: dstctl [ OPTIONS ] OBJECT { COMMAND | help }")
	fmt.Fprintln(w, "       dstctl [ -force ] -batch FILE")
	var opts []string
	for _, o := range optionTable {
		opts = append(opts, o.usage())
	}
	fmt.Fprintln(w, wrap("OBJECT := { ", "           ", alternatives(objectNames())))
	fmt.Fprintln(w, wrap("OPTIONS := { ", "            ", alternatives(opts)))
	fmt.Fprintln(w)
	for _, o := range objects {
		fmt.Fprintf(w, "  %-10s %s\n", o.name, o.doc)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "dstctl OBJECT help and dstctl OBJECT COMMAND help say more.")
}

// alternatives are pieces of "{ a | b }" behind the first brace, each of which
// stays on one line.
func alternatives(words []string) []string {
	pieces := make([]string, len(words))
	for i, word := range words {
		pieces[i] = word + " |"
	}
	pieces[len(pieces)-1] = words[len(words)-1] + " }"
	return pieces
}

// writeHelp prints the help of an object, or of one command of it.
func writeHelp(w io.Writer, o *object, v *verb) {
	verbs := o.verbs
	if v != nil {
		verbs = []*verb{v}
	}
	lead := "Usage: "
	for _, one := range verbs {
		fmt.Fprintln(w, wrap(lead+"dstctl ", "               ", synopsis(o, one)))
		lead = "       "
	}
	if len(verbs) > 1 {
		writeKinds(w, verbs)
		return
	}
	fmt.Fprintf(w, "\n%s\n", wrap("", "", strings.Fields(verbs[0].doc+" "+verbs[0].more)))
	if len(verbs[0].args) > 0 {
		fmt.Fprintln(w)
	}
	for _, a := range verbs[0].args {
		writeArg(w, a)
	}
	writeKinds(w, verbs)
	for i, e := range verbs[0].example {
		if i == 0 {
			fmt.Fprintln(w, "\nExamples:")
		}
		fmt.Fprintf(w, "  dstctl %s\n", e)
	}
}

func writeArg(w io.Writer, a *arg) {
	const indent = "                          "
	label := "  " + a.label()
	if len(label) < len(indent)-1 {
		label += strings.Repeat(" ", len(indent)-len(label))
	} else {
		label += "\n" + indent
	}
	text := a.doc
	if limits := a.limits(); limits != "" {
		text += "; " + limits
	}
	fmt.Fprintln(w, wrap(label, indent, strings.Fields(text)))
}

// limits are the limits of a number or time, in words; "" if there are none.
func (a *arg) limits() string {
	switch {
	case a.kind == kindNumber:
		return fmt.Sprintf("%d to %d", a.min, a.max)
	case a.kind == kindTime && a.zero == "" && a.min > 1:
		return textTime(a.min) + " to " + textTime(a.max)
	}
	return ""
}

// writeKinds explains the values that the commands take.
func writeKinds(w io.Writer, verbs []*verb) {
	first := true
	for _, k := range kinds {
		if !slices.ContainsFunc(verbs, func(v *verb) bool { return v.takes(k) }) {
			continue
		}
		if first {
			fmt.Fprintln(w)
		}
		first = false
		fmt.Fprintln(w, wrap(k.term()+" := ", "        ", strings.Fields(k.doc)))
	}
}

// takes tells whether a value of v is of kind k.
func (v *verb) takes(k *kind) bool {
	is := func(a *arg) bool { return a.kind != nil && a.kind.name == k.name }
	return slices.ContainsFunc(v.args, func(a *arg) bool { return is(a) || slices.ContainsFunc(a.choice, is) })
}

// synopsis is the grammar of v in pieces that each stay on one line.
func synopsis(o *object, v *verb) []string {
	pieces := []string{o.name}
	switch {
	case v.optional && len(v.args) == 0:
		return []string{o.name, "[ " + v.name + " ]"}
	case v.optional:
		return []string{o.name, "[ " + v.name + " [ " + v.args[0].label() + " ] ]"}
	case v.name != "":
		pieces = append(pieces, v.name)
	}
	done := map[string]bool{}
	for _, a := range v.args {
		if a.group != "" && done[a.group] || a.with != "" && done[a.with] {
			continue
		}
		done[a.group], done[a.word] = true, true
		text := a.label()
		for _, b := range v.args {
			if b != a && a.group != "" && b.group == a.group {
				text += " | " + b.label()
			}
			if b != a && b.with != "" && b.with == a.word {
				if a.with == "" {
					text += " [ " + b.label() + " ]"
				} else {
					text += " " + b.label()
				}
			}
		}
		switch {
		case a.need && a.word == "" && a.choice != nil:
			text = "{ " + text + " }"
		case !a.need:
			text = "[ " + text + " ]"
		}
		pieces = append(pieces, text)
	}
	return pieces
}

// wrap sets pieces behind first, breaking lines at helpWidth; lines behind the
// first begin with indent.
func wrap(first, indent string, pieces []string) string {
	var b strings.Builder
	b.WriteString(first)
	column := len(first) - strings.LastIndexByte(first, '\n') - 1
	for i, piece := range pieces {
		switch {
		case i == 0:
		case column+1+len(piece) > helpWidth:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(piece)
		column += len(piece)
	}
	return b.String()
}

// runHelp prints the help of an object or command named behind "help".
func runHelp(s *session, r *request) error {
	words := r.line.words[r.rest:]
	if len(words) == 0 {
		writeUsage(s.out)
		return nil
	}
	o := findObject(words[0])
	if o == nil {
		return &fault{code: exitMistake, line: r.line, at: r.rest, text: fmt.Sprintf("unknown object %q: expected %s", words[0], oneOf(objectNames()))}
	}
	if len(words) == 1 || o.bare() {
		writeHelp(s.out, o, nil)
		return nil
	}
	v := o.findVerb(words[1])
	if v == nil {
		return &fault{code: exitMistake, line: r.line, at: r.rest + 1, text: fmt.Sprintf("unknown command %q of %s: expected %s", words[1], o.name, oneOf(o.verbNames()))}
	}
	writeHelp(s.out, o, v)
	return nil
}
