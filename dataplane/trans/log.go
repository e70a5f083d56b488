package trans

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
)

// Log keeps what was acknowledged and is not known to be durable, so that it can
// be written again when the export has lost it. It is a ring of records in the
// order of acknowledgement; the payload of a write stays where it was received.
// Both lie in memory that outlives the daemon: a record is complete before the
// word that commits it is written, and who acknowledges does so after that.
//
// Newer records hide what older ones say of the same bytes; that is worked out
// when it is needed (Replay), so that a write costs one record and no search.
//
// A Log has no lock of its own: its node's lock guards it. Nothing is allocated
// after OpenLog.
type Log struct {
	mem      []byte // header, ranges in flight, ranges of ghosts, records
	payload  Payload
	depth    int
	records  uint64
	base     int // where the records begin
	head     uint64
	tail     uint64 // records head+1 to tail are live
	bytes    uint64 // of payload that they hold
	reserved uint64 // records promised to changes that are on their way
	scratch  [25]byte
	replay   Replay
	harms    harms
}

// Payload is where the bytes of writes lie: an arena in a file.
type Payload interface {
	Where(b []byte) mempool.Extent
	Piece(e mempool.Extent) []byte
	Put(b []byte)
}

// Kind is what a record says of its range.
type Kind uint8

const (
	KindWrite Kind = iota + 1
	KindDiscard
	KindZero
	KindZeroNoHole
	KindCut // it is durable: older records say nothing of it any more
)

// Layout of the memory, in bytes; numbers are in host order.
const (
	logMagic   = 0x4453_544c_4f47_0001 // "DSTLOG", version 1
	logHeader  = 64                    // magic, depth, records, head, owner
	offDepth   = 8
	offRecords = 16
	offHead    = 24
	offOwner   = 32
	rangeSize  = 16 // offset; length, 0 = none
	recordSize = 32 // seq; offset; length, page; crc, era and kind
)

// EraMax is the largest era: records have 24 bits for it.
const EraMax = 1<<24 - 1

// LogSize is the memory of a Log in bytes, a whole number of pages.
func LogSize(depth, records int) int {
	n := logHeader + 2*depth*rangeSize + records*recordSize
	return (n + mempool.PageSize - 1) &^ (mempool.PageSize - 1)
}

// OpenLog makes the Log of owner that lies in mem, LogSize bytes: a new one if
// that is all zeroes. Adopt must follow. Errors: EUCLEAN if it is damaged, of
// other sizes, or somebody else's.
func OpenLog(mem []byte, depth, records int, owner abi.ID) (*Log, error) {
	l := &Log{mem: mem, depth: depth, records: uint64(records), base: logHeader + 2*depth*rangeSize}
	l.replay = Replay{log: l, covered: make([]interval, 0, records+1)}
	if len(mem) < LogSize(depth, records) {
		return nil, fmt.Errorf("a log of %d bytes: %d are needed: %w", len(mem), LogSize(depth, records), unix.EUCLEAN)
	}
	switch *l.word(0) {
	case 0:
		*l.word(offDepth), *l.word(offRecords) = uint64(depth), uint64(records)
		copy(mem[offOwner:], owner[:])
		atomic.StoreUint64(l.word(0), logMagic)
	case logMagic:
	default:
		return nil, fmt.Errorf("the replay log is damaged: %w", unix.EUCLEAN)
	}
	if *l.word(offDepth) != uint64(depth) || *l.word(offRecords) != uint64(records) {
		return nil, fmt.Errorf("the replay log was made for %d requests and %d records: %w", *l.word(offDepth), *l.word(offRecords), unix.EUCLEAN)
	}
	if abi.ID(mem[offOwner:offOwner+16]) != owner {
		return nil, fmt.Errorf("the replay log belongs to another attachment: %w", unix.EUCLEAN)
	}
	l.head = *l.word(offHead)
	l.tail = l.head
	return l, l.scan()
}

// scan finds the live records: those whose commit words follow each other.
func (l *Log) scan() error {
	for l.tail-l.head < l.records {
		r := l.record(l.tail + 1)
		if r.seq() < l.tail+1 {
			break
		}
		if err := l.check(l.tail + 1); err != nil {
			return err
		}
		l.tail++
		l.bytes += r.held()
	}
	return nil
}

// Check looks at the live records before they are relied upon. Errors: EUCLEAN
// for one that somebody else has written to since.
func (l *Log) Check() error {
	for seq := l.head + 1; seq <= l.tail; seq++ {
		if err := l.check(seq); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) check(seq uint64) error {
	r := l.record(seq)
	if r.seq() != seq {
		return fmt.Errorf("the replay log has record %d where %d belongs: %w", r.seq(), seq, unix.EUCLEAN)
	}
	if !r.valid(&l.scratch) {
		return fmt.Errorf("record %d of the replay log is damaged: %w", seq, unix.EUCLEAN)
	}
	return nil
}

// Kept are the pieces of payload that the live records hold.
func (l *Log) Kept() (all []mempool.Extent) {
	for seq := l.head + 1; seq <= l.tail; seq++ {
		if r := l.record(seq); r.kind() == KindWrite {
			all = append(all, r.extent())
		}
	}
	return all
}

// Fresh tells whether the log never had a record: it is new, or who made it was
// killed before he could use it.
func (l *Log) Fresh() bool { return l.tail == 0 }

// Adopt says where payloads lie. The pieces of Kept must be out there.
func (l *Log) Adopt(p Payload) { l.payload = p }

// Len is the number of live records, Bytes the payload that they hold.
func (l *Log) Len() int      { return int(l.tail - l.head) }
func (l *Log) Bytes() uint64 { return l.bytes }

// Tail is the newest record: a flush that is sent now covers all up to it.
func (l *Log) Tail() uint64 { return l.tail }

// Records is how many live records there can be.
func (l *Log) Records() int { return int(l.records) }

// Reserve promises a record to a change that is about to be sent; false if there
// is none. Append and Unreserve end the promise.
func (l *Log) Reserve() bool {
	if l.tail-l.head+l.reserved >= l.records {
		return false
	}
	l.reserved++
	return true
}

// Unreserve is the end of a change that needs no record.
func (l *Log) Unreserve() { l.reserved-- }

// Append commits an acknowledged change, with a promised record. data, of a
// write, is the Log's from now on: it came from the payload's arena.
func (l *Log) Append(k Kind, off uint64, length uint32, data []byte, era uint32) {
	l.reserved--
	r := l.record(l.tail + 1)
	page := uint32(0)
	if k == KindWrite {
		page = uint32(l.payload.Where(data).At / mempool.PageSize)
	}
	r.fill(l.tail+1, off, length, page, k, era, &l.scratch)
	l.tail++
	l.bytes += r.held()
}

// Trim forgets what a flush has made durable: records up to seq mark, of the
// present era. It stops at one of an older era, which was not durable then.
func (l *Log) Trim(mark uint64, era uint32) {
	to := l.head
	for to < min(mark, l.tail) {
		if r := l.record(to + 1); r.era() != era && r.kind() != KindCut {
			break
		}
		to++
	}
	l.drop(to)
}

// Forget forgets everything: nobody will ask for it.
func (l *Log) Forget() { l.drop(l.tail) }

// drop ends the records up to to, which is not before the oldest.
func (l *Log) drop(to uint64) {
	from := l.head
	if to == from {
		return
	}
	l.head = to
	atomic.StoreUint64(l.word(offHead), to) // before their memory is used again
	for seq := from + 1; seq <= to; seq++ {
		if r := l.record(seq); r.kind() == KindWrite {
			l.bytes -= r.held()
			l.payload.Put(l.payload.Piece(r.extent()))
		}
	}
}

// Stale tells whether any record is of another era.
func (l *Log) Stale(era uint32) bool {
	for seq := l.head + 1; seq <= l.tail; seq++ {
		if r := l.record(seq); r.era() != era && r.kind() != KindCut {
			return true
		}
	}
	return false
}

func (l *Log) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&l.mem[at])) }

func (l *Log) record(seq uint64) record {
	at := l.base + int(seq%l.records)*recordSize
	return record(l.mem[at : at+recordSize : at+recordSize])
}
