package main

import "testing"

// BenchmarkSeeds is the time of a random run.
func BenchmarkSeeds(b *testing.B) {
	for i := range b.N {
		if err := newWorld(newPlan(uint64(i)), 0, nil).run(); err != nil {
			b.Fatal(err)
		}
	}
}
