package tools_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// source is one Go file of the module, whatever its build tags.
type source struct {
	name    string // relative to the module
	pkg     string // directory relative to the module
	test    bool   // _test.go
	outside bool   // package foo_test
	made    bool   // generated
	text    string
	ast     *ast.File
	set     *token.FileSet
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// parse makes a source of the text of a file.
func parse(t *testing.T, name, text string) source {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	test := strings.HasSuffix(name, "_test.go")
	return source{
		name: name, pkg: path.Dir(name), test: test, outside: test && strings.HasSuffix(tree.Name.Name, "_test"),
		made: generated.MatchString(text), text: text, ast: tree, set: set,
	}
}

// walk calls f with every file below the module that is not hidden, built or a test's data.
func walk(t *testing.T, f func(name string, text string)) {
	t.Helper()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (d.Name() == ".git" || d.Name() == "testdata" || name == "bin" || name == "dist"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err == nil {
			f(name, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources reads and parses every Go file of the module.
func sources(t *testing.T) (all []source) {
	t.Helper()
	walk(t, func(name, text string) {
		if strings.HasSuffix(name, ".go") {
			all = append(all, parse(t, name, text))
		}
	})
	if len(all) == 0 {
		t.Fatal("no Go file found")
	}
	return all
}
