package trans

import (
	"slices"
	"sync/atomic"
)

// SetRange remembers that the change in slot (0 to depth-1) is on its way, so
// that the next daemon knows which bytes may still change; a length of 0 ends
// that.
func (l *Log) SetRange(slot int, off uint64, length uint32) {
	at := logHeader + slot*rangeSize
	if length != 0 {
		*l.word(at) = off
	}
	atomic.StoreUint64(l.word(at+8), uint64(length))
}

// Haunt makes ghosts of the ranges that an earlier daemon left in flight: what
// they hold is unknown until the kernel has written them again. false: there are
// more than can be remembered.
func (l *Log) Haunt() bool {
	for slot := range l.depth {
		off, n := l.rangeAt(slot)
		if n == 0 {
			continue
		}
		free := slices.IndexFunc(l.ghosts(), func(g ghost) bool { return g.length == 0 })
		if free < 0 {
			return false
		}
		l.SetRange(l.depth+free, off, n)
		l.SetRange(slot, 0, 0)
	}
	return true
}

// ghost is a range whose content is unknown.
type ghost struct {
	off    uint64
	length uint32
}

func (l *Log) ghosts() []ghost {
	all := make([]ghost, l.depth)
	for i := range all {
		all[i].off, all[i].length = l.rangeAt(l.depth + i)
	}
	return all
}

// Haunted tells whether a ghost overlaps the bytes from off to end.
func (l *Log) Haunted(off, end uint64) bool {
	for i := range l.depth {
		if from, n := l.rangeAt(l.depth + i); n != 0 && from < end && off < from+uint64(n) {
			return true
		}
	}
	return false
}

// Lay ends the ghosts within the bytes from off to end and returns how many are
// left.
func (l *Log) Lay(off, end uint64) (left int) {
	for i := range l.depth {
		from, n := l.rangeAt(l.depth + i)
		switch {
		case n == 0:
		case off <= from && from+uint64(n) <= end:
			l.SetRange(l.depth+i, 0, 0)
		default:
			left++
		}
	}
	return left
}

func (l *Log) rangeAt(i int) (off uint64, length uint32) {
	at := logHeader + i*rangeSize
	return *l.word(at), uint32(*l.word(at + 8))
}
