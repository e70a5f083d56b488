package mempool

import (
	"bytes"
	"math/bits"
	"unsafe"
)

// poisonPage overwrites memory that was given back, in builds that do so.
var poisonPage = bytes.Repeat([]byte{0xA5}, PageSize)

// chunk is one mapping, cut into pages. The Arena's lock guards it.
type chunk struct {
	mem     []byte
	used    []uint64 // a bit per page; the bits behind the last page are set
	run     []uint32 // by first page: pages of the piece that starts there, else 0
	pages   int
	free    int  // pages
	low     int  // no page below is free
	touched bool // something was taken since the last Trim
}

func newChunk(mem []byte) *chunk {
	n := len(mem) / PageSize
	c := &chunk{mem: mem, used: make([]uint64, (n+63)/64), run: make([]uint32, n), pages: n, free: n}
	if tail := n % 64; tail != 0 {
		c.used[len(c.used)-1] = ^uint64(0) << tail
	}
	return c
}

// take finds k free neighbours, the lowest ones: the memory in use stays warm,
// and the upper chunks run empty. It returns the first page, or -1.
func (c *chunk) take(k int) int {
	if c.free < k {
		return -1
	}
	first := c.scan(c.low, ^uint64(0))
	c.low = first
	for at := first; at+k <= c.pages; {
		end := at + 1
		if k > 1 {
			end = c.scan(at+1, 0)
		}
		if end-at >= k {
			if at == first {
				c.low = at + k
			}
			c.flip(at, k)
			c.run[at] = uint32(k)
			c.free -= k
			c.touched = true
			return at
		}
		at = c.scan(end, ^uint64(0))
	}
	return -1
}

// claim takes the k pages from page at; false if some are not there or not free.
func (c *chunk) claim(at, k int) bool {
	if at+k > c.pages || c.scan(at, 0) < at+k {
		return false
	}
	c.flip(at, k)
	c.run[at] = uint32(k)
	c.free -= k
	c.touched = true
	return true
}

// put frees the piece that starts at page at and returns its pages, 0 if no
// piece starts there.
func (c *chunk) put(at int) int {
	k := int(c.run[at])
	if k == 0 {
		return 0
	}
	if poison {
		for i := at; i < at+k; i++ {
			copy(c.mem[i*PageSize:], poisonPage)
		}
	}
	c.run[at] = 0
	c.flip(at, k)
	c.free += k
	c.low = min(c.low, at)
	return k
}

// scan is the first page at or after from whose bit, exclusive-or invert, is
// set: used pages for 0, free ones for all ones. Past the end: 64 × words.
func (c *chunk) scan(from int, invert uint64) int {
	i := from / 64
	if i >= len(c.used) {
		return len(c.used) * 64
	}
	w := (c.used[i] ^ invert) &^ (1<<(from%64) - 1)
	for w == 0 {
		if i++; i == len(c.used) {
			return i * 64
		}
		w = c.used[i] ^ invert
	}
	return i*64 + bits.TrailingZeros64(w)
}

// flip turns the bits of k pages from page at on.
func (c *chunk) flip(at, k int) {
	for k > 0 {
		in := at % 64
		n := min(64-in, k)
		c.used[at/64] ^= (^uint64(0) >> (64 - n)) << in
		at += n
		k -= n
	}
}

// page is the page that starts at address p, -1 if none does.
func (c *chunk) page(p *byte) int {
	// Addresses are only subtracted; an address below wraps and is too large.
	off := uintptr(unsafe.Pointer(p)) - uintptr(unsafe.Pointer(unsafe.SliceData(c.mem)))
	if off >= uintptr(c.pages)*PageSize || off%PageSize != 0 {
		return -1
	}
	return int(off / PageSize)
}
