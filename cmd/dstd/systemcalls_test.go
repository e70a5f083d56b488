package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// tryDenied calls everything that is denied, from a thread that is not the one
// that put the filter up, and what a daemon needs; it prints what went wrong.
func tryDenied() {
	started, filtered, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		close(started)
		<-filtered
		for _, call := range denied {
			// Arguments that no call takes: what gets past the filter fails in another way.
			if _, _, errno := unix.RawSyscall6(uintptr(call), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0)); errno != unix.EPERM {
				fmt.Printf("call %d: %v\n", call, errno)
			}
		}
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FILES); !errors.Is(err, unix.EPERM) {
			fmt.Println("name spaces of its own:", err)
		}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil { // what waits for a device has no file of the daemon
			fmt.Println("files of its own:", err)
		}
		if fd, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			fmt.Println("open:", err)
		} else {
			_ = unix.Close(fd)
		}
		if _, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{}); !errors.Is(err, unix.EPERM) {
			fmt.Println("another program started:", err)
		}
	}()
	<-started
	if err := errors.Join(noNewPrivileges(), denySystemCalls()); err != nil {
		fmt.Println(err)
	}
	close(filtered)
	<-done
}

func TestSystemCallsAreDenied(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "DSTD_TEST_DENIED=1")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCallFilter walks through the program as the kernel does.
func TestCallFilter(t *testing.T) {
	const arch = unix.AUDIT_ARCH_AARCH64
	denied := []uint32{59, 101, 4000}
	for _, tt := range []struct {
		arch, call, argument uint32
		pass                 bool
	}{
		{arch, 0, 0, true}, {arch, 58, 0, true}, {arch, 60, 0, true}, {arch, 1 << 20, 0, true},
		{arch, 59, 0, false}, {arch, 101, 0, false}, {arch, 4000, 0, false},
		{arch, unix.SYS_UNSHARE, unix.CLONE_FILES, true}, {arch, unix.SYS_UNSHARE, 0, false},
		{arch, unix.SYS_UNSHARE, unix.CLONE_FILES | unix.CLONE_NEWUSER, false}, {arch, 101, unix.CLONE_FILES, false},
		{arch, callX32, 0, false}, {arch, callX32 | 1, 0, false}, {arch, ^uint32(0), 0, false},
		{unix.AUDIT_ARCH_I386, 0, 0, false}, {unix.AUDIT_ARCH_I386, unix.SYS_UNSHARE, unix.CLONE_FILES, false},
	} {
		if pass := interpret(t, callFilter(arch, denied), tt.arch, tt.call, tt.argument); pass != tt.pass {
			t.Errorf("arch %#x call %d of %#x: %v", tt.arch, tt.call, tt.argument, pass)
		}
	}
}

// interpret is what a filter answers, as far as ours go.
func interpret(t *testing.T, f []unix.SockFilter, arch, call, argument uint32) (pass bool) {
	t.Helper()
	var acc uint32
	for pc := 0; ; pc++ {
		op := f[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(op.Jt)
			} else {
				pc += int(op.Jf)
			}
		}
		switch op.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = map[uint32]uint32{callNumber: call, callArch: arch, lowArgument(): argument}[op.K]
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == op.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= op.K)
		case unix.BPF_RET | unix.BPF_K:
			return op.K == unix.SECCOMP_RET_ALLOW
		default:
			t.Fatalf("instruction %+v", op)
		}
	}
}
