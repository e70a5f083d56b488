package main

import (
	"bytes"
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	seeds      = flag.Uint64("new", scale(20_000, 1_000), "how many new seeds to run")
	known      = flag.Uint64("known", scale(5_000, 500), "how many of those that are always the same")
	lettersMax = flag.Int("letters", int(scale(lettersMost, 2)), "how long the histories are that are all run")
)

// scale is n, or less where everything takes ten times as long.
func scale(n, raced uint64) uint64 {
	if raceEnabled {
		return raced
	}
	return n
}

// TestSeeds runs the seeds from 1 on, and others in each run of the tests.
func TestSeeds(t *testing.T) {
	for _, c := range []struct{ first, n uint64 }{{1, *known}, {uint64(time.Now().UnixMilli()) << 16, *seeds}} {
		began := time.Now()
		seed, done, bad := search(c.first, c.n, 0)
		took := time.Since(began)
		t.Logf("%d seeds from %d: %.0f a second", done, c.first, float64(done)/took.Seconds())
		if bad != nil {
			var b bytes.Buffer
			report(&b, newPlan(seed), 0, bad)
			t.Fatal(b.String())
		}
	}
}

// TestExhaustive runs all short histories with every blow behind every event.
func TestExhaustive(t *testing.T) {
	wrong, runs, bad := exhaust(*lettersMax, 0)
	t.Logf("%d histories, %d runs", len(histories(*lettersMax)), runs)
	if bad != nil {
		var b bytes.Buffer
		wrong.tell(&b)
		_ = newWorld(wrong, 0, &b).quietly()
		t.Fatalf("%v\n%s", bad, &b)
	}
}

// TestSameSeedSameRun: a run is its seed's, to the last event.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 50; seed++ {
		var a, b strings.Builder
		first, second := newWorld(newPlan(seed), 0, &a).run(), newWorld(newPlan(seed), 0, &b).run()
		if a.String() != b.String() || (first == nil) != (second == nil) {
			t.Fatalf("seed %d ran in two ways", seed)
		}
		if a.Len() == 0 {
			t.Fatalf("seed %d: nothing happened", seed)
		}
	}
}

// TestReach: the runs do what they are for.
func TestReach(t *testing.T) {
	var answers, links, lives, devices int
	const n = 500
	for seed := uint64(1); seed <= n; seed++ {
		w := newWorld(newPlan(seed), 0, nil)
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		for _, a := range w.history.asks {
			if a.ack != 0 {
				answers++
			}
		}
		links += w.welcomes
		lives += int(w.drawn)
		devices += len(w.attached)
	}
	t.Logf("%d runs: %d answers, %d links, %d random names of lives and tenures, %d devices", n, answers, links, lives, devices)
	if answers < 20*n || links < 2*n || devices < n+n/4 {
		t.Error("that is less than it should be")
	}
}
