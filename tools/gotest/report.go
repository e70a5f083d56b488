package main

import (
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// result is what is known of one test, or of one package (Test is empty).
type result struct {
	output strings.Builder
	action string
	parent bool // has subtests
}

// report collects events and writes a package's line when the package is done.
type report struct {
	w                       io.Writer
	noskip                  bool
	tests                   map[string]map[string]*result // by package, by test
	builds                  map[string]*strings.Builder   // what the compiler said, by import path
	passed, failed, skipped int
}

func newReport(w io.Writer, noskip bool) *report {
	return &report{w: w, noskip: noskip, tests: map[string]map[string]*result{}, builds: map[string]*strings.Builder{}}
}

var coverage = regexp.MustCompile(`coverage: ([0-9.]+%)`)

// event takes the next event of the stream.
func (r *report) event(e event) {
	switch {
	case e.ImportPath != "" && e.Action == "build-output":
		b := r.builds[e.ImportPath]
		if b == nil {
			b = &strings.Builder{}
			r.builds[e.ImportPath] = b
		}
		b.WriteString(e.Output)
		return
	case e.Package == "":
		if e.Output != "" {
			fmt.Fprint(r.w, e.Output)
		}
		return
	}
	t := r.test(e.Package, e.Test)
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.action = e.Action
		if e.Test == "" {
			r.packageDone(e)
		}
	}
}

// test returns the result of a test, and marks the tests around it as parents.
func (r *report) test(pkg, name string) *result {
	all := r.tests[pkg]
	if all == nil {
		all = map[string]*result{}
		r.tests[pkg] = all
	}
	t := all[name]
	if t == nil {
		t = &result{}
		all[name] = t
		for up := path.Dir(name); name != "" && up != "."; up = path.Dir(up) {
			r.test(pkg, up).parent = true
		}
	}
	return t
}

// packageDone counts the tests of a package and writes its line.
func (r *report) packageDone(e event) {
	var passed, failed, skipped int
	for name, t := range r.tests[e.Package] {
		switch {
		case name == "":
		case t.action == "fail" || t.action == "":
			// An empty action: the test was running when the process died.
			if !t.parent || t.action == "" {
				failed++
			}
			r.quote(name, t)
		case t.parent:
		case t.action == "pass":
			passed++
		case t.action == "skip":
			skipped++
			r.quote(name, t)
		}
	}
	whole := r.test(e.Package, "")
	if e.Action == "fail" && failed == 0 {
		// It did not build, or it died or failed outside of any test.
		failed++
		if b := r.builds[e.FailedBuild]; b != nil {
			fmt.Fprint(r.w, b.String())
		}
		r.quote("", whole)
	}
	word := "ok  "
	if failed > 0 || r.noskip && skipped > 0 {
		word = "FAIL"
	}
	if passed+failed+skipped > 0 {
		cover := ""
		if m := coverage.FindStringSubmatch(whole.output.String()); m != nil {
			cover = "  coverage " + m[1]
		}
		fmt.Fprintf(r.w, "%s %-28s %7.2fs  %4d passed %d failed %d skipped%s\n", word, e.Package, e.Elapsed, passed, failed, skipped, cover)
	}
	if r.noskip {
		failed += skipped
		skipped = 0
	}
	r.passed, r.failed, r.skipped = r.passed+passed, r.failed+failed, r.skipped+skipped
	delete(r.tests, e.Package)
}

// quote writes what a test said.
func (r *report) quote(name string, t *result) {
	for _, line := range strings.SplitAfter(t.output.String(), "\n") {
		if line == "" || strings.HasPrefix(line, "=== ") {
			continue
		}
		fmt.Fprint(r.w, "    ", line)
	}
	if t.action == "" && name != "" {
		fmt.Fprintf(r.w, "    %s did not end\n", name)
	}
}

// end is called when the stream is over; err is how go test ended. A failure that no event told is counted as one.
func (r *report) end(err error) {
	for pkg := range r.tests {
		r.packageDone(event{Action: "fail", Package: pkg})
	}
	if err != nil && r.failed == 0 && r.skipped == 0 {
		fmt.Fprintln(r.w, "go test:", err)
		r.failed++
	}
}
