package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// cpu is what a process used per request, microseconds.
type cpu struct {
	Total  float64 `json:"total_us"` // exact
	User   float64 `json:"user_us"`  // to 10 ms of the whole measurement
	System float64 `json:"system_us"`
}

// sample is one measurement, or the medians of several.
type sample struct {
	IOPS   float64 `json:"iops"`
	MiBs   float64 `json:"mib_per_s"`
	P50    float64 `json:"p50_us"`
	P99    float64 `json:"p99_us"`
	Near   cpu     `json:"near"` // the process the client speaks to
	Far    cpu     `json:"far"`  // the one that has the file
	Client cpu     `json:"client"`
}

// cost is the CPU time of both processes per request, microseconds.
func (s sample) cost() float64 { return s.Near.Total + s.Far.Total }

// result is what one system did in one case.
type result struct {
	Name   string   `json:"name"`
	Median sample   `json:"median"`
	Cost   float64  `json:"cpu_us"` // median of near and far together
	Spread float64  `json:"spread"` // of IOPS: (highest - lowest) / median
	Rounds []sample `json:"rounds"`
}

// row is a case.
type row struct {
	Op      string   `json:"op"`
	Block   int      `json:"block"`
	Random  bool     `json:"random"`
	Depth   int      `json:"depth"`
	Systems []result `json:"systems"`
	Ratios  []ratio  `json:"ratios,omitempty"`

	shape shape
}

// ratio is one system / another: the median of the rounds, each pair divided.
type ratio struct {
	Of     string  `json:"of"`
	To     string  `json:"to"`
	IOPS   float64 `json:"iops"`
	PerCPU float64 `json:"requests_per_cpu_second"`
}

// report is all that a run found.
type report struct {
	Schema     int               `json:"schema"`
	Kernel     string            `json:"kernel"`
	CPUs       int               `json:"cpus"`
	Congestion string            `json:"tcp_congestion_control"`
	Versions   map[string]string `json:"versions"`
	Dir        string            `json:"dir,omitempty"` // of the files; none: tmpfs
	Size       int64             `json:"size"`
	Rounds     int               `json:"rounds"`
	Time       float64           `json:"time_s"`
	Cases      []row             `json:"cases"`

	names []string
	base  int // which of them the others are held against
}

func newReport(o *options, systems []*system) *report {
	r := &report{Schema: 2, CPUs: runtime.NumCPU(), Congestion: o.congestion, Versions: map[string]string{}, Dir: o.dir,
		Size: o.size, Rounds: o.rounds, Time: o.time.Seconds()}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		r.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if r.Congestion == "" { // a new namespace has the first one's
		text, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
		r.Congestion = strings.TrimSpace(string(text))
	}
	if o.channels == nil {
		r.base = 1 // dst is held against its peer
	}
	for _, y := range systems {
		r.names = append(r.names, y.name)
		r.Versions[y.name] = y.version
	}
	return r
}

func newRow(c shape, systems int) row {
	return row{Op: c.op, Block: c.block, Random: c.random, Depth: c.depth, Systems: make([]result, systems), shape: c}
}

// add takes a case whose rounds are complete.
func (r *report) add(w row) {
	for i := range w.Systems {
		y := &w.Systems[i]
		y.Name = r.names[i]
		of := func(f func(sample) float64) float64 { return median(column(y.Rounds, f)) }
		process := func(f func(sample) cpu) cpu {
			return cpu{of(func(s sample) float64 { return f(s).Total }), of(func(s sample) float64 { return f(s).User }),
				of(func(s sample) float64 { return f(s).System })}
		}
		y.Median = sample{
			IOPS:   of(func(s sample) float64 { return s.IOPS }),
			MiBs:   of(func(s sample) float64 { return s.MiBs }),
			P50:    of(func(s sample) float64 { return s.P50 }),
			P99:    of(func(s sample) float64 { return s.P99 }),
			Near:   process(func(s sample) cpu { return s.Near }),
			Far:    process(func(s sample) cpu { return s.Far }),
			Client: process(func(s sample) cpu { return s.Client }),
		}
		y.Cost = of(sample.cost)
		y.Spread = spread(column(y.Rounds, func(s sample) float64 { return s.IOPS }))
	}
	for i := range w.Systems {
		if i != r.base && r.base < len(w.Systems) {
			w.Ratios = append(w.Ratios, newRatio(&w.Systems[i], &w.Systems[r.base]))
		}
	}
	r.Cases = append(r.Cases, w)
}

func column(rounds []sample, f func(sample) float64) (list []float64) {
	for _, s := range rounds {
		list = append(list, f(s))
	}
	return list
}

func newRatio(of, to *result) ratio {
	var iops, perCPU []float64
	for i, a := range of.Rounds {
		b := to.Rounds[i]
		iops = append(iops, a.IOPS/b.IOPS)
		perCPU = append(perCPU, b.cost()/a.cost())
	}
	return ratio{of.Name, to.Name, median(iops), median(perCPU)}
}

// print writes the report.
func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	place := r.Dir
	if place == "" {
		place = "tmpfs"
	}
	for _, name := range r.names {
		fmt.Fprintln(w, r.Versions[name])
	}
	fmt.Fprintf(w, "Linux %s, %d CPUs, %s, files of %d MiB on %s; medians of %d rounds of %g s\n", r.Kernel, r.CPUs, r.Congestion,
		r.Size>>20, place, r.Rounds, r.Time)
	fmt.Fprint(w, "CPU in µs per request: near serves the client, far has the file; ± is the spread of IOPS between rounds\n\n")
	const head, line = "%-14s%9s%5s%8s%9s%9s%10s%8s%8s\n", "%-14s%9.0f%4.0f%%%8.0f%9.0f%9.0f%10.2f%8.2f%8.2f\n"
	fmt.Fprintf(w, head, "", "IOPS", "±", "MiB/s", "p50 µs", "p99 µs", "CPU near", "far", "sum")
	for _, c := range r.Cases {
		fmt.Fprintln(w, c.shape)
		for _, y := range c.Systems {
			m := y.Median
			fmt.Fprintf(w, line, "  "+y.Name, m.IOPS, 100*y.Spread, m.MiBs, m.P50, m.P99, m.Near.Total, m.Far.Total, y.Cost)
		}
		for _, q := range c.Ratios {
			fmt.Fprintf(w, "%-17s%5.2f×%48s%7.2f×\n", "  "+q.Of+" / "+q.To, q.IOPS, "per CPU", q.PerCPU)
		}
	}
	return nil
}
