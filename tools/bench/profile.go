package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// profile runs a case once more with perf looking at both processes. It leaves NAME.data, and NAME.txt to be read. Names of
// functions of dstd are there if it was built with them: make build LDFLAGS=
func (y *system) profile(c shape, o *options) error {
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		return err
	}
	name := filepath.Join(o.profile, y.name+"-"+c.slug())
	text, err := os.Create(name + ".txt")
	if err != nil {
		return err
	}
	defer text.Close()
	seconds := fmt.Sprintf("%.3f", (o.warm + o.time).Seconds())
	perf := exec.Command("perf", "record", "-q", "-F", "1997", "-g", "-o", name+".data",
		"-p", fmt.Sprintf("%d,%d", y.near.cmd.Process.Pid, y.far.cmd.Process.Pid), "--", "sleep", seconds)
	var said strings.Builder
	perf.Stderr = &said
	if err := perf.Start(); err != nil {
		return fmt.Errorf("%w: -profile needs perf, of Debian's linux-perf", err)
	}
	_, err = y.measure(c, o)
	if wait := perf.Wait(); wait != nil {
		err = errors.Join(err, fmt.Errorf("perf record: %w: %s", wait, said.String()))
	}
	if err != nil {
		return err
	}
	show := exec.Command("perf", "report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.3", "--sort", "pid,dso,symbol",
		"-i", name+".data")
	show.Stdout = text
	return show.Run()
}
