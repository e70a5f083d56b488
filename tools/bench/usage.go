package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// usage is the CPU time of a process: of all its threads, those that ended included.
type usage struct {
	total        time.Duration // exact
	user, system time.Duration // as the kernel divides it, in ticks of 10 ms
}

func (u usage) sub(v usage) usage {
	return usage{u.total - v.total, u.user - v.user, u.system - v.system}
}

// readUsage reads what a process has used so far. Source: clock_getcpuclockid(3), proc_pid_stat(5).
func readUsage(pid int) (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	if u, err = parseStat(stat); err != nil {
		return u, err
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(cpuClock(pid), &ts); err != nil {
		return u, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	u.total = time.Duration(ts.Nano())
	return u, nil
}

// cpuClock is the clock of a process's CPU time: CPUCLOCK_SCHED of <linux/posix-timers.h> below the inverted number of the process.
func cpuClock(pid int) int32 { return ^int32(pid)<<3 | 2 }

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture that Go knows.
const tick = time.Second / 100

// parseStat reads user and system time from the line of /proc/PID/stat. The name of the program, in parentheses, may hold anything.
func parseStat(line []byte) (u usage, err error) {
	const utime, stime = 14 - 3, 15 - 3 // fields are counted from 1; the third follows the name
	field := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(field) <= stime {
		return u, fmt.Errorf("%q is no line of /proc/PID/stat", line)
	}
	user, err1 := strconv.ParseUint(string(field[utime]), 10, 63)
	system, err2 := strconv.ParseUint(string(field[stime]), 10, 63)
	if err1 != nil || err2 != nil {
		return u, fmt.Errorf("%q is no line of /proc/PID/stat", line)
	}
	u.user, u.system = time.Duration(user)*tick, time.Duration(system)*tick
	u.total = u.user + u.system
	return u, nil
}
