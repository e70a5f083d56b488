package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bench is a run: builds, verifies, measures, reports, and removes all it made.
func bench(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	if os.Getuid() != 0 {
		return errors.New("network namespaces are root's to make: run as root")
	}
	var u undo
	defer func() { err = errors.Join(err, u.run()) }()
	s, err := newSite(&u, o)
	if err != nil {
		return err
	}
	p := newPattern()
	systems, err := s.build(ctx, o, p)
	if err != nil {
		return err
	}
	// Whoever waits in a socket is woken when the run is broken off; what it then says is of no interest.
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		for _, y := range systems {
			y.engine.c.interrupt()
		}
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	r := newReport(o, systems)
	err = measureAll(o, systems, r, stderr)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	for _, y := range systems {
		if err := p.check(y.file, o.size, verifySize); err != nil {
			return err
		}
	}
	return r.print(stdout, o.json)
}

// newSite makes the directories; hosts are made for each system.
func newSite(u *undo, o *options) (*site, error) {
	s := &site{undo: u}
	var err error
	if s.dir, err = os.MkdirTemp("", "dst-bench-"); err != nil {
		return nil, err
	}
	u.later(func() error { return os.Remove(s.dir) })
	if err := unix.Mount("dst-bench", s.dir, "tmpfs", 0, fmt.Sprintf("mode=0700,size=%d", int64(len(o.names()))*(o.size+32<<20))); err != nil {
		return nil, fmt.Errorf("tmpfs at %s: %w", s.dir, err)
	}
	u.later(func() error { return unix.Unmount(s.dir, unix.MNT_DETACH) })
	s.data = s.dir
	if o.dir != "" {
		if s.data, err = os.MkdirTemp(o.dir, "dst-bench-"); err != nil {
			return nil, err
		}
		u.later(func() error { return os.RemoveAll(s.data) })
		if s.data, err = filepath.Abs(s.data); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// build starts what is to be measured, and verifies it.
func (s *site) build(ctx context.Context, o *options, p pattern) (systems []*system, err error) {
	for _, name := range o.names() {
		s := *s
		s.name = name
		if s.near, s.far, err = connect(ctx, s.undo, name, o.congestion); err != nil {
			return nil, err
		}
		if err := p.fill(s.path(s.data, ".img"), o.size); err != nil {
			return nil, err
		}
		y, err := s.start(ctx, o)
		if err != nil {
			return nil, err
		}
		if err := y.open(ctx, s.undo, p, o.size); err != nil {
			return nil, err
		}
		if err := y.verify(); err != nil {
			return nil, err
		}
		systems = append(systems, y)
	}
	return systems, nil
}

// start is the system of the site's name.
func (s *site) start(ctx context.Context, o *options) (*system, error) {
	if c, ok := findChannel(s.name); ok {
		return s.newDST(ctx, o.bin, &c)
	}
	switch s.name {
	case nameDST:
		return s.newDST(ctx, o.bin, nil)
	case nameOther:
		return s.newDST(ctx, o.against, nil)
	}
	return s.newNbdkit(ctx, o.threads)
}

// measureAll runs all rounds of all cases, then those that are profiled.
func measureAll(o *options, systems []*system, r *report, progress io.Writer) error {
	for _, c := range o.cases() {
		row := newRow(c, len(systems))
		for round := range o.rounds {
			for i := range systems {
				if round%2 == 1 {
					i = len(systems) - 1 - i
				}
				sample, err := systems[i].measure(c, o)
				if err != nil {
					return fmt.Errorf("%s, %v: %w", systems[i].name, c, err)
				}
				row.Systems[i].Rounds = append(row.Systems[i].Rounds, sample)
			}
		}
		r.add(row)
		fmt.Fprintf(progress, "%v: done\n", c)
	}
	if o.profile == "" {
		return nil
	}
	for _, c := range o.cases() {
		for _, y := range systems {
			if err := y.profile(c, o); err != nil {
				return fmt.Errorf("%s, %v: %w", y.name, c, err)
			}
		}
	}
	return nil
}

// measure is one timed run of one system.
func (y *system) measure(c shape, o *options) (sample, error) {
	// The engine's waits are system calls; a thread of its own keeps the scheduler out of them, and gives the client's CPU time.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var near, far, own [2]usage
	look := func(i int) func() error {
		return func() (err error) {
			var err1, err2, err3 error
			near[i], err1 = readUsage(y.near.cmd.Process.Pid)
			far[i], err2 = readUsage(y.far.cmd.Process.Pid)
			own[i], err3 = readUsage(os.Getpid())
			return errors.Join(err1, err2, err3)
		}
	}
	k := &clock{warm: o.warm, time: o.time, begin: look(0), end: look(1)}
	if err := y.engine.run(job{shape: c, area: y.engine.c.size, gen: genTimed, clock: k}); err != nil {
		return sample{}, errors.Join(err, y.near.fault(), y.far.fault())
	}
	if k.latency.total == 0 {
		return sample{}, fmt.Errorf("no request was answered in %v", o.time)
	}
	n := float64(k.latency.total)
	micros := func(d time.Duration) float64 { return float64(d) / 1e3 }
	each := func(u [2]usage) cpu {
		d := u[1].sub(u[0])
		return cpu{micros(d.total) / n, micros(d.user) / n, micros(d.system) / n}
	}
	return sample{
		IOPS: n / k.elapsed.Seconds(), MiBs: n * float64(c.block) / (1 << 20) / k.elapsed.Seconds(),
		P50: micros(k.latency.quantile(.5)), P99: micros(k.latency.quantile(.99)),
		Near: each(near), Far: each(far), Client: each(own),
	}, nil
}
