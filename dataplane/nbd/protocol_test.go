package nbd

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestSizes holds our lengths and codecs against go-nbd's structures.
func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want int
	}{
		{protocol.NegotiationOptionHeader{}, optionSize},
		{protocol.TransmissionRequestHeader{}, requestSize},
		{protocol.TransmissionReplyHeader{}, replySize},
	} {
		if n := binary.Size(tt.v); n != tt.want {
			t.Errorf("%T has %d bytes, want %d", tt.v, n, tt.want)
		}
	}
}

func TestRequestParse(t *testing.T) {
	h := protocol.TransmissionRequestHeader{RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST, CommandFlags: 0x0102, Type: 0x0304,
		Handle: 0x05060708090a0b0c, Offset: 0x0d0e0f1011121314, Length: 0x15161718}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, h); err != nil {
		t.Fatal(err)
	}
	var r request
	want := request{h.CommandFlags, h.Type, h.Handle, h.Offset, h.Length}
	if !r.parse(b.Bytes()) || r != want {
		t.Errorf("parsed %+v, want %+v", r, want)
	}
	b.Bytes()[3] ^= 1
	if r.parse(b.Bytes()) {
		t.Error("a wrong magic was not seen")
	}
}

func TestPutReply(t *testing.T) {
	b := make([]byte, replySize)
	putReply(b, 0x0102030405060708, unix.ENOSPC)
	var h protocol.TransmissionReplyHeader
	if err := binary.Read(bytes.NewReader(b), binary.BigEndian, &h); err != nil {
		t.Fatal(err)
	}
	if want := (protocol.TransmissionReplyHeader{ReplyMagic: protocol.TRANSMISSION_MAGIC_REPLY, Error: 28, Handle: 0x0102030405060708}); h != want {
		t.Errorf("put %+v, want %+v", h, want)
	}
}

// TestWireError walks every errno: only the protocol's values leave, success
// only for success.
func TestWireError(t *testing.T) {
	allowed := map[uint32]bool{1: true, 5: true, 12: true, 22: true, 28: true, 75: true, 95: true, 108: true}
	for e := unix.Errno(1); e < 4096; e++ {
		if w := wireError(e); !allowed[w] {
			t.Errorf("%v is %d on the wire", e, w)
		}
	}
	for _, tt := range []struct {
		err  unix.Errno
		want uint32
	}{
		{0, 0}, {unix.EPERM, 1}, {unix.EACCES, 1}, {unix.EROFS, 1}, {unix.EIO, 5}, {unix.EBADMSG, 5}, {unix.ENOMEM, 12}, {unix.EINVAL, 22},
		{unix.ENOSPC, 28}, {unix.EDQUOT, 28}, {unix.EFBIG, 28}, {unix.EOVERFLOW, 75}, {unix.EOPNOTSUPP, 95}, {unix.ESHUTDOWN, 108}, {unix.ENODEV, 5},
	} {
		if w := wireError(tt.err); w != tt.want {
			t.Errorf("%v is %d on the wire, want %d", tt.err, w, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	rw := Info{Size: 1 << 30, BlockMin: 512, BlockPref: 4096, MaxSize: 1 << 20,
		Features: abi.FeatureDiscard | abi.FeatureWriteZeroes}
	ro, plain, coarse, huge := rw, rw, rw, rw
	ro.ReadOnly = true
	plain.Features = 0
	coarse.BlockMin = 4096
	huge.Size = math.MaxInt64 &^ 511
	const fua, noHole, df, fast = cmdFlagFUA, cmdFlagNoHole, uint16(1 << 2), uint16(1 << 4)
	tests := []struct {
		name   string
		d      *Info
		flags  uint16
		cmd    uint16
		offset uint64
		length uint32
		op     trans.Op
		abi    uint64
		err    unix.Errno
	}{
		{"read", &rw, 0, cmdRead, 512, 512, trans.Read, 0, 0},
		{"read at the end", &rw, 0, cmdRead, 1<<30 - 512, 512, trans.Read, 0, 0},
		{"read of the largest size", &rw, 0, cmdRead, 0, 1 << 20, trans.Read, 0, 0},
		{"read with FUA, which is ignored", &rw, fua, cmdRead, 0, 512, trans.Read, 0, 0},
		{"read one too large", &rw, 0, cmdRead, 0, 1<<20 + 512, 0, 0, unix.EINVAL},
		{"read of the largest number", &rw, 0, cmdRead, 0, math.MaxUint32, 0, 0, unix.EINVAL},
		{"read past the end", &rw, 0, cmdRead, 1<<30 - 512, 1024, 0, 0, unix.EINVAL},
		{"read far past the end", &rw, 0, cmdRead, math.MaxUint64 &^ 511, 512, 0, 0, unix.EINVAL},
		{"read of nothing", &rw, 0, cmdRead, 0, 0, 0, 0, unix.EINVAL},
		{"read of an odd length", &rw, 0, cmdRead, 0, 511, 0, 0, unix.EINVAL},
		{"read from an odd place", &rw, 0, cmdRead, 1, 512, 0, 0, unix.EINVAL},
		{"read in half blocks", &coarse, 0, cmdRead, 0, 512, 0, 0, unix.EINVAL},
		{"read with DF", &rw, df, cmdRead, 0, 512, 0, 0, unix.EINVAL},
		{"read with NO_HOLE", &rw, noHole, cmdRead, 0, 512, 0, 0, unix.EINVAL},
		{"read, read-only", &ro, 0, cmdRead, 0, 512, trans.Read, 0, 0},

		{"write", &rw, 0, cmdWrite, 0, 512, trans.Write, 0, 0},
		{"write with FUA", &rw, fua, cmdWrite, 0, 512, trans.Write, abi.FlagFUA, 0},
		{"write past the end", &rw, 0, cmdWrite, 1 << 30, 512, 0, 0, unix.ENOSPC},
		{"write round the end of numbers", &huge, 0, cmdWrite, math.MaxUint64 &^ 511, 1024, 0, 0, unix.ENOSPC},
		{"write too large", &rw, 0, cmdWrite, 0, 1<<20 + 512, 0, 0, unix.EINVAL},
		{"write of nothing", &rw, 0, cmdWrite, 0, 0, 0, 0, unix.EINVAL},
		{"write, read-only", &ro, 0, cmdWrite, 0, 512, 0, 0, unix.EPERM},
		{"write with an unknown flag", &rw, 1 << 15, cmdWrite, 0, 512, 0, 0, unix.EINVAL},

		{"flush", &rw, 0, cmdFlush, 0, 0, trans.Flush, 0, 0},
		{"flush with FUA, which is ignored", &rw, fua, cmdFlush, 0, 0, trans.Flush, 0, 0},
		{"flush, read-only", &ro, 0, cmdFlush, 0, 0, trans.Flush, 0, 0},
		{"flush of a place", &rw, 0, cmdFlush, 512, 0, 0, 0, unix.EINVAL},
		{"flush of a length", &rw, 0, cmdFlush, 0, 512, 0, 0, unix.EINVAL},

		{"trim", &rw, 0, cmdTrim, 0, 1 << 29, trans.Discard, 0, 0},
		{"trim with FUA", &rw, fua, cmdTrim, 0, 512, trans.Discard, abi.FlagFUA, 0},
		{"trim of nearly 4 GiB", &huge, 0, cmdTrim, 512, math.MaxUint32 &^ 511, trans.Discard, 0, 0},
		{"trim past the end", &rw, 0, cmdTrim, 1 << 30, 512, 0, 0, unix.EINVAL},
		{"trim with NO_HOLE", &rw, noHole, cmdTrim, 0, 512, 0, 0, unix.EINVAL},
		{"trim, not offered", &plain, 0, cmdTrim, 0, 512, 0, 0, unix.EINVAL},
		{"trim, read-only", &ro, 0, cmdTrim, 0, 512, 0, 0, unix.EPERM},

		{"zeroes", &rw, 0, cmdWriteZeroes, 0, 1 << 29, trans.Zero, 0, 0},
		{"zeroes with both flags", &rw, fua | noHole, cmdWriteZeroes, 0, 512, trans.Zero, abi.FlagFUA | abi.FlagNoHole, 0},
		{"zeroes with FAST_ZERO, not offered", &rw, fast, cmdWriteZeroes, 0, 512, 0, 0, unix.EINVAL},
		{"zeroes past the end", &rw, 0, cmdWriteZeroes, 1<<30 - 512, 1024, 0, 0, unix.ENOSPC},
		{"zeroes, not offered", &plain, 0, cmdWriteZeroes, 0, 512, 0, 0, unix.EINVAL},
		{"zeroes, read-only", &ro, 0, cmdWriteZeroes, 0, 512, 0, 0, unix.EPERM},

		{"cache", &rw, 0, 5, 0, 512, 0, 0, unix.EINVAL},
		{"block status", &rw, 0, 7, 0, 512, 0, 0, unix.EINVAL},
		{"the last command there can be", &rw, 0, math.MaxUint16, 0, 512, 0, 0, unix.EINVAL},
	}
	for _, tt := range tests {
		r := request{flags: tt.flags, cmd: tt.cmd, offset: tt.offset, length: tt.length}
		if op, flags, err := r.check(tt.d); op != tt.op || flags != tt.abi || err != tt.err {
			t.Errorf("%s: op %d, flags %#x, %v; want %d, %#x, %v", tt.name, op, flags, err, tt.op, tt.abi, tt.err)
		}
	}
}

func TestFlags(t *testing.T) {
	const always = sendHasFlags | sendFlush | sendFUA | sendMultiConn
	for _, tt := range []struct {
		d    Info
		want uint16
	}{
		{Info{}, always},
		{Info{ReadOnly: true}, always | sendReadOnly},
		{Info{Features: abi.FeatureRotational}, always | sendRotational},
		{Info{Features: abi.FeatureDiscard}, always | sendTrim},
		{Info{Features: abi.FeatureWriteZeroes}, always | sendWriteZeroes},
	} {
		if f := tt.d.flags(); f != tt.want {
			t.Errorf("%+v: flags %#x, want %#x", tt.d, f, tt.want)
		}
	}
}
