package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// profile runs a case once more with perf looking at both processes. Of each it leaves NAME.data, for perf report, and NAME.txt: where
// the time goes with what is called included (first column) and without (second). Names of functions of dstd are there if it was
// built with them: make build LDFLAGS=
func (y *system) profile(c shape, o *options) error {
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		return err
	}
	near := newPerf(y.near, filepath.Join(o.profile, y.name+"-near-"+c.slug()))
	far := newPerf(y.far, filepath.Join(o.profile, y.name+"-far-"+c.slug()))
	if err := near.start(o); err != nil {
		return err
	}
	err := far.start(o)
	if err == nil {
		_, err = y.measure(c, o)
		err = errors.Join(err, far.finish())
	}
	return errors.Join(err, near.finish())
}

// perf is a recording of one process.
type perf struct {
	of   *process
	name string // of the files, without ending
	cmd  *exec.Cmd
	said strings.Builder
}

func newPerf(of *process, name string) *perf { return &perf{of: of, name: name} }

func (p *perf) start(o *options) error {
	p.cmd = exec.Command("perf", "record", "-q", "-F", "1997", "-g", "-o", p.name+".data", "-p", fmt.Sprint(p.of.cmd.Process.Pid),
		"--", "sleep", fmt.Sprintf("%.3f", (o.warm+o.time).Seconds()))
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%w: -profile needs perf, of Debian's linux-perf", err)
	}
	return nil
}

// finish waits for the end of the recording and writes the text.
func (p *perf) finish() error {
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("perf record: %w: %s", err, p.said.String())
	}
	text, err := os.Create(p.name + ".txt")
	if err != nil {
		return err
	}
	defer text.Close()
	show := exec.Command("perf", "report", "--stdio", "--children", "-g", "none", "--percent-limit", "0.5", "--sort", "dso,symbol",
		"-w", "20,60", "-i", p.name+".data")
	show.Stdout = text
	return show.Run()
}
