package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is an unpacked kernel package.
type kernel struct {
	image   string // the file to start
	modules string // the directory of its modules
	release string // as uname -r says in the guest
}

// cacheDir is where tools/vmtest/kernels keeps the packages.
func cacheDir() string {
	if dir := os.Getenv("DST_VM_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/dst-vm"
}

// findKernel returns the kernel of that kind: "uml" or "qemu".
func findKernel(kind string) (kernel, error) {
	image, modules := "boot/vmlinuz-*", "lib/modules/*"
	if kind == "uml" {
		image, modules = "usr/bin/linux.uml", "usr/lib/uml/modules/*"
	}
	dir := filepath.Join(cacheDir(), kind)
	images, err := filepath.Glob(filepath.Join(dir, image))
	if err != nil {
		return kernel{}, err
	}
	trees, err := filepath.Glob(filepath.Join(dir, modules))
	if err != nil {
		return kernel{}, err
	}
	if len(images) != 1 || len(trees) != 1 {
		return kernel{}, fmt.Errorf("no kernel in %s: run tools/setup", dir)
	}
	return kernel{image: images[0], modules: trees[0], release: filepath.Base(trees[0])}, nil
}

// module is one to carry into the guest.
type module struct {
	Name   string
	Params string // "name=value name=value"
	Load   bool   // by init; the others wait for modprobe

	data       []byte
	hard, soft []string // modules that it needs, and that it would like to find loaded
}

// parseModule reads NAME[:PARAM=VALUE...]; a plus before it means that it is carried but not loaded.
func parseModule(word string) module {
	name, keep := strings.CutPrefix(word, "+")
	name, params, _ := strings.Cut(name, ":")
	return module{Name: moduleName(name), Params: strings.ReplaceAll(params, ":", " "), Load: !keep}
}

// moduleName is what the kernel calls the module of a file: its modules are named with underscores, some files with hyphens.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// moduleSet puts modules in the order in which they can be loaded.
type moduleSet struct {
	read    func(name string) (module, error) // fs.ErrNotExist: the kernel has none of that name
	builtin map[string]bool
	busy    map[string]bool // those on whose behalf others are being added
	order   []module
}

// newModuleSet knows the modules of a kernel.
func newModuleSet(k kernel) (*moduleSet, error) {
	paths := map[string]string{}
	err := filepath.WalkDir(k.modules, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), ".ko") {
			paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	set := &moduleSet{builtin: map[string]bool{}, busy: map[string]bool{}}
	for _, path := range strings.Fields(string(list)) {
		set.builtin[moduleName(path)] = true
	}
	set.read = func(name string) (module, error) {
		path, ok := paths[name]
		if !ok {
			return module{}, fmt.Errorf("module %s: not in the package of kernel %s: %w", name, k.release, fs.ErrNotExist)
		}
		m, err := readModule(path)
		if err != nil {
			return m, fmt.Errorf("module %s: %w", name, err)
		}
		return m, nil
	}
	return set, nil
}

// readModule reads a module's file, which may be compressed: the guest's kernel is not asked to do that.
func readModule(path string) (m module, err error) {
	if strings.HasSuffix(path, ".xz") {
		if m.data, err = exec.Command("xz", "-dc", path).Output(); err != nil {
			return m, fmt.Errorf("xz -dc %s: %w (tools/setup installs xz-utils)", path, err)
		}
	} else if m.data, err = os.ReadFile(path); err != nil {
		return m, err
	}
	f, err := elf.NewFile(bytes.NewReader(m.data))
	if err != nil {
		return m, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return m, errors.New("no .modinfo")
	}
	info, err := section.Data()
	m.hard, m.soft = parseModinfo(string(info))
	return m, err
}

// add appends a module behind those it needs. What is built in is left out; what stands there already is, at most, now loaded too.
func (s *moduleSet) add(m module) error {
	if m.Name == "" || s.builtin[m.Name] || s.busy[m.Name] {
		return nil
	}
	s.busy[m.Name] = true
	defer delete(s.busy, m.Name)
	have := slices.IndexFunc(s.order, func(o module) bool { return o.Name == m.Name })
	if have < 0 {
		file, err := s.read(m.Name)
		if err != nil {
			return err
		}
		m.data, m.hard, m.soft = file.data, file.hard, file.soft
	} else {
		m.hard, m.soft = s.order[have].hard, s.order[have].soft
	}
	for _, name := range slices.Concat(m.hard, m.soft) {
		err := s.add(module{Name: moduleName(name), Load: m.Load})
		if err != nil && (slices.Contains(m.hard, name) || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	if have < 0 {
		s.order = append(s.order, m)
		return nil
	}
	s.order[have].Load = s.order[have].Load || m.Load
	s.order[have].Params = or(m.Params, s.order[have].Params)
	return nil
}

// parseModinfo reads the words "depends=" and "softdep=pre:" of a .modinfo section.
func parseModinfo(info string) (hard, soft []string) {
	for line := range strings.SplitSeq(info, "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok {
			hard = append(hard, strings.FieldsFunc(list, func(r rune) bool { return r == ',' })...)
		}
		if list, ok := strings.CutPrefix(line, "softdep=pre:"); ok {
			list, _, _ = strings.Cut(list, "post:")
			soft = append(soft, strings.Fields(list)...)
		}
	}
	return hard, soft
}
