package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kept are the capabilities that the daemon goes on with, see capabilities(7).
const kept uint64 = 1<<unix.CAP_DAC_OVERRIDE | // a store may belong to anybody
	1<<unix.CAP_IPC_LOCK | // payload memory and keys are locked
	1<<unix.CAP_NET_ADMIN | // the control doors, and room in sockets
	1<<unix.CAP_NET_BIND_SERVICE | // ports below 1024
	1<<unix.CAP_SYS_ADMIN | // kernel devices, the tmpfs of the run directory, attributes of stores that only root sees
	1<<unix.CAP_SYS_PTRACE | // who has a device open or mounted is named; the first network namespace
	1<<unix.CAP_SYS_RESOURCE // the io-flusher mark and the oom score

// capabilities are those of this thread.
func capabilities() (header unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	header.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err = unix.Capget(&header, &data[0]); err != nil {
		err = fmt.Errorf("capget: %w", err)
	}
	return header, data, err
}

// capable reports whether this process has a capability in effect.
func capable(c int) bool {
	_, data, err := capabilities()
	return err == nil && data[c/32].Effective&(1<<(c%32)) != 0
}

// limitCapabilities gives up what is not kept, for this thread and for whatever
// it starts. A bound that cannot be lowered, without CAP_SETPCAP, is no error:
// who may gain no privileges does not reach it.
func limitCapabilities() error {
	for c := range 64 {
		if kept&(1<<c) != 0 {
			continue
		}
		bound, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break // the kernel knows no more of them
		}
		if bound == 1 && unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) != nil {
			break
		}
	}
	header, data, err := capabilities()
	if err != nil {
		return err
	}
	for i := range data {
		mask := uint32(kept >> (32 * i))
		data[i].Permitted &= mask
		data[i].Effective &= mask
		data[i].Inheritable &= mask // what is ambient is inherited, and is how another user than root runs it
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
