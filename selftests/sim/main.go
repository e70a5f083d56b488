// Sim is the deterministic simulator of the failover contract: the cores that
// ship (remote.Core with its log, export.Core), the wire's frames and the
// reconnect policy, driven by one goroutine from a seed through networks that
// are cut at any byte, stores that fail, hosts that lose power and processes
// that die. What users were told is held against what they may see.
//
//	go run ./selftests/sim -seeds 100000       that many seeds, from a new base
//	go run ./selftests/sim -seed 7 -v          one seed, told step by step
//	go run -tags sim ./selftests/sim -variant all   how soon each harmful variant is caught
//	go run ./selftests/sim -exhaustive         every short history
//
// A seed that fails is made smaller and printed with the command that runs it
// again.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 0, "run this seed (with -seeds: the first of them)")
	seeds := flag.Uint64("seeds", 0, "how many seeds to run")
	verbose := flag.Bool("v", false, "tell what happens")
	name := flag.String("variant", "", "break the system in this way (built with -tags sim); all: a table of all variants")
	exhaustive := flag.Bool("exhaustive", false, "run every short history")
	flag.Parse()
	h, err := harmOf(*name)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case *name == "all":
		if !table(os.Stdout, max(*seed, 1)) {
			os.Exit(1)
		}
	case *exhaustive:
		os.Exit(runExhaustive(os.Stdout, h))
	case *seeds == 0:
		os.Exit(runOne(os.Stdout, *seed, h, *verbose))
	default:
		if *seed == 0 {
			*seed = uint64(time.Now().UnixNano()) &^ 0xffff
		}
		os.Exit(runMany(os.Stdout, *seed, *seeds, h))
	}
}

// runOne runs one seed.
func runOne(out io.Writer, seed uint64, h harm, verbose bool) int {
	p := newPlan(seed)
	if verbose {
		p.tell(out)
	}
	log := out
	if !verbose {
		log = nil
	}
	if bad := newWorld(p, h, log).run(); bad != nil {
		report(out, p, h, bad)
		return 1
	}
	fmt.Fprintln(out, "ok")
	return 0
}

// tell prints the plan.
func (p *plan) tell(out io.Writer) {
	fmt.Fprintf(out, "seed %d\n%+v\n", p.seed, p.set)
	for i, s := range p.steps {
		fmt.Fprintf(out, "  step %d: %v\n", i, s)
	}
	for _, f := range p.faults {
		fmt.Fprintf(out, "  fault: %v\n", f)
	}
}

// report prints a failing seed and the least of it that still fails.
func report(out io.Writer, p *plan, h harm, bad error) {
	how := "./selftests/sim"
	if h != 0 {
		how = fmt.Sprintf("-tags sim ./selftests/sim -variant %v", h)
	}
	fmt.Fprintf(out, "seed %d: %v\n  again: go run %s -seed %d -v", p.seed, bad, how, p.seed)
	small, bad := shrink(p, h, bad)
	fmt.Fprintf(out, "\nthe least of it that is wrong: %v\n", bad)
	small.tell(out)
	fmt.Fprintln(out, "what happens then:")
	_ = newWorld(small, h, out).quietly()
}

// runMany runs seeds, on all processors, and stops at the first that fails.
func runMany(out io.Writer, first, n uint64, h harm) int {
	began := time.Now()
	seed, done, bad := search(first, n, h)
	took := time.Since(began)
	fmt.Fprintf(out, "%d seeds from %d in %v: %.0f a second\n", done, first, took.Round(time.Millisecond), float64(done)/took.Seconds())
	if bad == nil {
		return 0
	}
	report(out, newPlan(seed), h, bad)
	return 1
}

// search runs the seeds from first on, n of them, until one fails: the least
// that was found.
func search(first, n uint64, h harm) (seed, done uint64, bad error) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a run leaves little behind, and soon
	var next, count atomic.Uint64
	var stop atomic.Bool
	var mu sync.Mutex
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for !stop.Load() {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				err := newWorld(newPlan(first+i), h, nil).run()
				count.Add(1)
				if err == nil {
					continue
				}
				stop.Store(true)
				mu.Lock()
				if bad == nil || first+i < seed {
					seed, bad = first+i, err
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return seed, count.Load(), bad
}
