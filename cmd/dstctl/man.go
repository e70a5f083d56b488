package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// writeManual prints dstctl(8) as roff, made of the table and of the prose in
// prose.go.
func writeManual(w io.Writer) {
	m := &manual{w}
	m.line(`.\" Written by "dstctl __man": change cmd/dstctl, then make generate.`)
	m.line(`.TH DSTCTL 8 "" "dst" "System Administration"`)
	m.line(".ad l")
	m.section("NAME")
	m.line(`dstctl \- configure and show the network block device dst`)
	m.section("SYNOPSIS")
	m.line(`.B dstctl`)
	m.line(`[ \fIOPTIONS\fR ] \fIOBJECT\fR { \fICOMMAND\fR | \fBhelp\fR }`)
	m.line(`.P`)
	m.line(`.B dstctl`)
	m.line(`[ \fB\-force\fR ] \fB\-batch\fR \fIFILE\fR`)
	m.prose("DESCRIPTION", proseDescription)
	m.section("OPTIONS")
	m.text("Options stand before the object. Each has a short and a long form; two dashes are as good as one.")
	for _, o := range optionTable {
		m.item(strings.Join(o.names(), ", ")+" ", o.value, upper(o.doc)+".")
	}
	m.section("COMMANDS")
	for _, o := range objects {
		for _, v := range o.verbs {
			m.command(o, v)
		}
	}
	m.section("VALUES")
	for _, k := range kinds {
		m.item("", k.term(), upper(k.doc)+".")
	}
	m.prose("OUTPUT", proseOutput)
	m.prose("BATCH FILES", proseBatch)
	m.section("EXIT STATUS")
	for code, text := range proseExit {
		m.item(fmt.Sprint(code), "", text)
	}
	m.prose("ABBREVIATIONS", proseAbbreviations)
	m.section("EXAMPLES")
	for _, o := range objects {
		for _, v := range o.verbs {
			for _, e := range v.example {
				m.item("dstctl "+e, "", v.doc)
			}
		}
	}
	m.section("SEE ALSO")
	m.line(`.BR dstd (8),`)
	m.line(`.BR dst\-security (7),`)
	m.line(`.BR ip (8),`)
	m.line(`.BR ip\-netns (8)`)
}

// manual writes roff.
type manual struct{ w io.Writer }

func (m *manual) line(s string) { fmt.Fprintln(m.w, s) }

func (m *manual) section(name string) { m.line(".SH " + name) }

// text writes one paragraph's words, a sentence a line.
func (m *manual) text(s string) {
	for sentence := range strings.SplitSeq(sentenceEnd.ReplaceAllString(s, "$1.\n"), "\n") {
		m.line(roff(sentence))
	}
}

var sentenceEnd = regexp.MustCompile(`(\S)\. `)

// prose writes a section of paragraphs.
func (m *manual) prose(name string, paragraphs []string) {
	m.section(name)
	for i, p := range paragraphs {
		if i > 0 {
			m.line(".P")
		}
		m.text(p)
	}
}

// item writes a tagged paragraph: bold words, then a value in italics.
func (m *manual) item(bold, value, text string) {
	tag := ""
	if bold = strings.TrimSpace(bold); bold != "" {
		tag = `\fB` + roff(bold) + `\fR`
	}
	if value != "" {
		tag = strings.TrimSpace(tag + ` \fI` + roff(value) + `\fR`)
	}
	m.line(".TP")
	m.line(tag)
	m.text(text)
}

// command writes one row of the table.
func (m *manual) command(o *object, v *verb) {
	m.line(".SS dstctl " + roff(strings.TrimSpace(o.name+" "+v.name)))
	for _, piece := range synopsis(o, v) {
		m.line(strings.ReplaceAll(roff(piece), " ", `\ `) + `\&`) // stays on one line, ends no sentence
	}
	m.line(".P")
	m.text(v.doc)
	if v.more != "" {
		m.text(v.more)
	}
	for _, a := range v.args {
		text := upper(a.doc)
		if limits := a.limits(); limits != "" {
			text += "; " + limits
		}
		value := a.metavar()
		if a.word == "" && a.choice != nil {
			m.item(value, "", text+".")
		} else {
			m.item(a.word, value, text+".")
		}
	}
	if len(v.also) > 0 {
		m.line(".P")
		m.text("Also written " + strings.Join(v.also, ", ") + ".")
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// roff is s as plain text of a manual page.
func roff(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	s = strings.ReplaceAll(s, "...", `.\|.\|.`) // not the end of a sentence
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
