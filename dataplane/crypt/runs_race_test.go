//go:build race

package crypt

// crossRuns is a tenth of that without the race detector, which has nothing to
// find here: one goroutine does it all, twenty times slower.
const crossRuns = 1_000
