package main

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"dst/tools/cutproxy"
)

// recoveryLimit is how long nothing may be answered after a fault is over.
const recoveryLimit = 30 * time.Second

// calm is how long it is quiet after most faults, at least; after the others the next one follows at once.
const calm = 250 * time.Millisecond

// campaign is faults of one kind, one after the other, under load.
type campaign struct {
	l              *load
	rnd            *rand.Rand
	export, client *daemon
	proxy          *cutproxy.Proxy
	disk           string                     // its control socket
	first, all     map[string][]time.Duration // recoveries, by fault
	lost           int
	hasty          bool // the last fault was just now
}

// faults are the kinds: each does one and returns when the peer is there again, what to call it, and how to tell that all goes on.
var faults = map[string]func(c *campaign) (what string, goesOn func() bool, err error){
	"cut":    (*campaign).cut,
	"hole":   (*campaign).hole,
	"damage": (*campaign).damage,
	"export": (*campaign).killExport,
	"client": (*campaign).killClient,
	"both":   (*campaign).killBoth,
	"read":   func(c *campaign) (string, func() bool, error) { return c.diskError("read") },
	"write":  func(c *campaign) (string, func() bool, error) { return c.diskError("write") },
	"sync":   func(c *campaign) (string, func() bool, error) { return c.diskError("sync") },
	"erase":  func(c *campaign) (string, func() bool, error) { return c.diskError("erase") },
}

// mixed are the kinds of "mix", which takes one after the other at random.
var mixed = []string{"cut", "hole", "damage", "export", "client", "both"}

// run does n faults of a kind.
func (c *campaign) run(kind string, n int) error {
	for i := range n {
		one := kind
		if kind == "mix" {
			one = mixed[c.rnd.IntN(len(mixed))]
		}
		what, goesOn, err := faults[one](c)
		if err != nil {
			return fmt.Errorf("%s %d: %w", kind, i+1, err)
		}
		if c.hasty {
			what += " soon after another"
		}
		if err := c.recover(what, goesOn); err != nil {
			return fmt.Errorf("%s %d: %w", what, i+1, err)
		}
		if v, _ := c.l.h.Violations(); v > 0 {
			return fmt.Errorf("%s %d: stopped at the first violation", what, i+1)
		}
		if c.hasty = c.rnd.IntN(4) == 0; !c.hasty {
			time.Sleep(calm + time.Duration(c.rnd.Int64N(int64(calm))))
		}
	}
	return nil
}

// quiet is how long no answer may have come for the next one to be the first after a fault.
const quiet = 10 * time.Millisecond

// recover waits until all goes on and notes how long after the peer's return that was, and the first answer.
func (c *campaign) recover(what string, goesOn func() bool) error {
	begin, answers, last := time.Now(), c.l.answers.Load(), time.Now()
	first := time.Duration(-1)
	for !goesOn() {
		if time.Since(begin) > recoveryLimit {
			return fmt.Errorf("%v after the peer is back not everything goes on", recoveryLimit)
		}
		time.Sleep(500 * time.Microsecond)
		if n := c.l.answers.Load(); n != answers {
			if first < 0 && time.Since(last) > quiet {
				first = time.Since(begin)
			}
			answers, last = n, time.Now()
		}
	}
	c.all[what] = append(c.all[what], time.Since(begin))
	c.first[what] = append(c.first[what], max(first, 0))
	return nil
}

// tell prints how long recoveries took.
func (c *campaign) tell() {
	for _, what := range slices.Sorted(maps.Keys(c.all)) {
		fmt.Printf("time: %d × %s: first answer after %s, all that waited after %s\n", len(c.all[what]), what, spread(c.first[what]), spread(c.all[what]))
	}
}

// spread is median, nine of ten, and most.
func spread(all []time.Duration) string {
	slices.Sort(all)
	at := func(i int) time.Duration { return all[i].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%v (9 of 10: %v, most %v)", at(len(all)/2), at(len(all)*9/10), at(len(all)-1))
}

// busy waits until some requests are in flight, a random number of them.
func (c *campaign) busy() {
	want := 1 + c.rnd.IntN(len(c.l.writers)*c.l.depth/3)
	for end := time.Now().Add(2 * time.Second); c.l.h.Open() < want && time.Now().Before(end); {
		time.Sleep(200 * time.Microsecond)
	}
}

// answered tells, from now on, whether all that is in flight now has been answered.
func (c *campaign) answered() func() bool {
	clock := c.l.h.Clock()
	return func() bool { return c.l.h.Since(clock) }
}

// cut lets a connection end after a random byte.
func (c *campaign) cut() (string, func() bool, error) {
	mode := cutproxy.Mode(c.rnd.IntN(3))
	dir := cutproxy.Dir(c.rnd.IntN(2))
	name := [...]string{"reset", "end of stream", "silence"}[mode]
	select {
	case <-c.proxy.CutAfter(dir, c.rnd.Uint64N(200_000), mode):
	case <-time.After(recoveryLimit):
		return name, nil, fmt.Errorf("no more bytes pass")
	}
	return name, c.answered(), nil
}

// hole lets bytes vanish for a while, in one direction or both, for longer than it takes to notice, or not.
func (c *campaign) hole() (string, func() bool, error) {
	dir := c.rnd.IntN(3)
	c.busy()
	for _, d := range []cutproxy.Dir{cutproxy.Up, cutproxy.Down} {
		c.proxy.BlackholeOf(d, dir == 2 || d == cutproxy.Dir(dir))
	}
	time.Sleep(time.Duration(c.rnd.Int64N(int64(time.Second))))
	c.proxy.Blackhole(false)
	return "black hole " + [...]string{"up", "down", "both ways"}[dir], c.answered(), nil
}

// damage inverts one bit.
func (c *campaign) damage() (string, func() bool, error) {
	const name = "bit inverted"
	select {
	case <-c.proxy.CorruptAt(cutproxy.Dir(c.rnd.IntN(2)), c.rnd.Uint64N(200_000)):
	case <-time.After(recoveryLimit):
		return name, nil, fmt.Errorf("no more bytes pass")
	}
	return name, c.answered(), nil
}

// killExport kills the export's daemon; its disk loses a random part of what was not made durable.
func (c *campaign) killExport() (string, func() bool, error) {
	const name = "export killed"
	c.busy()
	if err := c.export.kill(); err != nil {
		return name, nil, err
	}
	goesOn := c.answered()
	if err := c.lose(); err != nil {
		return name, nil, err
	}
	return name, goesOn, c.export.start()
}

// lose takes a random part, sometimes all and sometimes nothing, of what the disk has not made durable.
func (c *campaign) lose() error {
	var n int
	answer, err := c.order(fmt.Sprint("lose ", min(100, c.rnd.IntN(150))))
	if err == nil {
		_, err = fmt.Sscanf(answer, "ok %d", &n)
	}
	c.lost += n
	return err
}

// order sends a line to the disk.
func (c *campaign) order(line string) (string, error) {
	conn, err := net.Dial("unix", c.disk)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.HasPrefix(answer, "error: ") {
		err = fmt.Errorf("disk: %s", strings.TrimSpace(answer))
	}
	return answer, err
}

// killClient kills the remote's daemon: its NBD clients come back, and what they had not been answered is unknown.
func (c *campaign) killClient() (string, func() bool, error) {
	const name = "client killed"
	c.busy()
	if err := c.client.kill(); err != nil {
		return name, nil, err
	}
	goesOn := c.back()
	return name, goesOn, c.client.start()
}

// back tells, from now on, whether each writer has come back and was answered.
func (c *campaign) back() func() bool {
	now := time.Now().UnixNano()
	return func() bool {
		for _, w := range c.l.writers {
			if w.answered.Load() < now {
				return false
			}
		}
		return true
	}
}

// killBoth kills both within 50 ms, and starts them again in either order.
func (c *campaign) killBoth() (string, func() bool, error) {
	const name = "both killed"
	c.busy()
	one, two := c.export, c.client
	if c.rnd.IntN(2) == 0 {
		one, two = two, one
	}
	if err := one.shoot(); err != nil {
		return name, nil, err
	}
	time.Sleep(time.Duration(c.rnd.Int64N(int64(50 * time.Millisecond))))
	if err := two.kill(); err != nil {
		return name, nil, err
	}
	if err := one.gone(); err != nil {
		return name, nil, err
	}
	goesOn := c.back()
	if err := c.lose(); err != nil {
		return name, nil, err
	}
	if c.rnd.IntN(2) == 0 {
		one, two = two, one
	}
	if err := one.start(); err != nil {
		return name, nil, err
	}
	return name, goesOn, two.start()
}

// diskError lets one operation of the disk fail, the n-th from now for a random n up to 200. After a sync that failed the disk has
// forgotten what was to be made durable.
func (c *campaign) diskError(op string) (string, func() bool, error) {
	name := op + " error"
	most := 200
	if op == "sync" || op == "erase" {
		most = 20
	}
	struck, err := c.arm(op, c.rnd.Uint64N(uint64(most)))
	if err == nil {
		err = c.await(struck)
	}
	if err != nil {
		return name, nil, err
	}
	goesOn := c.answered()
	return name, func() bool { return goesOn() && c.evict() == nil }, nil
}

// arm lets one operation of the disk fail, after so many. The function tells whether it has.
func (c *campaign) arm(op string, after uint64) (struck func() (bool, error), err error) {
	stats, err := c.order("stats")
	if err != nil {
		return nil, err
	}
	before := hits(stats)
	_, err = c.order(fmt.Sprintf("fail %s with EIO after %d times 1", op, after))
	return func() (bool, error) {
		stats, err := c.order("stats")
		return hits(stats) > before, err
	}, err
}

// await waits until a fault of the disk has struck.
func (c *campaign) await(struck func() (bool, error)) error {
	for end := time.Now().Add(recoveryLimit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if yes, err := struck(); yes || err != nil {
			return err
		}
	}
	return fmt.Errorf("the disk was not asked for it within %v", recoveryLimit)
}

// evict lets the disk forget what a failed sync has given up.
func (c *campaign) evict() error {
	_, err := c.order("evict")
	return err
}

func hits(stats string) (n int) {
	_, after, _ := strings.Cut(stats, " hit ")
	_, _ = fmt.Sscan(after, &n)
	return n
}
