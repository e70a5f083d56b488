// Package tools holds the tests of the source itself: who may import whom, and the house rules that no compiler checks.
// The directories and scripts beside it build, test and measure the project; nothing of dstd or dstctl imports them.
package tools
