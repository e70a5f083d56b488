package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

// letters are the requests of short histories, on two sectors.
var letters = [...]step{
	{op: trans.Write, from: 0, n: 1},
	{op: trans.Write, from: 1, n: 1},
	{op: trans.Write, from: 0, n: 2},
	{op: trans.Write, from: 0, n: 1, flags: abi.FlagFUA},
	{op: trans.Discard, from: 0, n: 1},
	{op: trans.Flush},
	{op: trans.Read, from: 0, n: 2},
}

// blows are what happens behind one event of a short history. Those that lose a
// cache do so in two ways: nothing of it is left, or all.
var blows = [...]fault{
	{kind: faultCut}, {kind: faultHole, arg: 2, length: time.Second}, {kind: faultExport}, {kind: faultClient}, {kind: faultBoth},
	{kind: faultExportHost}, {kind: faultExportHost, arg: 1}, {kind: faultClientHost}, {kind: faultHosts}, {kind: faultHosts, arg: 1},
	{kind: faultSync}, {kind: faultEIO},
}

// histories are all sequences of at most so many letters, in turn and at once.
func histories(most int) (all []*plan) {
	for n := 1; n <= most; n++ {
		count := 1
		for range n {
			count *= len(letters)
		}
		for i := range count {
			for _, window := range []int{1, n} {
				p := &plan{set: settings{sectors: 2, window: window, depth: 4, workers: 4, pages: 16, records: 32, keepalive: 100 * time.Millisecond,
					logAge: time.Hour, net: 100 * time.Microsecond, disk: 100 * time.Microsecond, punch: true, fua: i%2 == 0, resent: true, exact: true, loseAll: true}}
				for k, rest := 0, i; k < n; k, rest = k+1, rest/len(letters) {
					p.steps = append(p.steps, letters[rest%len(letters)])
				}
				if all = append(all, p); n == 1 {
					break
				}
			}
		}
	}
	return all
}

// struck are the runs of p with one blow behind one event, for each of both; the
// first that is wrong ends that.
func (p *plan) struck(h harm) (wrong *plan, runs int, bad error) {
	quiet := newWorld(p, h, nil)
	if bad = quiet.run(); bad != nil {
		return p, 1, bad
	}
	for _, f := range blows {
		for f.event = 1; f.event <= quiet.calmed; f.event++ {
			q := *p
			q.set.lucky = f.arg == 1
			f.length = max(f.length, time.Millisecond)
			q.faults = []fault{f}
			runs++
			if bad = newWorld(&q, h, nil).run(); bad != nil {
				return &q, runs, bad
			}
		}
	}
	return nil, runs, nil
}

// exhaust runs every short history with every blow, on all processors.
func exhaust(most int, h harm) (wrong *plan, runs int64, bad error) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	all := histories(most)
	var next, count atomic.Int64
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all); i = next.Add(1) - 1 {
				q, n, err := all[i].struck(h)
				count.Add(int64(n))
				if err != nil {
					mu.Lock()
					wrong, bad = q, err
					mu.Unlock()
					return
				}
			}
		})
	}
	workers.Wait()
	return wrong, count.Load(), bad
}

// lettersMost is how long the histories are that are all run.
const lettersMost = 3

// runExhaustive is exhaust, told.
func runExhaustive(out io.Writer, h harm) int {
	began := time.Now()
	wrong, runs, bad := exhaust(lettersMost, h)
	fmt.Fprintf(out, "%d histories, %d runs in %v\n", len(histories(lettersMost)), runs, time.Since(began).Round(time.Millisecond))
	if bad == nil {
		return 0
	}
	fmt.Fprintln(out, bad)
	wrong.tell(out)
	_ = newWorld(wrong, h, out).quietly()
	return 1
}
