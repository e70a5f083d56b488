package dataplane

import (
	"os"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Sys is the daemon as the Plane knows it; the caller adds what it knows of
// the process (protections, subscribers).
func (p *Plane) Sys() abi.Sys {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	names := p.Names()
	s := abi.Sys{
		Version: p.cfg.Version, PID: uint32(os.Getpid()), Uptime: uint64(time.Since(p.started).Milliseconds()),
		RunDir: p.cfg.RunDir, StateDir: p.cfg.StateDir, DevDir: p.cfg.DevDir, Nodes: uint32(len(names)),
		Budget: uint64(p.budget.Total()), BudgetUsed: uint64(p.budget.Used()), Heap: heap[0].Value.Uint64(),
	}
	for _, name := range names {
		if n, err := p.Get(name); err == nil {
			s.Sessions += uint32(len(n.Status.Sessions))
		}
	}
	return s
}

// defaultBudget is an eighth of the machine's memory, in bytes.
func defaultBudget() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 256 << 20
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit) / 8)
}
