package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guest is init: it makes the guest ready, runs the program, tells how that ended, and powers off. It does not return.
func guest() {
	var say *os.File
	end := func(line string) {
		if say != nil {
			_, _ = say.WriteString(line + "\n")
			drained(say)
		}
		powerOff()
	}
	broken := func(what string, err error) {
		end("broken " + what + ": " + strings.ReplaceAll(err.Error(), "\n", " "))
	}

	if err := mountAll(); err != nil {
		fmt.Println(err)
	}
	var o order
	text, err := os.ReadFile(orderFile)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		fmt.Println(err)
		powerOff()
	}
	out, exit, err := channels(o.UML)
	if err != nil {
		fmt.Println(err)
		powerOff()
	}
	say = exit
	if err := loadAll(o.Modules); err != nil {
		broken("module", err)
	}
	if err := networkUp(); err != nil {
		broken("network", err)
	}
	line, err := runProgram(o, out)
	if err != nil {
		broken("program", err)
	}
	end(line)
}

// mountAll mounts what every Linux system has. /tmp stays on the root, where the program may lie.
func mountAll() error {
	var errs []error
	for _, m := range []struct{ kind, at, data string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"tmpfs", "/run", "mode=755"},
		{"devpts", "/dev/pts", "ptmxmode=666"}, {"tmpfs", "/dev/shm", "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", ""}, {"debugfs", "/sys/kernel/debug", ""},
	} {
		_ = os.MkdirAll(m.at, 0o755)
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) && m.kind != "debugfs" {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.at, err))
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		_ = os.Symlink(target, "/dev/"+name)
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	errs = append(errs, os.Symlink("/proc/self/mounts", "/etc/mtab"), unix.Sethostname([]byte("vm")))
	return errors.Join(errs...)
}

// channels opens the two ways to the host: for the program's output, and for its exit code.
func channels(uml bool) (out, exit *os.File, err error) {
	if uml {
		if out, err = openRaw(umlOut); err == nil {
			exit, err = openRaw(umlExit)
		}
		return out, exit, err
	}
	if out, err = openPort(qemuOut); err == nil {
		exit, err = openPort(qemuExit)
	}
	return out, exit, err
}

// openRaw opens a serial line that changes nothing of what is written (termios(3), cfmakeraw).
func openRaw(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openPort opens the virtio port of that name, which appears a little after the kernel has started.
func openPort(name string) (*os.File, error) {
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, port := range ports {
			text, err := os.ReadFile(port)
			if err != nil || strings.TrimSpace(string(text)) != name {
				continue
			}
			path := "/dev/" + filepath.Base(filepath.Dir(port))
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return os.NewFile(uintptr(fd), path), nil
		}
	}
	return nil, fmt.Errorf("no virtio port is named %s", name)
}

// loadAll loads the modules that are to be loaded.
func loadAll(modules []module) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	for _, m := range modules {
		if !m.Load {
			continue
		}
		f, err := os.Open(filepath.Join(moduleDir, unix.ByteSliceToString(uts.Release[:]), m.Name+".ko"))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), m.Params, 0)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("%s %s: %w", m.Name, m.Params, err)
		}
	}
	return nil
}

// networkUp brings lo up.
func networkUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// runProgram runs it with its output going to out, reaps whatever else ends meanwhile, and returns what to tell the host.
func runProgram(o order, out *os.File) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", err
	}
	logKernel(mark + filepath.Base(o.Argv[0]))
	// The pipe, since a channel can be opened only once, and programs open /dev/stdout.
	p, err := os.StartProcess(o.Argv[0], o.Argv, &os.ProcAttr{
		Dir: o.Dir, Env: o.Env, Files: []*os.File{null, w, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return "", err
	}
	_ = w.Close()
	copied := make(chan struct{})
	// Started by runProgram. Owns the reading end of the pipe while it runs. Ends when nobody has the other end, or when the
	// program has ended.
	go func() {
		defer close(copied)
		copyAll(out, r)
	}()
	ended := make(chan unix.WaitStatus, 1)
	// Started by runProgram. Owns all children. Ends when the program has.
	go func() { ended <- reap(p.Pid) }()

	line := ""
	select {
	case status := <-ended:
		line = fmt.Sprintf("exit %d", status.ExitStatus())
		if status.Signaled() {
			line = fmt.Sprintf("signal %d", status.Signal())
		}
	case <-time.After(o.Timeout):
		line = fmt.Sprintf("broken it took more than %v", o.Timeout)
		askWhy(p.Pid, ended)
	}
	logKernel(markEnd)
	_ = r.SetReadDeadline(time.Now())
	<-copied
	copyRest(out, r)
	drained(out)
	return line, nil
}

// reap waits for the program's end, and takes the other children of a process 1.
func reap(pid int) unix.WaitStatus {
	for {
		var status unix.WaitStatus
		if got, err := unix.Wait4(-1, &status, 0, nil); err == nil && got == pid {
			return status
		}
	}
}

// askWhy makes a program that hangs tell where: a Go program all its goroutines, the kernel all tasks that wait for a device.
func askWhy(pid int, ended <-chan unix.WaitStatus) {
	logKernel("vmtest: time is over; tasks that wait:")
	_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
	_ = unix.Kill(-pid, unix.SIGQUIT)
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
		logKernel("vmtest: it did not end by SIGQUIT")
	}
}

// copyAll copies until a read fails: the file's end, or its deadline.
func copyAll(out, r *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// copyRest copies what is in the pipe and not one byte more: what the program left running may write for ever.
func copyRest(out, r *os.File) {
	conn, err := r.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			return
		}
		buf := make([]byte, n)
		if n, err = unix.Read(int(fd), buf); err == nil {
			_, _ = out.Write(buf[:n])
		}
	})
}

// drained waits until the host has taken what was written: powering off would lose it.
func drained(f *os.File) {
	fd := int(f.Fd())
	if unix.IoctlSetInt(fd, unix.TCSBRK, 1) == nil {
		return
	}
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

func logKernel(line string) { _ = os.WriteFile("/dev/kmsg", []byte("<6>"+line+"\n"), 0) }

// powerOff ends the machine: user-mode Linux would start again if it were told to, QEMU ends faster that way.
func powerOff() {
	if _, err := os.Stat("/sys/class/virtio-ports"); err == nil {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
