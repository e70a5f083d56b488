package export

import (
	"sync"

	"golang.org/x/sys/unix"
)

// memStore is a store in memory. gate, if set, is called before each call with
// its name and range and may wait or fail it.
type memStore struct {
	mu     sync.Mutex
	b      []byte
	gate   func(call string, off, n uint64) error
	closed bool
}

func (m *memStore) pass(call string, off, n uint64) error {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		return gate(call, off, n)
	}
	return nil
}

func (m *memStore) setGate(gate func(call string, off, n uint64) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = gate
}

func (m *memStore) ReadAt(b []byte, off uint64, wait bool) error {
	if !wait {
		return unix.EAGAIN
	}
	if err := m.pass("read", off, uint64(len(b))); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(b, m.b[off:])
	return nil
}

func (m *memStore) WriteAt(b []byte, off uint64, _ bool) error {
	if err := m.pass("write", off, uint64(len(b))); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.b[off:], b)
	return nil
}

func (m *memStore) Erase(off, n uint64, how Erasure) error {
	if err := m.pass([...]string{"discard", "zero", "allocate"}[how], off, n); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.b[off : off+n])
	return nil
}

func (m *memStore) Flush() error { return m.pass("flush", 0, 0) }

func (m *memStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memStore) bytes(off, n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.b[off:off+n]...)
}

// memDisk is a disk of size bytes in memory.
func memDisk(size int) (*memStore, *Disk) {
	m := &memStore{b: make([]byte, size)}
	return m, &Disk{Store: m, Identity: &Identity{ID: randomID(), Tenure: randomID()},
		Geometry: Geometry{Size: uint64(size), BlockMin: 512, BlockPref: 4096}}
}
