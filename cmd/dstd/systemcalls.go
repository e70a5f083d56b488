package main

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are system calls that a serving daemon never makes and that would let
// who took it over take more: other programs, other processes, the kernel, what
// is mounted. It is a list of what is forbidden, and not of what is allowed: the
// calls of a Go program and of its runtime change with every version, and one
// that is missing in the write-back path would stop a host.
var denied = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSPICK, unix.SYS_FSMOUNT,
}

// arches are the kernel's names of the instruction sets (linux/audit.h).
var arches = map[string]uint32{
	"386": unix.AUDIT_ARCH_I386, "amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "s390x": unix.AUDIT_ARCH_S390X,
}

// Where the kernel shows a filter what is called (struct seccomp_data of
// linux/seccomp.h), and the bit of amd64's other table of calls.
const (
	callNumber   = 0
	callArch     = 4
	callArgument = 16 // the first, 64 bits
	callX32      = 1 << 30
)

// lowArgument is where the lower 32 bits of the first argument are.
func lowArgument() uint32 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return callArgument + 4 // big-endian
	}
	return callArgument
}

// callFilter is a program that answers the denied calls, and all calls of another
// instruction set, with EPERM; and unshare but of open files, without which a
// thread that waits for a device would keep those of a killed daemon open.
func callFilter(arch uint32, denied []uint32) []unix.SockFilter {
	const load, equal, above, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	n := uint8(len(denied))
	f := []unix.SockFilter{
		{Code: load, K: callArch},
		{Code: equal, Jf: n + 6, K: arch},
		{Code: load, K: callNumber},
		{Code: above, Jt: n + 4, K: callX32},
		{Code: equal, Jf: 2, K: unix.SYS_UNSHARE},
		{Code: load, K: lowArgument()},
		{Code: equal, Jt: n, Jf: n + 1, K: unix.CLONE_FILES},
	}
	for i, call := range denied {
		f = append(f, unix.SockFilter{Code: equal, Jt: n - uint8(i), K: call})
	}
	return append(f, unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}

// denySystemCalls puts the filter before all threads, for good.
func denySystemCalls() error {
	arch, known := arches[runtime.GOARCH]
	if !known {
		return fmt.Errorf("no filter is known for %s: %w", runtime.GOARCH, unix.EOPNOTSUPP)
	}
	f := callFilter(arch, denied)
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(f)
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own: %w", thread, unix.EBUSY)
	}
	return nil
}
