package trans

import "sync/atomic"

// SetRange remembers that the change in slot (0 to depth-1) is on its way, so
// that the next daemon knows which bytes may still change; a length of 0 ends
// that.
func (l *Log) SetRange(slot int, off, length uint64) {
	at := logHeader + slot*rangeSize
	if length != 0 {
		*l.word(at) = off
	}
	atomic.StoreUint64(l.word(at+8), length)
}

// Haunt makes ghosts of the ranges that an earlier daemon left in flight: what
// they hold is unknown until the kernel has written them again. It returns how
// many there are, those of still earlier daemons included; if they are more than
// can be remembered two become one.
func (l *Log) Haunt() (n int) {
	for slot := range l.depth {
		if off, length := l.rangeAt(slot); length != 0 {
			l.haunt(off, length)
			l.SetRange(slot, 0, 0)
		}
	}
	return l.Lay(0, 0)
}

// haunt remembers a ghost, once: each daemon that is killed gets the same requests
// from the kernel.
func (l *Log) haunt(off uint64, length uint64) {
	for i := l.depth; i < 2*l.depth; i++ {
		if from, n := l.rangeAt(i); from <= off && off+length <= from+n {
			return
		}
	}
	for i := l.depth; i < 2*l.depth; i++ {
		if _, n := l.rangeAt(i); n == 0 {
			l.SetRange(i, off, length)
			return
		}
	}
	from, n := l.rangeAt(l.depth)
	end := max(from+n, off+length)
	l.SetRange(l.depth, min(from, off), end-min(from, off))
}

// Haunted tells whether a ghost overlaps the bytes from off to end.
func (l *Log) Haunted(off, end uint64) bool {
	for i := range l.depth {
		if from, n := l.rangeAt(l.depth + i); n != 0 && from < end && off < from+n {
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
		case off <= from && from+n <= end:
			l.SetRange(l.depth+i, 0, 0)
		default:
			left++
		}
	}
	return left
}

func (l *Log) rangeAt(i int) (off, length uint64) {
	at := logHeader + i*rangeSize
	return *l.word(at), *l.word(at + 8)
}
