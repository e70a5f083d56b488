package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// felt is how long answers took, in microseconds.
type felt struct {
	N     int `json:"n"`
	P50   int `json:"p50"`
	P99   int `json:"p99"`
	Max   int `json:"max"`
	times []time.Duration
}

func (f *felt) add(times []time.Duration) { f.times = append(f.times, times...) }

// sum makes figures of the times.
func (f *felt) sum() {
	if f.N = len(f.times); f.N == 0 {
		return
	}
	slices.Sort(f.times)
	at := func(part int) int { return int(f.times[(f.N-1)*part/100].Microseconds()) }
	f.P50, f.P99, f.Max = at(50), at(99), at(100)
}

// taken is what the daemon takes, memory in KiB.
type taken struct {
	RSSBefore int `json:"rss_before"`
	RSSMost   int `json:"rss_most"`
	FDsBefore int `json:"fds_before"`
	FDsMost   int `json:"fds_most"`
}

// daemon is a process that is looked at.
type daemon struct {
	pid              int
	rss, fds         int
	mostRSS, mostFDs int
}

func (d *daemon) look() {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	if _, rest, ok := strings.Cut(string(status), "VmRSS:"); ok {
		_, _ = fmt.Sscan(rest, &d.rss)
	}
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid)); err == nil {
		d.fds = len(open)
	}
	d.mostRSS, d.mostFDs = max(d.mostRSS, d.rss), max(d.mostFDs, d.fds)
}

// watch looks ten times a second. Started by run. Ends when over is closed.
func (d *daemon) watch(over <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			d.look()
		}
	}
}
