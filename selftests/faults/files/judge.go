package files

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"dst/selftests/faults/history"
)

// read reads some blocks and judges them: nothing older than what was acknowledged, or read, before; nothing that was not written.
// If nobody writes each is what was acknowledged last.
func (f *Files) read(one *file, b []byte, at int, exact bool) error {
	n := len(b) / blockSize
	first := at * sectors
	least := make([]uint64, n*sectors)
	one.mu.Lock()
	for i := range least {
		least[i] = max(one.acked[(first+i)/sectors], one.seen[first+i])
	}
	one.mu.Unlock()
	if got, err := unix.Pread(one.in, b, int64(at)*blockSize); err != nil || got != len(b) {
		return fmt.Errorf("file %d: read of %d blocks at %d: %d bytes, %w", one.number, n, at, got, err)
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	for i, old := range least {
		change, ok := one.parse(b[i*history.Sector:], first+i)
		most := one.begun[(first+i)/sectors]
		switch {
		case !ok:
			return fmt.Errorf("file %d: sector %d is no stamp of its own, or torn: % x…", one.number, first+i, b[i*history.Sector:i*history.Sector+32])
		case change < old, change > most, exact && change != one.acked[(first+i)/sectors]:
			return fmt.Errorf("file %d: sector %d has change %d, want %d to %d; acknowledged %d, durable %d", one.number, first+i, change, old, most,
				one.acked[(first+i)/sectors], one.durable[(first+i)/sectors])
		}
		one.seen[first+i] = max(one.seen[first+i], change)
	}
	return nil
}

// parse is the change that a sector bears.
func (one *file) parse(b []byte, sector int) (uint64, bool) {
	id, ok := history.Parse(b, uint64(sector))
	return id.Number(), ok && id.Writer() == one.number
}

// Check waits until all that is being written is acknowledged, and reads both files: each sector is the newest. It tells what was done.
func (f *Files) Check() (string, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	b := aligned(32)
	for _, one := range f.files {
		for at := 0; at < blocks; at += len(b) / blockSize {
			if err := f.read(one, b, at, true); err != nil {
				f.complain("%v", err)
			}
		}
	}
	return fmt.Sprintf("ok %d writes %d flushes %d reads", f.writes.Load(), f.flushes.Load(), f.reads.Load()), f.wrong()
}

// Find finds each sector of the files on the raw disk, where they must all be: nothing was written since a flush. The file system does
// not move what is written over.
func (f *Files) Find() error {
	found := 0
	err := f.scan(0, -1, func(at int64, b []byte) {
		for _, one := range f.files {
			sector, ok := history.Where(b)
			if !ok || sector >= blocks*sectors {
				continue
			}
			if change, ok := one.parse(b, int(sector)); ok && change == one.acked[sector/sectors] {
				one.at[sector] = at
				found++
			}
		}
	})
	if err == nil && found != len(f.files)*blocks*sectors {
		err = fmt.Errorf("%s has %d sectors of the files, want %d", f.raw, found, len(f.files)*blocks*sectors)
	}
	return err
}

// scan reads sectors of the raw disk from one offset to another (-1: its end).
func (f *Files) scan(from, to int64, look func(at int64, b []byte)) error {
	disk, err := os.Open(f.raw)
	if err != nil {
		return err
	}
	defer disk.Close()
	b := make([]byte, 1<<20)
	for to < 0 || from < to {
		n, err := disk.ReadAt(b, from)
		for i := 0; i+history.Sector <= n; i += history.Sector {
			look(from+int64(i), b[i:i+history.Sector])
		}
		from += int64(n)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// Lost reads the raw disk while nobody serves it, and tells how many sectors, of those acknowledged and not made durable, have lost
// that. One that was durable must not have.
func (f *Files) Lost() (string, error) {
	type place struct {
		one    *file
		sector int
	}
	places, from, to := map[int64]place{}, int64(-1), int64(0)
	for _, one := range f.files {
		for sector, at := range one.at {
			places[at] = place{one, sector}
			if to = max(to, at+history.Sector); from < 0 || at < from {
				from = at
			}
		}
	}
	lost, open := 0, 0
	err := f.scan(from, to, func(at int64, b []byte) {
		p, ok := places[at]
		if !ok {
			return
		}
		p.one.mu.Lock()
		defer p.one.mu.Unlock()
		acked, durable := p.one.acked[p.sector/sectors], p.one.durable[p.sector/sectors]
		change, ok := p.one.parse(b, p.sector)
		if !ok || change < durable {
			f.complain("file %d: after the loss sector %d has change %d (whole: %v), and %d was durable", p.one.number, p.sector, change, ok, durable)
		}
		if durable < acked {
			open++
		}
		if change < acked {
			lost++
		}
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ok %d of %d", lost, open), f.wrong()
}

// Do carries out an order: check or lost.
func (f *Files) Do(line string) (string, error) {
	switch line {
	case "check":
		return f.Check()
	case "lost":
		return f.Lost()
	}
	return "", fmt.Errorf("%q is not understood; want check or lost", line)
}
