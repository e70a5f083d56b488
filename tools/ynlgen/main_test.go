package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// small is the specification of the tests.
func small(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/small.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSpecIsValidAndGeneratedAgainWithoutADiff is the promise that the specification is the only source.
func TestSpecIsValidAndGeneratedAgainWithoutADiff(t *testing.T) {
	t.Chdir("../..")
	text, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := Load(text)
	if err != nil {
		t.Fatalf("%s: %v", specFile, err)
	}
	for _, o := range outputs {
		want, err := o.write(spec)
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(o.file); err != nil || string(have) != string(want) {
			t.Errorf("%s is not what %s gives: run make generate (%v)", o.file, specFile, err)
		}
	}
}

func TestRunWritesOnceAndRefusesABadSpec(t *testing.T) {
	text := small(t)
	t.Chdir(t.TempDir())
	if err := run(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a specification: %v", err)
	}
	write := func(text string) {
		if err := errors.Join(os.MkdirAll("abi", 0o755), os.MkdirAll("controlplane", 0o755), os.WriteFile(specFile, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	if err := run(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(outputs[0].file)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(outputs[0].file); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a right file was written again (%v)", err)
	}
	write("name: 5!")
	if err := run(); err == nil || !strings.Contains(err.Error(), specFile) {
		t.Errorf("a bad specification: %v", err)
	}
}

// TestGeneratedCode looks for what each part of the small specification must become.
func TestGeneratedCode(t *testing.T) {
	spec, err := Load([]byte(small(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		write func(*Spec) ([]byte, error)
		want  []string
		not   []string
	}{
		{writeABI, []string{
			`FamilyName = "small"`, "FamilyMaxAttr = 12", "CmdGetThing = 3 // One thing, or all.", "CmdHappened = 4",
			"const MostThings = 12", "ColourRed Colour = 0", "ColourGreen Colour = 7 // As grass.", "ColourBlue Colour = 8",
			"RightLook Right = 1", "RightTouch Right = 2", "func (x Right) String() string { return rightWords.flags(uint32(x)) }",
			"func ParseColour(s string) (Colour, error) {", "AttrThingName = 1 // Its name.", "AttrThingID = 2", "AttrThingHeat = 9",
			"AttrThingPart = 12", "AttrReportText = 1", `CmdGetThing: "get-thing",`, `AttrThingID: "id",`,
		}, nil},
		{writePolicy, []string{
			`abi.CmdGetThing: { name: "get-thing", admin: true, do: pick("get-thing", setThing, abi.AttrThingName, ), dump: pick("get-thing", setThing), },`,
			`{Name: "name", Kind: genl.String, Min: 1, Max: 31},`, `{Name: "id", Kind: genl.Binary, Min: 16, Max: 16},`,
			`Enum: []genl.Value{{Number: 0, Word: "red"}, {Number: 7, Word: "green"}, {Number: 8, Word: "blue"}}},`,
			`{Name: "colours", Kind: genl.U32, Mask: 0x181},`, `{Name: "rights", Kind: genl.U32, Mask: 0x3},`,
			`{Name: "heat", Kind: genl.S32, Min: 18446744073709551611, Max: 2147483647},`,
			`{Name: "cold", Kind: genl.S32, Min: 18446744071562067968, Max: 18446744073709551611},`,
			`{Name: "count", Kind: genl.U64, Min: 1, Max: 10, Multi: true},`, `{Name: "part", Kind: genl.Nest, Nest: setPart},`,
			`{Name: "spare", Kind: genl.Flag},`,
		}, []string{"CmdHappened", "setReport"}},
	} {
		code, err := tt.write(spec)
		if err != nil {
			t.Fatal(err)
		}
		got := oneLine(string(code))
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in\n%s", want, code)
			}
		}
		for _, not := range tt.not {
			if strings.Contains(got, not) {
				t.Errorf("%q is in\n%s", not, code)
			}
		}
	}
}

// TestBadSpecIsRefused makes one mistake at a time.
func TestBadSpecIsRefused(t *testing.T) {
	good := small(t)
	for _, tt := range []struct{ old, new, want string }{
		{"protocol: genetlink", "protocol: genetlink-legacy", "instead of genetlink"},
		{"protocol: genetlink", "version: 1", "field version not found"},
		{"name: small", "name: sixteen-letters-", "no family name"},
		{"doc: A specification with one of everything.", "", "doc, attribute-sets and operations are required"},
		{"value: 7, doc: As grass.", "value: 7, colour: green", "field colour not found in an entry"},
		{"value: 7, doc: As grass.", "value: 0", "the value 0 is given twice"},
		{"value: 7, doc: As grass.", "value: 4294967296", "does not fit 32 bits"},
		{"[look, touch]", "[look, { name: touch, value: 32 }]", "does not fit 32 bits"},
		{"[look, touch]", "[look, look]", "definition right: look: the name is given twice"},
		{"[look, touch]", "[Look]", "not a word of small letters"},
		{"[look, touch]", "[]", "an enum or flags have entries"},
		{"type: flags", "type: bits", `type "bits" is not const, enum or flags`},
		{"name: right\n", "name: colour\n", "definition colour: the name is given twice"},
		{"type: flag }", "type: pad }", `type "pad" is not served`},
		{"type: flag }", "type: flag, nested-attributes: part }", "a nest, and nothing else"},
		{"nested-attributes: part", "nested-attributes: whole", "a nest, and nothing else"},
		{", nested-attributes: part", "", "a nest, and nothing else"},
		{"enum: right", "enum: wrong", `enum "wrong" is not defined`},
		{"enum: right", "enum: most-things", "is not defined"},
		{"enum: right", "enum-as-flags: true", "enum-as-flags without enum"},
		{"type: string, checks", "type: string, enum: right, checks", "the type is no integer"},
		{"min-len: 1, max-len: 31", "min: 1", "min and max are for integers"},
		{"min: 1, max: 10", "min-len: 1", "lengths are for strings"},
		{"min: 1, max: 10", "min: 11, max: 10", "the least is more than the most"},
		{"min: 1, max: 10", "min: -1", "u64 is not signed"},
		{"min: 1, max: 10", "max: 0", "a max of 0 allows nothing"},
		{"exact-len: 16", "exact-len: 16, max-len: 17", "exact-len excludes"},
		{"exact-len: 16", "exact-len: 0", "use a flag"},
		{"min: -5", "least: -5", "field least not found"},
		{"value: 9", "value: 1", "the number 1 is taken"},
		{"value: 9", "value: 0", "not in 1 to 16383"},
		{"      - { name: spare, type: flag }\n", "", "attribute set part: it is empty"},
		{"value: 3", "value: 0", "operation get-thing: the number 0"},
		{"value: 3", "value: 256", "not in 1 to 255"},
		{"value: 3", "value: -1", "not in 1 to 255"},
		{"admin-perm", "uns-admin-perm", "is not admin-perm"},
		{"attribute-set: report", "attribute-set: rumour", `attribute set "rumour" is not defined`},
		{"request: { attributes: [name] }", "request: { attributes: [nam] }", `thing has no attribute "nam"`},
		{"attributes: [text]", "attributes: [texts]", `report has no attribute "texts"`},
		{"      event:\n        attributes: [text]\n", "", "it has no do, dump or event"},
		{"doc: Something happened.", "", "operation happened: doc is required"},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%q is not in the specification", tt.old)
		}
		_, err := Load([]byte(strings.Replace(good, tt.old, tt.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q for %q: %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}

// TestWords uses the generated names of the control ABI.
func TestWords(t *testing.T) {
	for s, want := range map[string]abi.State{"configured": abi.StateConfigured, "failed": abi.StateFailed} {
		if got, err := abi.ParseState(s); err != nil || got != want || got.String() != s {
			t.Errorf("ParseState(%q) = %v, %v", s, got, err)
		}
	}
	if _, err := abi.ParseState("asleep"); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "use one of configured, ") {
		t.Error(err)
	}
	if s := abi.State(77).String(); s != "state(77)" {
		t.Errorf("an unknown state is %q", s)
	}
	for s, want := range map[string]abi.Permission{"none": 0, "read": abi.PermissionRead, "read,write": abi.PermissionRead | abi.PermissionWrite} {
		if got, err := abi.ParsePermission(s); err != nil || got != want || got.String() != s {
			t.Errorf("ParsePermission(%q) = %v, %v", s, got, err)
		}
	}
	if got, err := abi.ParsePermission(""); err != nil || got != 0 {
		t.Errorf("no permission is %v, %v", got, err)
	}
	if _, err := abi.ParsePermission("read,run"); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if s := abi.Permission(0x11).String(); s != "read,0x10" {
		t.Errorf("an unknown bit is %q", s)
	}
	if abi.CmdName(abi.CmdAddRemote) != "add-remote" || abi.CmdName(200) != "200" {
		t.Error("names of operations")
	}
	if abi.AttrName("rule", abi.AttrRulePrefixLen) != "prefix-len" || abi.AttrName("rule", 99) != "99" || abi.AttrName("none", 1) != "1" {
		t.Error("names of attributes")
	}
}
