package tools_test

import (
	"fmt"
	"path"
	"strings"
	"testing"
)

// module is the path of this module; rows are relative to it.
const module = "dst"

// rows is the direction of imports: a package may import packages of lower rows only, never of its own. Every package of the
// module stands here, below cmd, below tools or below selftests; a new one gets its row first.
var rows = map[string]int{
	"abi":                    0,
	"dataplane/mempool":      0,
	"controlplane/genl":      0,
	"dataplane/crypt":        1,
	"controlplane/client":    1,
	"dataplane/conn":         2,
	"dataplane/trans":        3,
	"dataplane/remote":       4,
	"dataplane/export":       4,
	"dataplane/nbd":          4,
	"dataplane":              5,
	"controlplane":           6,
	"controlplane/connector": 7,
}

const (
	rowCmd = 8 // cmd/*: imports anything but each other
	rowAny = 9 // tools, selftests: anything
)

// row returns the row of a package given relative to the module.
func row(pkg string) (int, bool) {
	if r, ok := rows[pkg]; ok {
		return r, true
	}
	switch top, _, _ := strings.Cut(pkg, "/"); top {
	case "cmd":
		return rowCmd, true
	case "tools", "selftests":
		return rowAny, true
	}
	return 0, false
}

// forTests tells whether a package exists for tests only: conn/conntest and the like, by their name.
func forTests(pkg string) bool {
	return strings.HasSuffix(path.Base(pkg), "test") && pkg != "cmd"
}

// importFault says what is wrong with file f importing the package to, or "". Tests may use what is for tests, and their own row:
// an export is tested with a remote. A test in a package of its own (foo_test) may use anything but cmd.
func importFault(f source, to string) string {
	from := f.pkg
	rowTo, ok := row(to)
	if forTests(to) {
		if f.test || forTests(from) {
			return ""
		}
		return fmt.Sprintf("%s: %s is for tests only", f.name, to)
	}
	if !ok {
		return fmt.Sprintf("%s: package %s has no row: give it one in tools/layers_test.go", f.name, to)
	}
	if forTests(from) {
		from = path.Dir(from)
	}
	rowFrom, ok := row(from)
	switch {
	case !ok:
		return fmt.Sprintf("%s: package %s has no row: give it one in tools/layers_test.go", f.name, from)
	case rowFrom == rowAny, rowTo < rowFrom, to == from:
		return ""
	case f.test && strings.HasPrefix(to, "tools/"):
		return ""
	case f.test && f.outside && rowTo < rowCmd, f.test && rowTo == rowFrom:
		return ""
	}
	return fmt.Sprintf("%s: %s (row %d) imports %s (row %d): only lower rows are allowed", f.name, from, rowFrom, to, rowTo)
}

// importFaults lists what is wrong with the imports of one file.
func importFaults(f source) (faults []string) {
	for _, spec := range f.ast.Imports {
		to, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
		if !ours {
			continue
		}
		if fault := importFault(f, to); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}

func TestLayers(t *testing.T) {
	for _, f := range sources(t) {
		for _, fault := range importFaults(f) {
			t.Error(fault)
		}
	}
}

// TestLayersCanFail feeds the rule what it must and must not refuse.
func TestLayersCanFail(t *testing.T) {
	tests := []struct {
		file, pkg, imports string
		bad                bool
	}{
		{"a.go", "package remote", "dataplane/conn", false},
		{"a.go", "package remote", "dataplane", true},
		{"a.go", "package remote", "dataplane/export", true},
		{"a.go", "package remote", "controlplane", true},
		{"a.go", "package remote", "dataplane/conn/conntest", true},
		{"a.go", "package remote", "tools/cutproxy", true},
		{"a.go", "package remote", "dataplane/unheardof", true},
		{"a_test.go", "package remote", "dataplane/conn/conntest", false},
		{"a_test.go", "package remote", "dataplane/export", false},
		{"a_test.go", "package remote", "dataplane", true},
		{"a_test.go", "package remote", "tools/cutproxy", false},
		{"a_test.go", "package remote_test", "dataplane", false},
		{"a_test.go", "package remote_test", "cmd/dstd", true},
	}
	for _, tt := range tests {
		name := "dataplane/remote/" + tt.file
		f := parse(t, name, fmt.Sprintf("%s\n\nimport _ %q\n", tt.pkg, module+"/"+tt.imports))
		if faults := importFaults(f); (len(faults) > 0) != tt.bad {
			t.Errorf("%s, %s, importing %s: faults %q, want some: %v", name, tt.pkg, tt.imports, faults, tt.bad)
		}
	}
	for _, pkg := range []string{"cmd/dstd", "tools/bench", "selftests"} {
		f := parse(t, pkg+"/a.go", "package p\n\nimport _ \"dst/controlplane\"\n")
		if faults := importFaults(f); len(faults) > 0 {
			t.Errorf("%s may import anything, got %q", pkg, faults)
		}
	}
}
