package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// job is one run.
type job struct {
	wants
	kernel  kernel
	program string // absolute path
	top     string // of the repository, "" if the program is in none
	script  bool
	order   order

	out               io.Writer // what the program writes
	bootTime, offTime time.Duration
}

// order is what init is told, as JSON in orderFile.
type order struct {
	Argv    []string
	Dir     string
	Env     []string
	Modules []module
	UML     bool
	Timeout time.Duration
}

const orderFile = "/etc/vmtest.json"

// moduleDir is where init finds the modules.
const moduleDir = "/usr/lib/modules"

// scriptPrograms are there in the guest of any script. What of it the host lacks is left out; what a script asks for must be there.
const scriptPrograms = `bash sh env true false test [ echo printf sleep timeout nice nohup setsid kill
	cat cp mv rm ln ls mkdir rmdir mktemp mkfifo mknod touch truncate dd stat chmod chown sync df du install readlink realpath basename dirname
	head tail cut tr sort uniq wc seq tee od tac paste comm join split fold shuf base64 yes printenv expr date id nproc uname whoami hostname tty sha256sum md5sum cksum
	awk sed grep egrep find xargs cmp diff jq ps pgrep pkill free
	mount umount mountpoint findmnt losetup blockdev blkid blkdiscard lsblk fstrim fsfreeze fallocate flock nsenter unshare dmesg
	ip tc ss sysctl modprobe rmmod lsmod modinfo getent`

// data lists files that programs open by themselves.
var data = map[string][]string{
	"mkfs.ext4": {"/etc/mke2fs.conf"},
	"mke2fs":    {"/etc/mke2fs.conf"},
	"tc":        {"/usr/lib/tc"},
	"ip":        {"/etc/iproute2"},
}

// newJob finds out what is to run, and what its source wants.
func newJob(asked wants, args []string) (*job, error) {
	program, err := filepath.Abs(args[0])
	if err != nil {
		return nil, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	head, err := headOf(program)
	if err != nil {
		return nil, err
	}
	head, script := strings.CutPrefix(head, "#!")
	j := &job{wants: asked, program: program, script: script, out: os.Stdout, bootTime: bootTime, offTime: offTime}
	var has wants
	if j.script {
		has, err = readWants(program)
		j.top = topOf(filepath.Dir(program))
	} else {
		has, err = packageWants(wd)
		j.top = topOf(wd)
	}
	if err != nil {
		return nil, err
	}
	j.Modules, j.Programs, j.Files = append(has.Modules, j.Modules...), append(has.Programs, j.Programs...), append(has.Files, j.Files...)
	if j.VM = or(j.VM, has.VM); j.VM == "" {
		return nil, errors.New("in which machine? Write \"VM: uml\" or \"VM: qemu\" in a comment at the head of the script or of a *_vm_test.go, or give -uml or -qemu")
	}
	j.Mem, j.CPUs = or(j.Mem, has.Mem, 1024), or(j.CPUs, has.CPUs, 2)
	j.Timeout = or(j.Timeout, has.Timeout, goTimeout(args), 5*time.Minute)
	if j.kernel, err = findKernel(j.VM); err != nil {
		return nil, err
	}
	argv := append([]string{program}, args[1:]...)
	if j.script {
		// By its interpreter: a script need not be executable here either.
		argv = append(strings.Fields(head), argv...)
	}
	j.order = order{Argv: argv, Dir: wd, Env: environment(), UML: j.VM == "uml", Timeout: j.Timeout}
	return j, nil
}

// headOf returns the first line of a file, or what of it is short enough to be one.
func headOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	return line, err
}

// topOf returns the directory at or above dir that holds go.mod, or "".
func topOf(dir string) string {
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// goTimeout is the limit that "go test" gives its program, and some time for it to say what hung; 0 if there is none.
func goTimeout(args []string) time.Duration {
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "-test.timeout="); ok {
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				return d + 20*time.Second
			}
		}
	}
	return 0
}

// environment is the program's: that of a fresh system, and the few variables that tell tests how to run.
func environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "SHELL=/bin/sh", "TERM=dumb", "LC_ALL=C", "TMPDIR=/tmp", "IN_VM=1",
	}
	for _, name := range []string{"CI", "BIN", "DSTD", "GOTRACEBACK", "GORACE", "GODEBUG", "GOMAXPROCS", "RUN", "FIO_TIME"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// writeImage writes the guest's root file system.
func (j *job) writeImage(w io.Writer) error {
	im := newImage(w)
	for _, step := range []func(*image) error{
		func(im *image) error { return im.put("/proc/self/exe", "/init") },
		j.addProgram, j.addPrograms, j.addFiles, j.addModules,
	} {
		if err := step(im); err != nil {
			return err
		}
	}
	text, err := json.Marshal(j.order)
	if err != nil {
		return err
	}
	im.text(orderFile, string(text))
	return im.ar.end()
}

// addProgram adds what is to run, the directory in which it does, and what lies there for it.
func (j *job) addProgram(im *image) error {
	if err := im.add(j.program); err != nil {
		return err
	}
	if err := im.add(j.order.Dir); err != nil {
		return err
	}
	if j.script {
		// The daemon to test may be another one than bin/dstd.
		if dstd := os.Getenv("DSTD"); dstd != "" {
			if err := im.add(dstd); err != nil {
				return err
			}
		}
		return j.addTop(im)
	}
	testdata := filepath.Join(j.order.Dir, "testdata")
	if _, err := os.Stat(testdata); err != nil {
		return nil
	}
	return im.tree(testdata, "")
}

// addTop adds what scripts of a repository use: built programs and the files beside the script.
func (j *job) addTop(im *image) error {
	if j.top == "" {
		return nil
	}
	dirs := []string{filepath.Join(j.top, "bin"), filepath.Dir(j.program)}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if err := im.add(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// addPrograms adds programs of the host.
func (j *job) addPrograms(im *image) error {
	names := j.Programs
	if j.script {
		for name := range strings.FieldsSeq(scriptPrograms) {
			if _, err := lookPath(name); err == nil {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if err := im.program(name); err != nil {
			return err
		}
		for _, path := range data[name] {
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := im.tree(path, ""); err != nil {
				return err
			}
		}
	}
	// The C library loads it by itself when a thread ends early.
	if lib, err := findLibrary("libgcc_s.so.1", "", nil); err == nil && len(names) > 0 {
		return im.add(lib)
	}
	return nil
}

// addFiles adds what was asked for by name.
func (j *job) addFiles(im *image) error {
	for _, word := range j.Files {
		host, guest, _ := strings.Cut(word, ":")
		if !filepath.IsAbs(host) {
			host = filepath.Join(or(j.top, j.order.Dir), host)
		}
		if guest != "" && !filepath.IsAbs(guest) {
			return fmt.Errorf("%s: the guest's path must be absolute", word)
		}
		if err := im.tree(host, guest); err != nil {
			return err
		}
	}
	return nil
}

// addModules adds modules, and, if programs of the host are there, what modprobe wants to know of them.
func (j *job) addModules(im *image) error {
	set, err := newModuleSet(j.kernel)
	if err != nil {
		return err
	}
	// Without IPv6 half of the network's tests would not run; it is no module in every kernel.
	for _, word := range append([]string{"ipv6"}, j.Modules...) {
		if err := set.add(parseModule(word)); err != nil {
			return err
		}
	}
	j.order.Modules = set.order
	dir, err := os.MkdirTemp("", "vmtest-modules")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "lib/modules", j.kernel.release)
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	for _, m := range set.order {
		if err := os.WriteFile(filepath.Join(tree, m.Name+".ko"), m.data, 0o644); err != nil {
			return err
		}
	}
	if im.have["/usr/bin/kmod"] {
		if err := j.index(dir, tree); err != nil {
			return err
		}
	}
	return im.tree(tree, filepath.Join(moduleDir, j.kernel.release))
}

// index lets depmod write what modprobe reads.
func (j *job) index(dir, tree string) error {
	lists, err := filepath.Glob(filepath.Join(j.kernel.modules, "modules.*"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		if strings.HasSuffix(list, "builtin") || strings.HasSuffix(list, "builtin.modinfo") || strings.HasSuffix(list, "order") {
			text, err := os.ReadFile(list)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(tree, filepath.Base(list)), text, fs.FileMode(0o644)); err != nil {
				return err
			}
		}
	}
	depmod, err := lookPath("depmod")
	if err != nil {
		return err
	}
	if out, err := exec.Command(depmod, "-b", dir, j.kernel.release).CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, out)
	}
	return nil
}
