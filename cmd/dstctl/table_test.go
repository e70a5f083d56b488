package main

import (
	"bytes"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"dst/abi"
)

// spec is what the tests need of abi/dst.yaml.
type spec struct {
	Sets []struct {
		Name       string
		Attributes []struct {
			Name, Type string
			Checks     struct {
				Min    uint64
				Max    uint64
				MaxLen uint64 `yaml:"max-len"`
			}
		}
	} `yaml:"attribute-sets"`
	Operations struct {
		List []struct {
			Name string
			Set  string `yaml:"attribute-set"`
			Do   struct {
				Request struct{ Attributes []string }
			}
			Dump struct {
				Request struct{ Attributes []string }
			}
		}
	}
	Definitions []struct {
		Name    string
		Entries yaml.Node
	}
}

func readSpec(t *testing.T) (s spec) {
	t.Helper()
	text, err := os.ReadFile("../../abi/dst.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTable holds what every row of the table must have.
func TestTable(t *testing.T) {
	word := regexp.MustCompile(`^[a-z][a-z-]*$`)
	for _, o := range objects {
		if !word.MatchString(o.name) || o.doc == "" || strings.HasSuffix(o.doc, ".") || len(o.verbs) == 0 {
			t.Errorf("object %q", o.name)
		}
		for _, v := range o.verbs {
			at := o.name + " " + v.name
			if v.run == nil || !strings.HasSuffix(v.doc, ".") || v.more != "" && !strings.HasSuffix(v.more, ".") || v.name == "" && !o.bare() {
				t.Errorf("%s: no runner, or no sentence", at)
			}
			for _, e := range v.example {
				if !strings.Contains(e, o.name) {
					t.Errorf("%s: example %q", at, e)
				}
			}
			testArgs(t, at, v)
		}
	}
	for i, a := range optionTable {
		for _, b := range optionTable[:i] {
			if a.long == b.long || a.short != "" && a.short == b.short || a.short == b.long {
				t.Errorf("options %q and %q are the same", a.long, b.long)
			}
		}
	}
}

func testArgs(t *testing.T, at string, v *verb) {
	words := map[string]bool{}
	places := true
	for _, a := range v.args {
		if places = places && a.word == ""; a.word == "" && !places {
			t.Errorf("%s: a place behind a word", at)
		}
		if a.word != "" && words[a.word] || a.word == "help" {
			t.Errorf("%s: %q twice, or help", at, a.word)
		}
		words[a.word] = true
		if a.doc == "" || strings.HasSuffix(a.doc, ".") || (a.put == nil) == (a.choice == nil) || a.kind != nil && a.choice != nil || a.word == "" && a.kind == nil && a.choice == nil {
			t.Errorf("%s %s: doc, put or value", at, a.label())
		}
		for _, c := range a.choice {
			if c.word == "" || c.put == nil {
				t.Errorf("%s %s: choice %q", at, a.label(), c.word)
			}
		}
		for with := range strings.SplitSeq(a.with, "|") {
			if a.with != "" && !slices.ContainsFunc(v.args, func(b *arg) bool { return b.word == with }) {
				t.Errorf("%s %s needs %q, which is no word", at, a.word, with)
			}
		}
	}
}

// TestSpec: each operation of the spec has a command, each attribute that it
// takes has a word, and the limits are the same.
func TestSpec(t *testing.T) {
	s := readSpec(t)
	commands := map[string][]string{"del-node": {"del"}, "add-remote": {"remote", "add"}, "add-export": {"export", "add"}, "crypto": {"crypto"},
		"security": {"security", "add"}, "start": {"start"}, "get": {"show"}, "security-del": {"security", "del"}, "security-get": {"security", "show"},
		"stats": {"stats"}, "sys": {"sys", "show"}, "subscribe": {"monitor"}, "set": nil, "unsubscribe": nil, "event": nil}
	own := []string{"flags-mask", "cipher-key", "hash-key", "op"} // sent by the way, or never by hand
	for _, op := range s.Operations.List {
		words, known := commands[op.Name]
		if !known {
			t.Errorf("operation %s has no command", op.Name)
			continue
		}
		var verbs []*verb
		switch {
		case op.Name == "set":
			verbs = []*verb{findObject("export").findVerb("set"), findObject("remote").findVerb("set")}
		case len(words) == 1:
			verbs = findObject(words[0]).verbs
		case len(words) == 2:
			verbs = []*verb{findObject(words[0]).findVerb(words[1])}
		}
		var sent []uint16
		for _, v := range verbs {
			sent = append(sent, v.attrs()...)
			for _, a := range v.args {
				for _, c := range a.choice {
					sent = append(sent, c.attr)
				}
			}
		}
		for _, set := range s.Sets {
			if set.Name != op.Set {
				continue
			}
			for i, attr := range set.Attributes {
				takes := slices.Contains(append(op.Do.Request.Attributes, op.Dump.Request.Attributes...), attr.Name) && !slices.Contains(own, attr.Name)
				if has := slices.Contains(sent, uint16(i+1)); takes != has && len(verbs) > 0 {
					t.Errorf("%s: attribute %s is taken: %v, has a word: %v", op.Name, attr.Name, takes, has)
				}
				for _, v := range verbs {
					testLimits(t, op.Name, v, uint16(i+1), attr.Type, attr.Checks.Min, attr.Checks.Max, attr.Checks.MaxLen)
				}
			}
		}
	}
}

func testLimits(t *testing.T, op string, v *verb, attr uint16, typ string, least, most, longest uint64) {
	args := slices.Clone(v.args)
	for _, a := range v.args {
		args = append(args, a.choice...)
	}
	for _, a := range args {
		switch {
		case a.attr != attr || a.kind == nil:
		case longest > abi.NameMax && a.max != longest:
			t.Errorf("%s %s: %d bytes, the spec has %d", op, a.word, a.max, longest)
		case typ == "u32" && most != 0 && (a.min != least || a.max != most):
			t.Errorf("%s %s: %d to %d, the spec has %d to %d", op, a.word, a.min, a.max, least, most)
		case typ == "u32" && most == 0 && (a.kind == kindTime || a.kind == kindNumber) && a.max > math.MaxUint32:
			t.Errorf("%s %s: more than the ABI carries", op, a.word)
		}
	}
}

// TestFlagWords: each flag of a node has a word that shows it.
func TestFlagWords(t *testing.T) {
	for _, d := range readSpec(t).Definitions {
		if d.Name != "node-flag" {
			continue
		}
		var entries []struct{ Name string }
		if err := d.Entries.Decode(&entries); err != nil || len(entries) != len(flagWord) {
			t.Errorf("%v, %d flags, %d words", err, len(entries), len(flagWord))
		}
		for i, e := range entries {
			if got := flagWords(abi.NodeFlag(1) << i); len(got) != 1 || got[0] != e.Name {
				t.Errorf("flag %s is shown as %q", e.Name, got)
			}
		}
	}
}

// TestManual: the committed page is what the table makes.
func TestManual(t *testing.T) {
	var page bytes.Buffer
	writeManual(&page)
	const path = "../../tools/man/dstctl.8"
	if *update {
		if err := os.WriteFile(path, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(committed, page.Bytes()) {
		t.Errorf("%s is not what the table makes: run go generate in cmd/dstctl (%v)", path, err)
	}
	if got := runWords(t, nil, []string{"__man"}, false, ""); got.code != 0 || got.out != page.String() {
		t.Errorf("__man: exit %d", got.code)
	}
	for i, line := range strings.Split(page.String(), "\n") {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(\\"|TH|SH|SS|P|TP|B|BR|ad)( |$)`).MatchString(line) {
			t.Errorf("line %d: %s", i+1, line)
		}
	}
}

// TestExamples: every example of the manual is understood.
func TestExamples(t *testing.T) {
	for _, o := range objects {
		for _, v := range o.verbs {
			for _, e := range v.example {
				words := strings.Fields(e)
				_, pos, err := parseOptions(line{words: words})
				if err == nil {
					_, err = parse(t.Context(), fakeNames, line{words: words}, pos, false)
				}
				if err != nil {
					t.Errorf("dstctl %s: %v", e, err)
				}
			}
		}
	}
}
