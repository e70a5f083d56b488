// Command gotest runs "go test -json" with the arguments given and says briefly what came out: a line for each package with time,
// counts and coverage, and the output of what failed. Tests that have subtests are not counted, their subtests are.
// It exits 1 if anything failed, or, with -noskip, was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	noskip := flag.Bool("noskip", false, "a skipped test is a failure")
	counts := flag.String("counts", "", "append \"PASSED FAILED SKIPPED\" to this `file`")
	goTool := flag.String("go", "go", "the go `command`")
	flag.Parse()

	cmd := exec.Command(*goTool, append([]string{"test", "-json"}, flag.Args()...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	r := newReport(os.Stdout, *noskip)
	err = read(out, r)
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	r.end(err)
	if *counts != "" {
		if err := appendLine(*counts, fmt.Sprintf("%d %d %d\n", r.passed, r.failed, r.skipped)); err != nil {
			fmt.Fprintln(os.Stderr, "gotest:", err)
			os.Exit(1)
		}
	}
	if r.failed > 0 {
		os.Exit(1)
	}
}

// read feeds the report every event of a "go test -json" stream.
func read(in io.Reader, r *report) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "output", Output: string(line)}
			}
			r.event(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
