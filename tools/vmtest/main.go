// Command vmtest runs a program inside a virtual machine that has a real kernel with modules: user-mode Linux, or Debian's 6.12 in
// QEMU. It serves "go test -exec" as well as scripts:
//
//	go test -tags vm -exec "$PWD/bin/vmtest -uml" ./dataplane/nbd
//	bin/vmtest [-uml | -qemu] [-m MODULES] [-b PROGRAMS] [-f FILES] [-t TIME] [-mem MIB] PROGRAM ARGUMENT...
//
// What the program writes comes out on stdout, its exit code is vmtest's; 128 and the signal's number if a signal killed it. Whatever
// else happens in there, a panic, a module that does not load, a program that does not end, gives 125, and the end of the kernel's
// log on stderr. The guest is destroyed when vmtest ends, however it ends.
//
// Without -uml or -qemu the head of the source says which machine, and what else is wanted: see wants.
//
// The guest's root is a file system in memory with the program, the directory testdata beside it (a test), or the repository's bin
// and selftests (a script), each at the path that it has here. vmtest itself is its init.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// exitBroken says that there is no exit code of the program to tell.
const exitBroken = 125

func main() {
	// A child that is to die with its parent dies with the thread that started it.
	runtime.LockOSThread()
	switch {
	case os.Getpid() == 1 && os.Args[0] == "/init":
		guest()
	case os.Getpid() == 1 && os.Args[0] == keeperName:
		keeper(os.Args[1:])
	}
	o, args := parseOptions(os.Args[1:])
	code, err := o.run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	os.Exit(code)
}

// options are those of the command line; they come before what the program's source wants.
type options struct {
	wants
	kmsg    string
	verbose bool
}

func parseOptions(args []string) (options, []string) {
	var o options
	f := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "Usage: vmtest [OPTION...] PROGRAM|SCRIPT ARGUMENT...\nRuns it in a virtual machine. Lists are separated by commas.")
		f.PrintDefaults()
	}
	list := func(to *[]string, name, usage string) {
		f.Func(name, usage, func(v string) error {
			*to = append(*to, strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })...)
			return nil
		})
	}
	f.BoolFunc("uml", "in user-mode Linux: fast, one processor", func(string) error { o.VM = "uml"; return nil })
	f.BoolFunc("qemu", "in QEMU with Debian's kernel 6.12", func(string) error { o.VM = "qemu"; return nil })
	list(&o.Modules, "m", "load these `modules`: NAME[:PARAMETER=VALUE...]; +NAME: only for modprobe")
	list(&o.Programs, "b", "take these `programs` of the host, with their libraries")
	list(&o.Files, "f", "take these `files` or directories: HOST[:GUEST]")
	f.DurationVar(&o.Timeout, "t", 0, "the program's time `limit` (default: what its source or -test.timeout says, else 5m)")
	f.IntVar(&o.Mem, "mem", 0, "the guest's memory in `MiB` (default 1024)")
	f.IntVar(&o.CPUs, "cpus", 0, "the `number` of its processors, QEMU only (default 2)")
	f.StringVar(&o.kmsg, "kmsg", "", "write the guest's kernel log to this `file`")
	f.BoolVar(&o.verbose, "v", false, "say which kernel is used and what took how long")
	switch err := f.Parse(args); {
	case err == flag.ErrHelp:
		os.Exit(0)
	case err != nil:
		os.Exit(exitBroken)
	case f.NArg() == 0:
		f.Usage()
		os.Exit(exitBroken)
	}
	return o, f.Args()
}

// run does it all and returns the exit code; an error says why it is exitBroken.
func (o options) run(args []string) (int, error) {
	start := time.Now()
	j, err := newJob(o.wants, args)
	if err != nil {
		return exitBroken, err
	}
	// A file without a name leaves nothing behind, however this process ends.
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		return exitBroken, fmt.Errorf("memfd_create: %w", err)
	}
	image := os.NewFile(uintptr(fd), "image")
	defer image.Close()
	if err := j.writeImage(image); err != nil {
		return exitBroken, err
	}
	if o.verbose {
		info, err := image.Stat()
		if err != nil {
			return exitBroken, err
		}
		fmt.Fprintf(os.Stderr, "vmtest: %s, kernel %s, image %.1f MiB made in %.2f s\n", j.VM, j.kernel.release,
			float64(info.Size())/(1<<20), time.Since(start).Seconds())
	}
	started := time.Now()
	code, err := j.start(image, o.kmsg)
	if o.verbose {
		fmt.Fprintf(os.Stderr, "vmtest: ended after %.2f s\n", time.Since(started).Seconds())
	}
	return code, err
}
