package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
)

func TestBatchWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                        nil,
		"  \n\t\n# all comment\n": nil,
		"show vol0 # and why\n":   {"1: show vol0"},
		"a#b #c":                  {"1: a#b"},
		"\n\na b\r\nc\n":          {"3: a b", "4: c"},
		"a \\\n  b \\\nc\nd":      {"1: a b c", "4: d"},
		"a\\\nb":                  {"1: a b"},
		"a \\":                    {"1: a"},
		`a "b c" 'd "e' ""`:       {`1: a b_c d_"e `},
		"x'y z'":                  {"1: x'y z'"},
		"a \"b\\\nc\"":            {"1: a b_c"},
		`a "b`:                    {"- f:1: the quoted word does not end: add \""},
		"a\n'":                    {"1: a", "- f:2: the quoted word does not end: add '"},
		"a\n" + strings.Repeat("x", maxLine+1) + "\nb": {"1: a", "- f:2: the line is longer than 65536 bytes"},
	} {
		var got []string
		for r := newBatchReader(strings.NewReader(text), "f"); ; {
			l, err := r.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				f := err.(*fault)
				got = append(got, "- "+f.line.where+": "+f.text)
				break
			}
			words := make([]string, len(l.words))
			for i, w := range l.words {
				words[i] = strings.ReplaceAll(w, " ", "_")
			}
			got = append(got, strings.TrimPrefix(l.where, "f:")+": "+strings.Join(words, " "))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

const exports = "export add a device /a listen tcp:10.0.0.1:9\nexport add b device /b listen tcp:10.0.0.1:9\nexport add c device /c listen tcp:10.0.0.1:9\n"

func TestBatch(t *testing.T) {
	refused := map[string]error{"add-export b": refuse(unix.EBUSY, "b is busy", abi.AttrNodeName)}
	all := map[string]error{"add-export": client.ErrNoDaemon}
	for name, tt := range map[string]struct {
		options, text string
		fail          map[string]error
		code          int
		calls         string
		says          string
	}{
		"done":             {"-b f", exports, nil, 0, "add-export a,add-export b,add-export c", ""},
		"stdin":            {"-b -", exports, nil, 0, "add-export a,add-export b,add-export c", ""},
		"empty":            {"-b f", "# nothing\n", nil, 0, "", ""},
		"mistake":          {"-b f", exports + "export add d\nshow\nshwo\n", nil, 1, "", "Error: f:4: device PATH is missing.\n  dstctl export add d\n                      ^\nError: f:6: unknown object \"shwo\""},
		"mistake on stdin": {"-b -", exports + "shwo\n" + exports, nil, 3, "add-export a,add-export b,add-export c", "Error: -:4: unknown object \"shwo\""},
		"first on stdin":   {"-b -", "shwo\n" + exports, nil, 1, "", "Error: -:1: "},
		"mistake forced":   {"-force -b f", "shwo\n" + exports, nil, 3, "add-export a,add-export b,add-export c", "Error: f:1: "},
		"no short words":   {"-b f", "sh\n", nil, 1, "", `unknown object "sh"`},
		"too long":         {"-b f", exports + strings.Repeat("y", maxLine+1), nil, 1, "", "Error: f:4: the line is longer"},
		"endless":          {"-b f", "show\nmonitor\n", nil, 1, "", "Error: f:2: monitor has no end"},
		"option":           {"-b f", "-s show\n", nil, 1, "", "options of a batch stand before -batch"},
		"refused":          {"-b f", exports, refused, 3, "add-export a,add-export b", "Error: f:2: b is busy.\n  dstctl export add b device /b listen tcp:10.0.0.1:9\n                    ^\n"},
		"refused forced":   {"-force -b f", exports, refused, 3, "add-export a,add-export b,add-export c", "Error: f:2: b is busy"},
		"all refused":      {"-b f", "export add b device /b listen tcp:10.0.0.1:9", refused, 2, "add-export b", "b is busy"},
		"no daemon":        {"-force -b f", exports, all, 4, "add-export a", "no dstd answers"},
		"missing":          {"-b missing", "", nil, 1, "", "the batch can not be read: file does not exist"},
		"unended":          {"-force -b f", "show 'a\n" + strings.Repeat("y", maxLine+1), nil, 1, "", "Error: f:1: the quoted word does not end: add '.\n  dstctl show \"'a\"\n              ^~~~\nError: f:2: the line is longer"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newFake()
			d.fail = tt.fail
			got := runWords(t, d, strings.Fields(tt.options), true, tt.text)
			if got.code != tt.code || strings.Join(d.calls, ",") != tt.calls || !strings.HasPrefix(got.err, tt.says) && !strings.Contains(got.err, tt.says) || (tt.says == "") != (got.err == "") {
				t.Errorf("exit %d, calls %q\n%s", got.code, d.calls, got.err)
			}
		})
	}
}

// TestBatchOutput: each show of a batch is a document of its own.
func TestBatchOutput(t *testing.T) {
	got := dstctl(t, exampleNodes(), "-j -b f", "show vol0\nsecurity show vol0\nstats disk0\n")
	if lines := strings.Split(got.out, "\n"); got.code != 0 || len(lines) != 4 || strings.Count(got.out, `{"schema":1,`) != 3 {
		t.Errorf("%+v", got)
	}
}

// TestBatchLarge: many nodes over one connection, one request each.
func TestBatchLarge(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "export add e%d device /e%d listen tcp:10.0.0.1:9 start\n", i, i)
	}
	for i := range 200 {
		fmt.Fprintf(&text, "remote add r%d peer tcp:10.0.0.1:9 export e%d attach socket /run/r%d\n", i, i, i)
	}
	d := newFake()
	if got := dstctl(t, d, "-b f", text.String()); got != (result{}) || len(d.nodes) != 1200 || len(d.calls) != 1200 {
		t.Errorf("%+v, %d nodes, %d calls", got, len(d.nodes), len(d.calls))
	}
}

// FuzzBatch: a batch never panics, and on a mistake in a file nothing is sent.
func FuzzBatch(f *testing.F) {
	for _, s := range []string{exports, "show # x\n\\\n", `export add "a" device '/x y' listen tcp:10.0.0.1:9`, "a \"", "\\", "show\r\n\x00\n", strings.Repeat("\\\n", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := newFake()
		d.get = func(n *abi.Node) { n.Status.State = abi.StateEstablished }
		got := runWords(t, d, []string{"-b", "f"}, false, text)
		if got.code == exitMistake && len(d.calls) > 0 {
			t.Fatalf("not understood, but %q", d.calls)
		}
		if (got.code == 0) != (got.err == "") || hostile(got.err) {
			t.Fatalf("exit %d, %q", got.code, got.err)
		}
	})
}
