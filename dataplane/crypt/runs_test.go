//go:build !race

package crypt

// crossRuns is how often this implementation meets the other one.
const crossRuns = 10_000
