//go:build race

package mempool

// poison overwrites what is given back: memory outside of the Go heap is
// invisible to the race detector, a use after Put is not.
const poison = true
