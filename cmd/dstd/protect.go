package main

import (
	"fmt"
	"os"

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

// capable reports whether this process has a capability in effect.
func capable(c int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// shield is one protective setting, and what to do if it cannot be had.
type shield struct {
	name, remedy string
	apply        func() error
}

// shields take the daemon out of the ways in which a process in the write-back
// path can deadlock the host: memory it frees must not need memory.
var shields = []shield{
	{"io-flusher", "run it with CAP_SYS_RESOURCE", ioFlusher},
	{"memory-lock", "run it with CAP_IPC_LOCK or LimitMEMLOCK=infinity", lockMemory},
	{"oom-score", "run it with CAP_SYS_RESOURCE or OOMScoreAdjust=-1000", oomScore},
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

// ioFlusher marks every thread of the process as one that writes back memory
// (PR_SET_IO_FLUSHER, linux/prctl.h). The mark is per thread and inherited, so
// it is set once and the program starts again: no thread is left out.
func ioFlusher() error {
	if on, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0); err == nil && on == 1 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("starting again: %w", unix.Exec(self, os.Args, os.Environ()))
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
