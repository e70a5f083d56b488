//go:build !race

package mempool

const poison = false
