package trans

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

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
	mem      []byte // header, in-flight ranges, records
	payload  Payload
	depth    int
	records  uint64
	base     int // where the records begin
	head     uint64
	tail     uint64 // records head+1 to tail are live
	bytes    uint64 // of payload that they hold
	reserved uint64 // records promised to changes that are on their way
	replay   Replay
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
	logHeader  = 64                    // magic, depth, records, head
	offDepth   = 8
	offRecords = 16
	offHead    = 24
	rangeSize  = 16 // offset; length, 0 = none
	recordSize = 32 // seq; offset; length, page; crc, era and kind
)

// EraMax is the largest era: records have 24 bits for it.
const EraMax = 1<<24 - 1

// LogSize is the memory of a Log in bytes, a whole number of pages.
func LogSize(depth, records int) int {
	n := logHeader + depth*rangeSize + records*recordSize
	return (n + mempool.PageSize - 1) &^ (mempool.PageSize - 1)
}

// OpenLog makes the Log that lies in mem, LogSize bytes: an empty one if that is
// all zeroes. payload may be nil until Adopt. Errors: EUCLEAN if it is damaged or
// of other sizes.
func OpenLog(mem []byte, depth, records int) (*Log, error) {
	l := &Log{mem: mem, depth: depth, records: uint64(records), base: logHeader + depth*rangeSize}
	l.replay = Replay{log: l, covered: make([]interval, 0, records+1)}
	if len(mem) < LogSize(depth, records) {
		return nil, fmt.Errorf("a log of %d bytes: %d are needed: %w", len(mem), LogSize(depth, records), unix.EUCLEAN)
	}
	switch *l.word(0) {
	case 0:
		*l.word(offDepth), *l.word(offRecords) = uint64(depth), uint64(records)
		atomic.StoreUint64(l.word(0), logMagic)
	case logMagic:
	default:
		return nil, fmt.Errorf("the replay log is damaged: %w", unix.EUCLEAN)
	}
	if *l.word(offDepth) != uint64(depth) || *l.word(offRecords) != uint64(records) {
		return nil, fmt.Errorf("the replay log was made for %d requests and %d records: %w", *l.word(offDepth), *l.word(offRecords), unix.EUCLEAN)
	}
	l.head = *l.word(offHead)
	l.tail = l.head
	return l, l.scan()
}

// scan finds the live records: those whose commit words follow each other.
func (l *Log) scan() error {
	for l.tail-l.head < l.records {
		r := l.record(l.tail + 1)
		if seq := r.seq(); seq != l.tail+1 {
			if seq > l.tail+1 {
				return fmt.Errorf("the replay log has record %d where %d belongs: %w", seq, l.tail+1, unix.EUCLEAN)
			}
			break
		}
		if !r.valid() {
			return fmt.Errorf("record %d of the replay log is damaged: %w", l.tail+1, unix.EUCLEAN)
		}
		l.tail++
		l.bytes += r.held()
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
	r.fill(l.tail+1, off, length, page, k, era)
	l.tail++
	l.bytes += r.held()
}

// Trim forgets what a flush has made durable: records up to seq mark, of the
// present era. It stops at one of an older era, which was not durable then.
func (l *Log) Trim(mark uint64, era uint32) {
	from := l.head
	to := from
	for to < min(mark, l.tail) {
		if r := l.record(to + 1); r.era() != era && r.kind() != KindCut {
			break
		}
		to++
	}
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

// Ranges calls f with every range that SetRange left.
func (l *Log) Ranges(f func(slot int, off uint64, length uint32)) {
	for slot := range l.depth {
		at := logHeader + slot*rangeSize
		if n := *l.word(at + 8); n != 0 {
			f(slot, *l.word(at), uint32(n))
		}
	}
}

func (l *Log) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&l.mem[at])) }

func (l *Log) record(seq uint64) record {
	at := l.base + int(seq%l.records)*recordSize
	return record(l.mem[at : at+recordSize : at+recordSize])
}

// record is one acknowledged change, in the log's memory.
type record []byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r record) seq() uint64    { return binary.NativeEndian.Uint64(r) }
func (r record) off() uint64    { return binary.NativeEndian.Uint64(r[8:]) }
func (r record) length() uint32 { return binary.NativeEndian.Uint32(r[16:]) }
func (r record) end() uint64    { return r.off() + uint64(r.length()) }
func (r record) era() uint32    { return binary.NativeEndian.Uint32(r[28:]) >> 8 }
func (r record) kind() Kind     { return Kind(r.word()) }
func (r record) word() uint32   { return binary.NativeEndian.Uint32(r[28:]) }

// extent is where the payload of a write lies.
func (r record) extent() mempool.Extent {
	return mempool.Extent{At: int(binary.NativeEndian.Uint32(r[20:])) * mempool.PageSize, N: int(r.length())}
}

// held is how much payload the record holds.
func (r record) held() uint64 {
	if r.kind() != KindWrite {
		return 0
	}
	return uint64(r.length())
}

// sum is over everything but the era, which changes.
func (r record) sum(seq uint64) uint32 {
	var b [25]byte
	binary.NativeEndian.PutUint64(b[:], seq)
	copy(b[8:], r[8:24])
	b[24] = byte(r.kind())
	return crc32.Checksum(b[:], castagnoli)
}

func (r record) valid() bool {
	k := r.kind()
	return binary.NativeEndian.Uint32(r[24:]) == r.sum(r.seq()) && k >= KindWrite && k <= KindCut && r.length() != 0 && r.end() > r.off()
}

// fill writes the record; the commit word last.
func (r record) fill(seq, off uint64, length, page uint32, k Kind, era uint32) {
	ne := binary.NativeEndian
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&r[0])), 0) // while it is made it is none
	ne.PutUint64(r[8:], off)
	ne.PutUint32(r[16:], length)
	ne.PutUint32(r[20:], page)
	ne.PutUint32(r[28:], era<<8|uint32(k))
	ne.PutUint32(r[24:], r.sum(seq))
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&r[0])), seq)
}

// renew says that what the record holds is there again, in that era.
func (r record) renew(era uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r[28])), era<<8|uint32(r.kind()))
}
