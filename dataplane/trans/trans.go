// Package trans is one block request in flight, the reserve it comes from and
// the table that finds it by id and lets exactly one party complete it.
//
// A transaction is one element: header, digest room and bookkeeping are made
// with the node and never again; its payload lies in the node's arena. The
// depth of the reserve is the depth of the queue: who finds it empty waits,
// and that wait is the back-pressure.
package trans

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// Op is what a transaction asks for.
type Op uint8

const (
	Read Op = iota + 1
	Write
	Flush
	Discard
	Zero
)

var ops = [...]struct {
	name string
	msg  abi.Msg
	rw   uint64
}{
	Read:    {"read", abi.MsgIO, 0},
	Write:   {"write", abi.MsgIO, abi.RWWrite},
	Flush:   {"flush", abi.MsgFlush, 0},
	Discard: {"discard", abi.MsgDiscard, 0},
	Zero:    {"write-zeroes", abi.MsgWriteZeroes, 0},
}

// String is the operation's name.
func (o Op) String() string { return ops[o].name }

// Changes reports whether o changes bytes of the device.
func (o Op) Changes() bool { return o == Write || o == Discard || o == Zero }

// Front is who asked: it takes transactions back. Neither method may block,
// and both may be called from any goroutine.
type Front interface {
	Complete(t *Trans) // t is the front's again, t.Err is the outcome
	Flush()            // end of a batch of Completes
}

// Trans is one block request in flight.
type Trans struct {
	Op     Op
	Flags  uint64     // abi.Flag…
	Offset uint64     // bytes
	Length uint32     // bytes, 0 for Flush
	Data   []byte     // Read and Write: Length bytes of the arena
	Err    unix.Errno // outcome, 0 = done
	Front  Front
	Cookie uint64     // the front's own
	Answer conn.Frame // the front's room for its reply

	ID       uint64     // on the wire: element number in the low 16 bits, use count above
	Born     time.Time  // when it was submitted
	Issued   time.Time  // when it was put on the present link, if it is there
	Seq      uint64     // order of submission
	Mark     uint64     // Flush: what it covers, set when it is sent
	OnWire   bool       // it is on the present link
	Resend   bool       // it was on an earlier link and is unanswered
	Promised bool       // a record of the log is promised to it
	Piece    Piece      // the node's own: what of the log it writes again
	Request  conn.Frame // header and payload on the link

	holds      atomic.Int32 // table's and sender's; the last to drop completes
	slot       int          // element number
	own        bool         // the node's: it never was a front's
	span       int          // index in the table's spans, -1 if none
	prev, next *Trans       // submission order
}

// Slot is the number of t's element in its reserve.
func (t *Trans) Slot() int { return t.slot }

// Own tells whether t is the node's own.
func (t *Trans) Own() bool { return t.own }

// End is the first byte behind the transaction's range.
func (t *Trans) End() uint64 { return t.Offset + uint64(t.Length) }

// Seal prepares t's request frame: a new id, header and digest. It runs before
// the transaction is submitted, outside of locks, and again only for a link with
// a digest of another size; every sending in between sends the same bytes.
func (t *Trans) Seal(d crypt.Digest) {
	t.ID = (t.ID>>16+1)<<16 | uint64(t.slot)
	csize := uint32(d.Size())
	h := abi.Header{Cmd: ops[t.Op].msg, Size: t.Length, CSize: csize, RW: ops[t.Op].rw,
		Flags: t.Flags, ID: t.ID, Sector: t.Offset / abi.SectorSize}
	t.Request.Data = nil
	switch t.Op {
	case Write:
		h.Size += csize
		t.Request.Data = t.Data
	case Flush:
		h.Size = csize
	}
	t.Request.Head = t.Request.Room[:abi.HeaderSize+csize]
	h.Put(t.Request.Head)
	d.Seal(t.Request.Head, t.Request.Data)
}

// Hold keeps t from being completed until a Drop matches it.
func (t *Trans) Hold() { t.holds.Add(1) }

// Drop gives one hold back; the last one completes t. It reports whether it
// was the last: then the caller owes the front a Flush.
func (t *Trans) Drop() bool {
	if t.holds.Add(-1) != 0 {
		return false
	}
	t.Front.Complete(t)
	return true
}

// request is a Trans as the owner of its request frame.
type request Trans

// Sent implements conn.Sender: the sender's hold ends. With the answer already
// there, t is complete now.
func (r *request) Sent(*conn.Frame, error) {
	t := (*Trans)(r)
	front := t.Front
	if t.Drop() {
		front.Flush()
	}
}
