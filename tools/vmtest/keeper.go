package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeperName is vmtest's name when it runs as the first process of the machine's namespaces.
const keeperName = "vmtest-keeper"

// shm is where user-mode Linux has its memory and its files. The keeper mounts one of its own there.
const shm = "/dev/shm"

// kept lets a machine be run by a keeper: however vmtest dies, the keeper dies with it, and with the keeper everything in its
// namespaces. User-mode Linux is several processes, some of which outlive its kernel. Only root may do that; another user's machine
// runs as it is.
func kept(machine *exec.Cmd) *exec.Cmd {
	sys := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	machine.SysProcAttr = sys
	if os.Geteuid() != 0 || machine.Err != nil {
		return machine
	}
	sys.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{keeperName, machine.Path}, machine.Args...)
	cmd.Env, cmd.SysProcAttr = machine.Env, sys
	return cmd
}

// keeper runs the machine with the descriptors that boot gave it, and ends with it. It does not return.
func keeper(args []string) {
	if err := keep(args[0], args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func keep(path string, args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("tmpfs", shm, "tmpfs", 0, "mode=1777"); err != nil {
		return fmt.Errorf("mount %s: %w", shm, err)
	}
	cmd := exec.Command(path)
	cmd.Args = args
	for fd := uintptr(firstFD); fd <= lastFD; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(fd, ""))
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
