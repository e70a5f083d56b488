package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// options are what stands before the object.
type options struct {
	json, pretty, stats, details, oneline, brief bool
	human, stamps, force, version, help          bool
	batch, netns                                 string
	wait                                         time.Duration
}

// option is one row of the table of options.
type option struct {
	short, long string // without the dash; one of them may be missing
	value       string // metavar, "" = none
	doc         string
	set         func(o *options, value string) error
}

const defaultWait = 10 * time.Second

func on(at func(*options) *bool) func(*options, string) error {
	return func(o *options, _ string) error {
		*at(o) = true
		return nil
	}
}

// optionTable is in the order of help.
var optionTable = []option{
	{"V", "Version", "", "print the version", on(func(o *options) *bool { return &o.version })},
	{"j", "json", "", "answers as JSON, every document with \"schema\": 1", on(func(o *options) *bool { return &o.json })},
	{"p", "pretty", "", "JSON with line breaks", on(func(o *options) *bool { return &o.pretty })},
	{"s", "statistics", "", "counters too", on(func(o *options) *bool { return &o.stats })},
	{"d", "details", "", "settings with their origin (default or set), sessions, rules, history; exact bytes", on(func(o *options) *bool { return &o.details })},
	{"o", "oneline", "", "each record on one line, its line breaks as \\", on(func(o *options) *bool { return &o.oneline })},
	{"br", "brief", "", "a table, one line for each node", on(func(o *options) *bool { return &o.brief })},
	{"h", "human", "", "counters in human units; alone: this text", on(func(o *options) *bool { return &o.human })},
	{"t", "timestamp", "", "monitor: the time before each line (with -d also its number)", on(func(o *options) *bool { return &o.stamps })},
	{"n", "netns", "NETNS", "work in that network namespace, a name of ip-netns(8) or a path", func(o *options, s string) error {
		if s == "" {
			return fmt.Errorf("the namespace has no name")
		}
		o.netns = s
		return nil
	}},
	{"", "wait", "TIME", "how long start waits for a remote to be established (10s); 0s does not wait", func(o *options, s string) error {
		ms, err := parseTime(s)
		o.wait = time.Duration(ms) * time.Millisecond
		return err
	}},
	{"b", "batch", "FILE", "read commands from FILE, - is the standard input", func(o *options, s string) error {
		if s == "" {
			return fmt.Errorf("the file has no name")
		}
		o.batch = s
		return nil
	}},
	{"", "force", "", "go on with a batch after a failed line", on(func(o *options) *bool { return &o.force })},
	{"", "help", "", "print this text", on(func(o *options) *bool { return &o.help })},
}

// names are the ways to write o on the command line.
func (o option) names() (all []string) {
	for _, s := range []string{o.short, o.long} {
		if s != "" {
			all = append(all, "-"+s)
		}
	}
	return all
}

// usage is o as help writes it: -j[son], -b[atch] FILE, -n[etns] NETNS.
func (o option) usage() string {
	text := "-" + o.long
	if rest, ok := strings.CutPrefix(o.long, o.short); ok && o.short != "" {
		text = "-" + o.short + "[" + rest + "]"
	}
	return strings.TrimSpace(text + " " + o.value)
}

// findOption finds the row of a word that begins with a dash; two dashes are
// as good as one.
func findOption(word string) (option, bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-")
	for _, o := range optionTable {
		if name != "" && (name == o.short || name == o.long) {
			return o, true
		}
	}
	return option{}, false
}

// parseOptions reads the options at the beginning of l and returns the place
// of the first word behind them. The error is a *fault.
func parseOptions(l line) (o options, pos int, err error) {
	o.wait = defaultWait
	wrong := func(at int, format string, args ...any) error {
		return &fault{code: exitMistake, text: fmt.Sprintf(format, args...), line: l, at: at}
	}
	for pos < len(l.words) && strings.HasPrefix(l.words[pos], "-") && len(l.words[pos]) > 1 {
		word := l.words[pos]
		row, ok := findOption(word)
		if !ok {
			return o, pos, wrong(pos, "unknown option %q: expected %s", word, oneOf(optionNames()))
		}
		value := ""
		if row.value != "" {
			if pos++; pos == len(l.words) {
				return o, pos, wrong(pos, "option %q needs a value: %s", word, row.value)
			}
			value = l.words[pos]
		}
		if err := row.set(&o, value); err != nil {
			return o, pos, wrong(pos, "%s", err)
		}
		pos++
	}
	if o.batch != "" && pos < len(l.words) {
		return o, pos, wrong(pos, "with -batch the commands come from the file: leave %q out", l.words[pos])
	}
	return o, pos, nil
}

func optionNames() (all []string) {
	for _, o := range optionTable {
		all = append(all, o.names()[0])
	}
	slices.Sort(all)
	return all
}
