package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"dst/abi"
)

// completeTime is how long completion waits for the names that the daemon
// knows: a shell must not hang.
const completeTime = 100 * time.Millisecond

// filesMark is a line of the answer that asks the shell to add paths.
const filesMark = ":files"

// complete prints what the last of words may become, one candidate a line.
func (s *session) complete(words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	want := expected(words[:len(words)-1], last)
	if want.names || want.keys {
		if o, _, _ := parseOptions(line{words: words[:len(words)-1]}); o.netns != "" && s.enter != nil {
			// the names are those of that namespace; where it cannot be entered there are none
			_ = s.enter(o.netns, append([]string{"__complete", "--"}, withoutNetns(words)...))
			return
		}
		if want.keys {
			want.words = append(want.words, s.liveKeys(words)...)
		} else {
			want.words = append(want.words, s.liveNames(want.of)...)
		}
	}
	for _, word := range want.words {
		if strings.HasPrefix(word, last) {
			s.printf("%s\n", clean(word))
		}
	}
	if want.files {
		s.printf("%s\n", filesMark)
	}
}

// wanted is what may stand at a place of the command.
type wanted struct {
	words []string
	names bool   // names of nodes
	of    string // of which kind: export, remote, or an object that takes any
	files bool
	keys  bool // ids of keys
}

// expected is what may follow the words before, where last has been typed.
func expected(before []string, last string) wanted {
	pos := 0
	for pos < len(before) && strings.HasPrefix(before[pos], "-") && len(before[pos]) > 1 {
		row, ok := findOption(before[pos])
		if pos++; ok && row.value != "" {
			if pos == len(before) {
				return wanted{files: row.long == "batch"}
			}
			pos++
		}
	}
	if pos == len(before) {
		if strings.HasPrefix(last, "-") {
			return wanted{words: optionNames()}
		}
		return wanted{words: objectNames()}
	}
	o := findObject(before[pos])
	if o == nil {
		return wanted{}
	}
	before = before[pos+1:]
	if o.name == "help" {
		return expectedHelp(before)
	}
	if o.bare() {
		return expectedArg(o, o.verbs[0], before)
	}
	if len(before) == 0 {
		return wanted{words: append(o.verbNames(), "help")}
	}
	v := o.findVerb(before[0])
	if v == nil {
		return wanted{}
	}
	return expectedArg(o, v, before[1:])
}

func expectedHelp(before []string) wanted {
	if len(before) == 0 {
		return wanted{words: objectNames()}
	}
	if o := findObject(before[0]); len(before) == 1 && o != nil && !o.bare() {
		return wanted{words: o.verbNames()}
	}
	return wanted{}
}

// expectedArg walks the arguments of v as the parser does.
func expectedArg(o *object, v *verb, before []string) wanted {
	places := v.places()
	seen := &parser{seen: map[*arg]bool{}}
	for i := 0; ; {
		var a *arg
		switch {
		case len(places) > 0 && i < len(before) && places[0].passed(v, before[i]):
			places = places[1:]
			continue
		case len(places) > 0:
			a, places = places[0], places[1:]
		case i == len(before):
			return wanted{words: seen.open(v)}
		default:
			at := slices.IndexFunc(v.words(), func(a *arg) bool { return a.word == before[i] })
			if at < 0 {
				return wanted{}
			}
			a = v.words()[at]
			i++
		}
		seen.seen[a] = true
		if a.choice != nil {
			if i == len(before) {
				return valuesOf(o, v, a)
			}
			at := slices.IndexFunc(a.choice, func(c *arg) bool { return c.word == before[i] })
			if at < 0 {
				return wanted{}
			}
			a = a.choice[at]
			i++
		}
		if a.kind != nil {
			if i == len(before) {
				return valuesOf(o, v, a)
			}
			i++
		}
	}
}

// valuesOf is what may stand for the value of a.
func valuesOf(o *object, v *verb, a *arg) (w wanted) {
	for _, c := range a.choice {
		w.words = append(w.words, c.word)
	}
	if !a.need && a.word == "" && a.choice != nil { // a place that may be left out: the words behind it are as good
		w.words = append(w.words, wordsOf(v.words())...)
	}
	if a.kind == nil {
		return w
	}
	w.words = append(w.words, a.kind.hints...)
	for _, word := range []string{a.zero, a.whole} {
		if word != "" {
			w.words = append(w.words, word)
		}
	}
	w.files, w.keys = a.kind.files, a.kind == kindKeyID
	w.names = a.kind.live && a.word == "" && v.name != "add" || o.name == "security" && a.kind == kindName
	w.of = o.name
	return w
}

// liveNames are the names of the nodes that a command of the object of may be
// about.
func (s *session) liveNames(of string) (names []string) {
	for _, n := range s.liveNodes() {
		switch {
		case of == "export" || of == "security":
			if n.Kind != abi.KindExport {
				continue
			}
		case of == "remote" && n.Kind != abi.KindRemote:
			continue
		}
		names = append(names, n.Name)
	}
	return names
}

// liveKeys are the ids of the keys of the nodes that words name.
func (s *session) liveKeys(words []string) (ids []string) {
	for _, n := range s.liveNodes() {
		if n.Status == nil || !slices.Contains(words, n.Name) {
			continue
		}
		for _, k := range n.Status.Keys {
			ids = append(ids, k.ID.String())
		}
	}
	return ids
}

// liveNodes are those of the daemon; none if it does not answer in time.
func (s *session) liveNodes() []*abi.Node {
	ctx, cancel := context.WithTimeout(s.ctx, completeTime)
	defer cancel()
	d, err := s.dial(ctx)
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	nodes, _ := d.List(ctx)
	return nodes
}

func wordsOf(args []*arg) (words []string) {
	for _, a := range args {
		words = append(words, a.word)
	}
	return words
}
