package main

import (
	"fmt"
	"sync"

	"dst/dataplane/mempool"
)

// heap is the payload memory of a device: pages that outlive the daemon's
// processes, each out or not. What is given back is poisoned. It is the Room of
// a reserve and the Payload of a log.
type heap struct {
	mem     []byte
	out     []int // by page: pages of the piece that starts there, -1 inside of one
	waiting bool  // the front found no room
	freed   func()
}

func newHeap(pages int) *heap {
	h := &heap{out: make([]int, pages), freed: func() {}}
	if old, ok := spare.Get().(*[]byte); ok && len(*old) >= pages*mempool.PageSize {
		h.mem = *old
	} else {
		h.mem = make([]byte, max(pages, 32)*mempool.PageSize)
	}
	return h
}

// spare is memory of devices of earlier runs. What is in it does not matter:
// nobody reads payload memory before it was written.
var spare sync.Pool

// free ends the heap, with its run.
func (h *heap) free() {
	mem := h.mem
	spare.Put(&mem)
	h.mem = nil
}

// restart forgets what an ended process had; kept is what the log holds.
func (h *heap) restart(kept []mempool.Extent) {
	clear(h.out)
	h.waiting = false
	for _, e := range kept {
		h.claim(e.At/mempool.PageSize, pagesOf(e.N))
	}
}

func pagesOf(n int) int { return (n + mempool.PageSize - 1) / mempool.PageSize }

func (h *heap) claim(at, pages int) {
	for i := range pages {
		if h.out[at+i] != 0 {
			panic("sim: a page of payload memory is out twice")
		}
		h.out[at+i] = -1
	}
	h.out[at] = pages
}

// TryGet is trans.Room's.
func (h *heap) TryGet(n int) []byte {
	pages, free := pagesOf(n), 0
	for i := range h.out {
		if h.out[i] != 0 {
			free = 0
			continue
		}
		if free++; free == pages {
			at := i - pages + 1
			h.claim(at, pages)
			return h.Piece(mempool.Extent{At: at * mempool.PageSize, N: n})
		}
	}
	return nil
}

// Get is trans.Room's; nobody can wait here.
func (h *heap) Get(int, <-chan struct{}) ([]byte, bool) { panic("sim: a wait for memory") }

// Waiting is trans.Room's.
func (h *heap) Waiting() bool { return h.waiting }

// Where is trans.Payload's.
func (h *heap) Where(b []byte) mempool.Extent {
	for i, n := range h.out {
		if n > 0 && &h.mem[i*mempool.PageSize] == &b[0] {
			return mempool.Extent{At: i * mempool.PageSize, N: len(b)}
		}
	}
	panic("sim: not a piece of this memory")
}

// Piece is trans.Payload's.
func (h *heap) Piece(e mempool.Extent) []byte { return h.mem[e.At : e.At+e.N] }

// Put is trans.Room's and trans.Payload's.
func (h *heap) Put(b []byte) {
	at := h.Where(b).At / mempool.PageSize
	pages := h.out[at]
	if pages != pagesOf(len(b)) {
		panic(fmt.Sprintf("sim: %d bytes are given back where %d pages are out", len(b), pages))
	}
	for i := range pages {
		h.out[at+i] = 0
		page := h.mem[(at+i)*mempool.PageSize:][:mempool.PageSize]
		page[0] = 0xA5
		for n := 1; n < len(page); n *= 2 {
			copy(page[n:], page[:n])
		}
	}
	h.freed()
}
