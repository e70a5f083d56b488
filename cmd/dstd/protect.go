package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// needNetAdmin refuses to run without the one capability that nothing works
// without: the control door.
func needNetAdmin() error {
	if !capable(unix.CAP_NET_ADMIN) {
		return fmt.Errorf("dstd needs CAP_NET_ADMIN: run it as root: %w", unix.EPERM)
	}
	return nil
}

// shield is one protective setting, and what to do if it cannot be had.
type shield struct {
	name, remedy string
	apply        func() error
}

// threadShields hold for the thread that applies them, and for what it makes
// and becomes: they are applied before the program starts again, and once more
// afterwards, to tell whether they took effect.
var threadShields = []shield{
	{"io-flusher", "run it with CAP_SYS_RESOURCE", ioFlusher},
	{"no-new-privileges", "run it on Linux 3.5 or newer", noNewPrivileges},
	{"capabilities", "run it with CAP_SETPCAP, or with fewer capabilities", limitCapabilities},
}

// shields take the daemon out of the ways in which a process in the write-back
// path can deadlock the host (memory it frees must not need memory), and out of
// those in which its memory, with the keys in it, can reach others.
var shields = append(threadShields[:len(threadShields):len(threadShields)],
	shield{"memory-lock", "run it with CAP_IPC_LOCK or LimitMEMLOCK=infinity", lockMemory},
	shield{"oom-score", "run it with CAP_SYS_RESOURCE or OOMScoreAdjust=-1000", oomScore},
	shield{"no-dumps", "run it with LimitCORE=0", noDumps},
)

// lateShields are raised when the daemon has set up what they forbid: it
// mounts its run directory.
var lateShields = []shield{
	{"system-calls", "run it on a kernel with seccomp filters", denySystemCalls},
}

// protect raises the shields. One that does not take effect is a warning here
// and a line in `dstctl sys show`.
func protect(shields []shield, log zerolog.Logger) (done []abi.Protection) {
	for _, s := range shields {
		p := abi.Protection{Name: s.name, Active: true}
		if err := s.apply(); err != nil {
			p.Active, p.Reason = false, fmt.Sprintf("%v: %s", err, s.remedy)
			log.Warn().Str("protection", s.name).Msg(p.Reason)
		}
		done = append(done, p)
	}
	return done
}

// again, in the environment, is the id of the process that has started itself
// again.
const again = "DSTD_AGAIN"

// startAgain raises the shields of a thread and starts the program again, so
// that no thread of it is left out; prepare is done before that, with all
// rights. The second time it returns nil at once. An error: the program did not
// start again, and goes on with threads that may do more than they should.
func startAgain(prepare func()) error {
	pid := strconv.Itoa(os.Getpid())
	if os.Getenv(again) == pid {
		return os.Unsetenv(again)
	}
	prepare()
	runtime.LockOSThread() // what is set and what starts again is one thread
	defer runtime.UnlockOSThread()
	for _, s := range threadShields {
		_ = s.apply() // told when it fails again
	}
	self, err := os.Executable()
	if err == nil {
		err = unix.Exec(self, os.Args, append(os.Environ(), again+"="+pid))
	}
	return fmt.Errorf("the program can not start itself again, with all its threads protected: %w", err)
}

// ioFlusher marks the thread as one that writes back memory
// (PR_SET_IO_FLUSHER, linux/prctl.h).
func ioFlusher() error {
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
	}
	return nil
}

// noNewPrivileges: nothing that the daemon could start has more rights than it.
func noNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	return nil
}

// lockMemory keeps what the daemon has touched in memory. MCL_ONFAULT: the
// reserve of address space that the Go runtime makes must not become memory.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// oomScore asks the kernel to kill anything else first.
func oomScore() error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}

// noDumps keeps the daemon's memory out of core files and from being looked at
// by processes of its own user. Not inherited: it is set after the last exec.
func noDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	return nil
}
