package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// wants is what a program needs of its virtual machine, as the head of its source says: a script's by lines such as "# VM: qemu",
// those of a package's tests by "// VM: uml" in the files named *_vm_test.go.
type wants struct {
	VM       string        // "uml" or "qemu"
	Modules  []string      // NAME[:PARAM=VALUE...], +NAME
	Programs []string      // names or paths
	Files    []string      // HOST[:GUEST], HOST relative to the top of the repository
	Mem      int           // MiB
	CPUs     int           // of QEMU
	Timeout  time.Duration // of the program
}

// readWants reads the head of a file: its lines up to the first that is neither empty nor a comment.
func readWants(path string) (wants, error) {
	var w wants
	f, err := os.Open(path)
	if err != nil {
		return w, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		comment, ok := strings.CutPrefix(line, "//")
		if !ok {
			comment, ok = strings.CutPrefix(line, "#")
		}
		if !ok && line != "" {
			break
		}
		if err := w.line(comment); err != nil {
			return w, fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return w, lines.Err()
}

// line takes one comment; those that are not meant for us are let pass.
func (w *wants) line(comment string) (err error) {
	key, value, ok := strings.Cut(strings.TrimSpace(comment), ":")
	if !ok {
		return nil
	}
	words := strings.Fields(value)
	switch key {
	case "MODULES":
		w.Modules = append(w.Modules, words...)
		return nil
	case "PROGRAMS":
		w.Programs = append(w.Programs, words...)
		return nil
	case "FILES":
		w.Files = append(w.Files, words...)
		return nil
	case "VM", "MEM", "CPUS", "TIMEOUT":
		if len(words) == 0 {
			return fmt.Errorf("%s: wants a value", key)
		}
	}
	switch key {
	case "VM":
		if w.VM = words[0]; w.VM != "uml" && w.VM != "qemu" {
			return fmt.Errorf("VM: %q is neither uml nor qemu", w.VM)
		}
	case "MEM":
		w.Mem, err = strconv.Atoi(words[0])
	case "CPUS":
		w.CPUs, err = strconv.Atoi(words[0])
	case "TIMEOUT":
		var n int
		n, err = strconv.Atoi(words[0])
		w.Timeout = time.Duration(n) * time.Second
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// join adds what another file of the same package wants. One that needs QEMU takes the others with it.
func (w *wants) join(o wants) {
	if w.VM != "qemu" {
		w.VM = or(o.VM, w.VM)
	}
	w.Modules = append(w.Modules, o.Modules...)
	w.Programs = append(w.Programs, o.Programs...)
	w.Files = append(w.Files, o.Files...)
	w.Mem, w.CPUs, w.Timeout = max(w.Mem, o.Mem), max(w.CPUs, o.CPUs), max(w.Timeout, o.Timeout)
}

// or returns the first value that is not zero.
func or[T comparable](values ...T) (v T) {
	for _, v = range values {
		if v != *new(T) {
			break
		}
	}
	return v
}

// packageWants reads the heads of the tests for virtual machines in a directory.
func packageWants(dir string) (wants, error) {
	var w wants
	files, err := filepath.Glob(filepath.Join(dir, "*_vm_test.go"))
	for _, file := range files {
		var one wants
		if one, err = readWants(file); err != nil {
			break
		}
		w.join(one)
	}
	return w, err
}
