package trans

import (
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"dst/dataplane/mempool"
)

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
// b is scratch.
func (r record) sum(seq uint64, b *[25]byte) uint32 {
	binary.NativeEndian.PutUint64(b[:], seq)
	copy(b[8:], r[8:24])
	b[24] = byte(r.kind())
	return crc32.Checksum(b[:], castagnoli)
}

func (r record) valid(b *[25]byte) bool {
	k := r.kind()
	return binary.NativeEndian.Uint32(r[24:]) == r.sum(r.seq(), b) && k >= KindWrite && k <= KindCut && r.length() != 0 && r.end() > r.off()
}

// fill writes the record; the commit word last.
func (r record) fill(seq, off uint64, length, page uint32, k Kind, era uint32, b *[25]byte) {
	ne := binary.NativeEndian
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&r[0])), 0) // while it is made it is none
	ne.PutUint64(r[8:], off)
	ne.PutUint32(r[16:], length)
	ne.PutUint32(r[20:], page)
	ne.PutUint32(r[28:], era<<8|uint32(k))
	ne.PutUint32(r[24:], r.sum(seq, b))
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&r[0])), seq)
}

// renew says that what the record holds is there again, in that era.
func (r record) renew(era uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r[28])), era<<8|uint32(r.kind()))
}
