package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What the host's end of a channel is called in the guest.
const (
	umlOut, umlExit   = "/dev/ttyS0", "/dev/ttyS1"
	qemuOut, qemuExit = "out", "exit"
)

// bootTime is how long a machine may take to start and to end, beside the program's own limit.
const bootTime = 60 * time.Second

// mark is what init writes to the kernel's log when the program starts.
const mark = "vmtest: starts "

// start runs the machine and judges it. Of a program that failed the last words of the kernel are shown.
func (j *job) start(dir, kmsg string) (int, error) {
	log, err := os.Create(kmsg)
	if err != nil {
		return exitBroken, err
	}
	defer log.Close()
	line, err := j.boot(dir, log)
	code := exitBroken
	if err == nil {
		code, err = judge(line)
	}
	if code != 0 {
		text, rerr := os.ReadFile(kmsg)
		if rerr != nil {
			text = []byte(rerr.Error())
		}
		fmt.Fprintf(os.Stderr, "vmtest: the kernel's last words (%s):\n%s", j.kernel.release, lastWords(text, code == exitBroken))
	}
	return code, err
}

// boot runs the machine until it ends, and returns what init said of the program's end.
func (j *job) boot(dir string, log *os.File) (string, error) {
	out, toOut, err := os.Pipe()
	if err != nil {
		return "", err
	}
	exit, toExit, err := os.Pipe()
	if err != nil {
		return "", err
	}
	cmd := j.command(dir)
	cmd.ExtraFiles = []*os.File{toOut, toExit, log}
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// What the machine itself says is the log's, not the program's.
	cmd.Stdout, cmd.Stderr = log, log
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%w (tools/setup installs what is missing)", err)
	}
	_ = toOut.Close()
	_ = toExit.Close()

	copied := make(chan error, 1)
	// Started by boot. Owns the reading end of the program's output. Ends when the machine has.
	go func() {
		_, err := io.Copy(os.Stdout, out)
		copied <- err
	}()
	said := make(chan string, 1)
	// Started by boot. Owns the reading end of the exit channel. Ends when the machine has.
	go func() { said <- readLine(exit) }()
	ended := make(chan error, 1)
	// Started by boot. Owns the machine's process. Ends when that has.
	go func() { ended <- cmd.Wait() }()

	line, err := j.watch(cmd, stop, said, ended)
	if cerr := <-copied; err == nil {
		err = cerr
	}
	return line, err
}

// watch waits for the machine's end, and brings it about: at a signal, when time is over, and when init has told all and yet does
// not power off.
func (j *job) watch(cmd *exec.Cmd, stop <-chan os.Signal, said <-chan string, ended <-chan error) (line string, err error) {
	late := time.After(j.Timeout + bootTime)
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
				err = fmt.Errorf("the guest ended without an exit code (a panic?); its machine: %s", or(fmt.Sprint(werr), "exit status 0"))
			}
			return line, err
		case line = <-said:
			said = nil
			if line != "" {
				late = time.After(5 * time.Second)
			}
		case sig := <-stop:
			kill(fmt.Errorf("ended by %v", sig))
		case <-late:
			if line == "" {
				kill(fmt.Errorf("nothing heard of the guest for %v", j.Timeout+bootTime))
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

// lastWords returns the end of a kernel's log: what came since the program started, or, if that is not enough, all kinds of it.
func lastWords(log []byte, all bool) string {
	text := strings.ReplaceAll(string(log), "\r", "")
	if _, since, ok := strings.Cut(text, mark); ok && !all {
		_, text, _ = strings.Cut(since, "\n")
	}
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// command is the machine. Its descriptors: 3 takes the program's output, 4 its exit code, 5 the kernel's log.
func (j *job) command(dir string) *exec.Cmd {
	// A kernel that oopses has stopped being one whose answers count.
	line := "loglevel=7 panic=-1 oops=panic rootfstype=tmpfs"
	if j.VM == "uml" {
		args := []string{"initrd=" + dir + "/image", fmt.Sprintf("mem=%dM", j.Mem), "uml_dir=" + dir, "umid=vm",
			"con=null", "con0=null,fd:5", "ssl=null", "ssl0=null,fd:3", "ssl1=null,fd:4"}
		return exec.Command(j.kernel.image, append(args, strings.Fields(line)...)...)
	}
	port := func(n int, name string) []string {
		return []string{"-chardev", fmt.Sprintf("file,id=%s,path=/proc/self/fd/%d", name, n), "-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name)}
	}
	// The processor called max has random numbers of its own: without them a program that wants some waits for seconds.
	args := []string{"-accel", "tcg,thread=multi", "-cpu", "max", "-M", "pc", "-m", strconv.Itoa(j.Mem), "-smp", strconv.Itoa(j.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:/proc/self/fd/5",
		"-kernel", j.kernel.image, "-initrd", dir + "/image", "-append", line + " console=ttyS0 mitigations=off random.trust_cpu=on",
		"-device", "virtio-serial-pci"}
	args = append(args, port(3, qemuOut)...)
	return exec.Command("qemu-system-x86_64", append(args, port(4, qemuExit)...)...)
}
