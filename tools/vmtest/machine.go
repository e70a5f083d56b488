package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the host's end of a channel is called in the guest.
const (
	umlOut, umlExit   = "/dev/ttyS0", "/dev/ttyS1"
	qemuOut, qemuExit = "out", "exit"
)

// How long a machine may take to start, beside the program's own limit, and to power off when init has told all.
const (
	bootTime = 60 * time.Second
	offTime  = 5 * time.Second
)

// What init writes to the kernel's log when the program starts, and when it has ended.
const mark, markEnd = "vmtest: starts ", "vmtest: ends"

// Descriptors of the machine.
const (
	firstFD = outFD

	outFD   = 3 // takes the program's output
	exitFD  = 4 // takes its exit code
	logFD   = 5 // takes the kernel's log
	imageFD = 6 // is the root file system

	lastFD = imageFD
)

// start runs the machine and judges it. Of a program that failed the last words of the kernel are shown.
func (j *job) start(image *os.File, kmsg string) (int, error) {
	var log bytes.Buffer
	line, err := j.boot(image, &log)
	code := exitBroken
	if err == nil {
		code, err = judge(line)
	}
	if kmsg != "" {
		if werr := os.WriteFile(kmsg, log.Bytes(), 0o644); err == nil && werr != nil {
			code, err = exitBroken, werr
		}
	}
	if words := lastWords(log.String(), code == exitBroken); code != 0 && words != "" {
		fmt.Fprintf(os.Stderr, "vmtest: the last words of kernel %s:\n%s", j.kernel.release, words)
	}
	return code, err
}

// boot runs the machine until it ends, and returns what init said of the program's end.
func (j *job) boot(image *os.File, log io.Writer) (string, error) {
	cmd := kept(j.command())
	var ends [3]*os.File
	for i := range ends {
		ours, theirs, err := channel(j.VM)
		if err != nil {
			return "", err
		}
		defer ours.Close()
		defer theirs.Close()
		ends[i] = ours
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, image)
	// What the machine itself says is the log's, not the program's.
	cmd.Stdout, cmd.Stderr = cmd.ExtraFiles[logFD-firstFD], cmd.ExtraFiles[logFD-firstFD]
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%w (tools/setup installs what is missing)", err)
	}
	defer os.RemoveAll(filepath.Join(shm, umid()))
	for _, theirs := range cmd.ExtraFiles {
		_ = theirs.Close()
	}
	copied := make(chan error, 2)
	copyOut := func(w io.Writer, r io.Reader) {
		_, err := io.Copy(w, r)
		copied <- err
	}
	// Started by boot. Own the reading ends of the program's output and of the kernel's log. End when the machine has.
	go copyOut(j.out, ends[outFD-firstFD])
	go copyOut(log, ends[logFD-firstFD])
	said := make(chan string, 1)
	// Started by boot. Owns the reading end of the exit channel. Ends when init has told, or the machine has ended.
	go func() { said <- readLine(ends[exitFD-firstFD]) }()
	ended := make(chan error, 1)
	// Started by boot. Owns the machine's process. Ends when that has.
	go func() { ended <- cmd.Wait() }()

	line, err := j.watch(cmd, stop, said, ended)
	if cerr := errors.Join(<-copied, <-copied); err == nil {
		err = cerr
	}
	return line, err
}

// channel returns the two ends of a way out of the machine. User-mode Linux wants to be able to read from it too, and to wait for
// that, or complains in its kernel's log; QEMU opens what it is given once more, which a socket does not allow.
func channel(vm string) (ours, theirs *os.File, err error) {
	if vm == "qemu" {
		return os.Pipe()
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// watch waits for the machine's end, and brings it about: at a signal, when time is over, and when init has told all and yet does
// not power off.
func (j *job) watch(cmd *exec.Cmd, stop <-chan os.Signal, said <-chan string, ended <-chan error) (line string, err error) {
	late := time.After(j.Timeout + j.bootTime)
	kill := func(why error) {
		err = why
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	for {
		select {
		case werr := <-ended:
			// Processes of user-mode Linux may outlive its kernel.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			if said != nil {
				line = <-said
			}
			if line == "" && err == nil {
				err = errors.Join(errors.New("the guest ended without an exit code: a panic?"), werr)
			}
			return line, err
		case line = <-said:
			said = nil
			if line != "" {
				late = time.After(j.offTime)
			}
		case sig := <-stop:
			kill(fmt.Errorf("ended by %v", sig))
		case <-late:
			if line == "" {
				kill(fmt.Errorf("nothing heard of the guest for %v", j.Timeout+j.bootTime))
			} else {
				kill(nil)
			}
		}
	}
}

// readLine reads all and returns it up to a line's end; without one it is nothing.
func readLine(r io.Reader) string {
	var all []byte
	buf := make([]byte, 256)
	for len(all) < 4096 {
		n, err := r.Read(buf)
		all = append(all, buf[:n]...)
		if before, _, ok := bytes.Cut(all, []byte("\n")); ok {
			return string(before)
		}
		if err != nil {
			break
		}
	}
	return ""
}

// judge turns init's words into an exit code: "exit N", "signal N", or "broken" and what went wrong instead.
func judge(line string) (int, error) {
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
	n, err := strconv.ParseUint(rest, 10, 8)
	switch {
	case word == "exit" && err == nil:
		return int(n), nil
	case word == "signal" && err == nil && n > 0 && n < 128:
		return 128 + int(n), nil
	case word == "broken":
		return exitBroken, fmt.Errorf("in the guest: %s", rest)
	}
	return exitBroken, fmt.Errorf("the guest's exit code is unreadable: %q", line)
}

// lastWords returns the end of a kernel's log: of what came while the program ran, or of all.
func lastWords(log string, all bool) string {
	text := strings.ReplaceAll(log, "\r", "")
	if _, since, ok := strings.Cut(text, mark); ok && !all {
		_, text, _ = strings.Cut(since, "\n")
		text, _, _ = strings.Cut(text, markEnd)
		// What is left behind the last line's end is the time at which the mark was written.
		text = text[:strings.LastIndex(text, "\n")+1]
	}
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// umid is the name of the directory in which user-mode Linux keeps its files while it runs.
func umid() string { return fmt.Sprintf("vmtest-%d", os.Getpid()) }

// command is the machine.
func (j *job) command() *exec.Cmd {
	// A kernel that oopses has stopped being one whose answers count.
	line := "loglevel=7 panic=-1 oops=panic rootfstype=tmpfs"
	fd := func(n int) string { return fmt.Sprintf("/proc/self/fd/%d", n) }
	if j.VM == "uml" {
		args := []string{"initrd=" + fd(imageFD), fmt.Sprintf("mem=%dM", j.Mem), "uml_dir=" + shm, "umid=" + umid(), "con=null", "ssl=null",
			fmt.Sprintf("con0=fd:%d", logFD), fmt.Sprintf("ssl0=fd:%d", outFD), fmt.Sprintf("ssl1=fd:%d", exitFD)}
		cmd := exec.Command(j.kernel.image, append(args, strings.Fields(line)...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+shm)
		return cmd
	}
	port := func(n int, name string) []string {
		return []string{"-chardev", "file,id=" + name + ",path=" + fd(n), "-device", "virtserialport,chardev=" + name + ",name=" + name}
	}
	// The processor called max has random numbers of its own: without them a program that wants some waits for seconds.
	args := []string{"-accel", "tcg,thread=multi", "-cpu", "max", "-M", "pc", "-m", strconv.Itoa(j.Mem), "-smp", strconv.Itoa(j.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + fd(logFD),
		"-kernel", j.kernel.image, "-initrd", fd(imageFD), "-append", line + " console=ttyS0 mitigations=off random.trust_cpu=on",
		"-device", "virtio-serial-pci"}
	args = append(args, port(outFD, qemuOut)...)
	return exec.Command("qemu-system-x86_64", append(args, port(exitFD, qemuExit)...)...)
}
