package mempool

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keep takes the piece at e out, with the chunk that it lies in.
func (a *Arena) keep(m *File, e Extent) error {
	if e.At < 0 || e.N <= 0 || e.N > a.largest || e.At%PageSize != 0 || e.At > len(m.mem)-roundUp(e.N) {
		return fmt.Errorf("no arena can have had %d bytes at %d: %w", e.N, e.At, unix.EUCLEAN)
	}
	c := a.chunkAt(m, e.At)
	if c == nil {
		at := e.At / m.unit * m.unit
		if a.mu.mapped+a.lend > a.limit || m.used[at/m.unit] {
			return fmt.Errorf("no arena of %d bytes can have had a piece at %d: %w", a.limit, e.At, unix.EUCLEAN)
		}
		if err := a.budget.Reserve(int64(a.lend)); err != nil {
			return err
		}
		mem, _, err := m.claim(at, a.lend)
		if err != nil {
			a.budget.Release(int64(a.lend))
			return err
		}
		c = newChunk(mem)
		a.mu.chunks = append(a.mu.chunks, c)
		a.mu.mapped += a.lend
	}
	pages := (e.N + PageSize - 1) / PageSize
	if !c.claim((e.At-m.Where(c.mem).At)/PageSize, pages) {
		return fmt.Errorf("two pieces of %d bytes at %d: %w", e.N, e.At, unix.EUCLEAN)
	}
	a.mu.inUse += pages * PageSize
	return nil
}

// chunkAt is the chunk that has the byte at at of m, nil if there is none.
func (a *Arena) chunkAt(m *File, at int) *chunk {
	for _, c := range a.mu.chunks {
		if from := m.Where(c.mem).At; at >= from && at < from+len(c.mem) {
			return c
		}
	}
	return nil
}

// Leave is the end of an Arena over a File whose pieces stay in the file for
// the next process; nobody may touch them in this one any more. The budget gets
// back what is its.
func (a *Arena) Leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.mu.chunks {
		a.budget.Release(int64(len(c.mem)))
	}
	a.mu.chunks, a.mu.mapped, a.mu.inUse, a.mu.closed = nil, 0, 0, true
}
