package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
)

// Exit codes. They never change their meaning.
const (
	exitDone     = 0
	exitMistake  = 1 // the command was not understood; nothing was sent
	exitRefused  = 2 // the daemon or the kernel refused
	exitPartly   = 3 // of a batch, some was done
	exitNoDaemon = 4 // no daemon answers
	exitNotYet   = 5 // a wait ran out; the node keeps trying
)

// line is the words of a command and where they come from.
type line struct {
	where string // FILE:LINE of a batch, else ""
	words []string
}

// fault is why a command did not succeed.
type fault struct {
	code int
	text string // a sentence, without its full stop
	line line
	at   int // the word to point at; len(words) = behind the last; -1 = none
	part int // of a list with commas the element to point at, from 1; 0 = the whole word
}

func (f *fault) Error() string { return f.text }

// report prints f: one line, and where a word is to blame the command with a
// mark under that word.
func (f *fault) report(w io.Writer) {
	where := ""
	if f.line.where != "" {
		where = f.line.where + ": "
	}
	end := "."
	if text := strings.TrimRight(f.text, " ."); strings.HasSuffix(text, "?") {
		end = ""
	}
	fmt.Fprintf(w, "Error: %s%s%s\n", where, clean(strings.TrimRight(f.text, " .")), end)
	if f.at < 0 || len(f.line.words) == 0 {
		return
	}
	command, mark := "  dstctl", ""
	for i, word := range f.line.words {
		command += " "
		shown := shownWord(word)
		if i == f.at {
			mark = caret(command, shown)
			if parts := strings.Split(shown, ","); f.part > 0 && f.part <= len(parts) {
				mark = caret(command+strings.Join(append(parts[:f.part-1:f.part-1], ""), ","), parts[f.part-1])
			}
		}
		command += shown
	}
	if mark == "" {
		mark = caret(command+" ", "")
	}
	fmt.Fprintf(w, "%s\n%s\n", command, mark)
}

// caret is a line that marks the word behind text.
func caret(text, word string) string {
	return strings.Repeat(" ", utf8.RuneCountInString(text)) + "^" + strings.Repeat("~", max(utf8.RuneCountInString(word)-1, 0))
}

// shownWord is a word as a shell would need it, in printable characters.
func shownWord(s string) string {
	switch {
	case s != clean(s) || strings.Contains(s, "'"):
		return strconv.Quote(s)
	case s == "" || strings.ContainsAny(s, " \"\\$`#&|;<>()*?~"):
		return "'" + s + "'"
	}
	return s
}

// clean makes text fit for a terminal: what others wrote (a peer's reason, a
// name) must not move the cursor.
func clean(s string) string {
	ok := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if ok(r) {
			return r
		}
		return '?'
	}, s)
}

// oneOf lists what was expected.
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}

// nearest is the one of all that word was probably meant to be, or "".
func nearest(word string, all []string) string {
	best, least := "", 3
	for _, s := range all {
		if d := distance(word, s); d < least && 2*d <= len(s) {
			best, least = s, d
		}
	}
	return best
}

// distance is how many letters must be changed, added, removed or swapped with
// their neighbour to make b of a; 3 if they differ by that much in length.
func distance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// faultOf is what to tell the user about err, which r met; r may be nil.
func faultOf(err error, r *request) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	f := &fault{code: exitRefused, text: sentence(err), at: -1}
	if r != nil {
		f.line = r.line
	}
	switch {
	case errors.Is(err, client.ErrNoDaemon):
		f.code = exitNoDaemon
		f.text = "no dstd answers in this network namespace: start it (systemctl start dstd), or name its namespace with -n"
	case errors.Is(err, errSilent):
		f.code = exitNoDaemon
		f.text = "dstd does not answer: it hangs, or another program holds its netlink port: look at its log (journalctl -u dstd)"
	}
	attr, nth, ok := blamed(err)
	if r == nil || !ok {
		return f
	}
	if attr == abi.AttrNodeFlagsMask { // one word says the flag and that it changes
		attr = abi.AttrNodeFlags
	}
	if at, given := r.at[attr]; given {
		f.at = at
		if attr == abi.AttrNodeAddress { // the only list of words; report leaves a single one whole
			f.part = nth + 1
		}
	} else if slices.Contains(r.verb.attrs(), attr) { // it should have been given
		f.at = len(r.line.words)
	}
	return f
}

// sentence is err without the errno's text at its end, where what stands before
// says what to do: "… exists: choose another name: file exists".
func sentence(err error) string {
	text := err.Error()
	errno, ok := errors.AsType[unix.Errno](err)
	if !ok {
		return text
	}
	short, cut := strings.CutSuffix(text, ": "+errno.Error())
	advice := short[strings.LastIndex(short, ": ")+1:]
	if !cut || len(advice) == len(short) || len(strings.Fields(advice)) < 3 {
		return text
	}
	return short
}
