package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func id16(first byte) (id ID) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

var (
	sampleHello = Hello{
		Export: "vol0", ClientID: id16(0x10), Epoch: 1, Mode: PermRW, Keepalive: 1000, MaxSize: 1 << 20, Depth: 128, Digest: "crc32c",
	}
	sampleWelcome = Welcome{
		Epoch: 1, Mode: PermRW, Features: FeatureFlush | FeatureFUA | FeatureDiscard | FeatureWriteZeroes, Keepalive: 1000,
		MaxSize: 1 << 20, Depth: 128, Tenure: id16(0x20), Verifier: Verifier(id16(0x30)), StoreID: id16(0x40), Size: 1 << 30,
		BlockMin: 512, BlockPref: 4096,
	}
	sampleRefusals = []Refuse{
		{RefuseNoAccess, unix.EACCES, "no export of this name admits this address"},
		{RefuseBusy, unix.EBUSY, "another client has the read-write place"},
		{RefuseStale, unix.ESTALE, "a newer connection of this client was seen"},
		{RefuseUnknown, unix.EOPNOTSUPP, "attribute 31 must be understood and is not known to this version"},
		{RefuseMalformed, unix.EPROTO, "malformed handshake: attribute 3 is given twice"},
		{RefuseDigest, unix.EPROTO, "the two ends are configured with different digests"},
		{RefuseShutdown, unix.ESHUTDOWN, "the export is not started"},
		{RefuseLimit, unix.EUSERS, "no room for another session"},
	}
)

// wireFrames are all messages of the wire, by the name of their golden file.
func wireFrames() map[string]struct {
	title string
	b     []byte
} {
	pattern := make([]byte, 512)
	for i := range pattern {
		pattern[i] = byte(i)
	}
	frames := map[string]struct {
		title string
		b     []byte
	}{}
	add := func(name, title string, h Header, data []byte) {
		frames["wire-"+name] = struct {
			title string
			b     []byte
		}{title, frame(h, data)}
	}
	shake := func(name, title string, cmd Msg, attrs []byte) {
		add(name, title, Header{Cmd: cmd, Size: uint32(4 + len(attrs)), CSize: 4}, attrs)
	}
	const nonce = 0x0123456789abcdef
	add("cfg-hello", "CFG, client to export: the mark of this version and a nonce", Header{Cmd: MsgCFG, Flags: MarkHello, ID: nonce}, nil)
	add("cfg-welcome", "CFG, the export's answer: its mark, the nonce echoed", Header{Cmd: MsgCFG, Flags: MarkWelcome, ID: nonce}, nil)
	shake("hello", "HELLO, first of an attachment", MsgHello, sampleHello.Append(nil))
	again := sampleHello
	again.Epoch, again.Tenure, again.Steal = 7, id16(0x20), true
	shake("hello-again", "HELLO after a break, with its tenure, taking the place of a living client", MsgHello, again.Append(nil))
	shake("welcome", "WELCOME", MsgWelcome, sampleWelcome.Append(nil))
	for i := range sampleRefusals {
		r := &sampleRefusals[i]
		shake(fmt.Sprintf("refuse-%d", r.Code), fmt.Sprintf("REFUSE, code %d", r.Code), MsgRefuse, r.Append(nil))
	}
	verified := func(h Header) Header {
		h.SetVerifier(sampleWelcome.Verifier)
		return h
	}
	for _, c := range []struct {
		suffix, title string
		n             uint32
	}{{"", "without digest", 0}, {"-crc32c", "with crc32c", 4}} {
		read := Header{Cmd: MsgIO, Size: 512, CSize: c.n, ID: 2, Sector: 16}
		write := Header{Cmd: MsgIO, Size: 512 + c.n, CSize: c.n, RW: RWWrite, Flags: FlagFUA, ID: 1, Sector: 2048}
		empty := Header{Cmd: MsgIOResponse, Size: c.n, CSize: c.n}
		add("io-read"+c.suffix, "IO, READ of 512 bytes from sector 16, "+c.title, read, nil)
		add("io-write"+c.suffix, "IO, WRITE of 512 bytes to sector 2048, FUA, "+c.title, write, pattern)
		h := verified(Header{Cmd: MsgIOResponse, Size: 512 + c.n, CSize: c.n, ID: 2, Sector: 16})
		add("response-read"+c.suffix, "IO_RESPONSE to that READ, with its data, "+c.title, h, pattern)
		h = verified(empty)
		h.ID, h.Sector, h.Reserved = 1, 2048, Stable
		add("response-write"+c.suffix, "IO_RESPONSE to that WRITE, STABLE, "+c.title, h, nil)
		h = verified(empty)
		h.ID, h.Sector, h.Reserved = 2, 16, uint32(unix.EIO)
		add("response-error"+c.suffix, "IO_RESPONSE to that READ, which failed with EIO, "+c.title, h, nil)
		add("flush"+c.suffix, "FLUSH, "+c.title, Header{Cmd: MsgFlush, Size: c.n, CSize: c.n, ID: 3}, nil)
		add("discard"+c.suffix, "DISCARD of 1 MiB from sector 4096, "+c.title, Header{Cmd: MsgDiscard, Size: 1 << 20, CSize: c.n, ID: 4, Sector: 4096}, nil)
		add("write-zeroes"+c.suffix, "WRITE_ZEROES of 1 MiB from sector 4096, no hole, "+c.title,
			Header{Cmd: MsgWriteZeroes, Size: 1 << 20, CSize: c.n, Flags: FlagNoHole, ID: 5, Sector: 4096}, nil)
		add("ping"+c.suffix, "PING, "+c.title, Header{Cmd: MsgPing, Size: c.n, CSize: c.n, ID: 9}, nil)
		add("pong"+c.suffix, "PONG, its answer, "+c.title, Header{Cmd: MsgPong, Size: c.n, CSize: c.n, ID: 9}, nil)
		add("bye"+c.suffix, "BYE, "+c.title, Header{Cmd: MsgBye, Size: c.n, CSize: c.n}, nil)
	}
	add("draining", "DRAINING, before WELCOME and therefore with crc32c", Header{Cmd: MsgDraining, Size: 4, CSize: 4}, nil)
	return frames
}

func TestGoldenWire(t *testing.T) {
	for name, f := range wireFrames() {
		b := f.b
		parts := headerParts(&b)
		var h Header
		h.Parse(f.b)
		parts = append(parts, cut(&b, int(h.CSize), "crc32c of header and data"))
		if h.CSize == 0 {
			parts = parts[:len(parts)-1]
		}
		switch h.Cmd {
		case MsgHello, MsgWelcome, MsgRefuse:
			parts = append(parts, attrParts(b)...)
		default:
			if len(b) > 0 {
				parts = append(parts, part{b, "data"})
			}
		}
		golden(t, name, f.title, parts)
		if err := h.Check(h.CSize, 1<<20); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, want := int(h.Payload()), len(f.b)-HeaderSize-int(h.CSize); got != want {
			t.Errorf("%s: Payload is %d, %d bytes follow", name, got, want)
		}
		if !bytes.Equal(headerBytes(h), f.b[:HeaderSize]) {
			t.Errorf("%s: Parse and Put are no inverses", name)
		}
	}
}

func TestHeaderResponse(t *testing.T) {
	var h Header
	h.Parse(readHex(t, "wire-response-error"))
	if h.Errno() != unix.EIO || h.Verifier() != sampleWelcome.Verifier || h.Reserved&Stable != 0 {
		t.Errorf("got errno %v, verifier %v, reserved %#x", h.Errno(), h.Verifier(), h.Reserved)
	}
	h.Parse(readHex(t, "wire-response-write"))
	if h.Errno() != 0 || h.Reserved&Stable == 0 {
		t.Errorf("got errno %v, reserved %#x, want a stable success", h.Errno(), h.Reserved)
	}
}

func TestHeaderCheck(t *testing.T) {
	const limit = 1 << 20
	all := []uint32{0, 1, 3, 4, 47, 48, limit, limit + 1, limit + 3, limit + 4, limit + 5, 1 << 31, 1<<32 - 1}
	for cmd := Msg(0); cmd <= MsgBye+1; cmd++ {
		for _, rw := range []uint64{0, RWWrite} {
			for _, csize := range []uint32{0, 4} {
				for _, size := range all {
					h := Header{Cmd: cmd, Size: size, CSize: csize, RW: rw}
					if got, want := h.Check(csize, limit) == nil, legal(h, limit); got != want {
						t.Errorf("%v, rw %d, csize %d, size %d: accepted is %v, want %v", cmd, rw, csize, size, got, want)
					}
					if h.Check(csize, limit) == nil && h.Payload() > limit {
						t.Errorf("%v, size %d: a payload of %d was accepted", cmd, size, h.Payload())
					}
				}
			}
		}
	}
	for _, csize := range []uint32{0, 1, 3, 5, 8, 48, 4048, 1 << 31, 1<<32 - 1} {
		h := Header{Cmd: MsgPing, Size: csize, CSize: csize}
		if err := h.Check(4, limit); !errors.Is(err, unix.EPROTO) {
			t.Errorf("csize %d where 4 were agreed: got %v, want EPROTO", csize, err)
		}
	}
	for _, cmd := range []Msg{0, MsgBye + 1, 1 << 24, 1<<32 - 1} {
		h := Header{Cmd: cmd}
		if err := h.Check(0, limit); !errors.Is(err, unix.EPROTO) || !strings.Contains(err.Error(), "message") {
			t.Errorf("command %d: got %v, want EPROTO", cmd, err)
		}
	}
}

// legal says in other words what Check must say.
func legal(h Header, limit uint32) bool {
	behind := int64(h.Size) - int64(h.CSize)
	switch h.Cmd {
	case MsgDiscard, MsgWriteZeroes:
		return true
	case MsgIO:
		return h.RW == 0 || behind >= 0 && behind <= int64(limit)
	case MsgIOResponse, MsgHello, MsgWelcome, MsgRefuse:
		return behind >= 0 && behind <= int64(limit)
	case MsgCFG, MsgPing, MsgPong, MsgFlush, MsgDraining, MsgBye:
		return behind == 0
	}
	return false
}

func TestMsgNames(t *testing.T) {
	seen := map[string]bool{}
	for m := MsgCFG; m <= MsgBye; m++ {
		if s := m.String(); seen[s] || strings.Contains(s, " ") {
			t.Errorf("message %d is called %q", m, s)
		} else {
			seen[s] = true
		}
	}
	if s := (MsgBye + 1).String(); s != "message 14" {
		t.Errorf("an unknown message is called %q", s)
	}
}

func FuzzHeaderCheck(f *testing.F) {
	for _, w := range wireFrames() {
		f.Add(w.b[:HeaderSize], uint32(4), uint32(1<<20))
	}
	f.Fuzz(func(t *testing.T, b []byte, csize, limit uint32) {
		if len(b) < HeaderSize {
			return
		}
		var h Header
		h.Parse(b)
		if !bytes.Equal(headerBytes(h), b[:HeaderSize]) {
			t.Fatalf("%x became %x", b[:HeaderSize], headerBytes(h))
		}
		if csize > DigestMax || limit > MaxRequest || h.Check(csize, limit) != nil {
			return
		}
		if h.CSize != csize || h.Payload() > limit {
			t.Fatalf("accepted %+v with csize %d, limit %d", h, csize, limit)
		}
	})
}

// TestOriginal reads the worked examples of the original protocol.
func TestOriginal(t *testing.T) {
	write := Header{Cmd: MsgIO, Size: 4096, RW: RWWrite, Flags: 1, ID: 1, Sector: 2048}
	read := Header{Cmd: MsgIO, Size: 8192, Flags: 1, ID: 2, Sector: 16}
	hashed := func(h Header) Header {
		h.CSize = 20
		if h.Payload() > 0 || h.Cmd == MsgIOResponse {
			h.Size += 20
		}
		return h
	}
	for name, want := range map[string]Header{
		"10.1-cfg":           {Cmd: MsgCFG},
		"10.1-cfg-reply":     {Cmd: MsgCFG, RW: 3, Sector: 1 << 30},
		"10.1-cfg-read-only": {Cmd: MsgCFG, RW: 1, Sector: 10485760},
		"10.2-write":         write,
		"10.2-response":      {Cmd: MsgIOResponse, RW: 1, ID: 1, Sector: 2048},
		"10.3-read":          read,
		"10.3-response":      {Cmd: MsgIOResponse, Size: 8192, ID: 2, Sector: 16},
		"10.4-ping":          {Cmd: MsgPing},
		"10.5-write":         hashed(write),
		"10.5-response":      hashed(Header{Cmd: MsgIOResponse, Size: 8192, ID: 2, Sector: 16}),
	} {
		b := readHex(t, "original/"+name)
		var h Header
		if h.Parse(b); h != want {
			t.Errorf("%s: got %+v, want %+v", name, h, want)
		}
		if !bytes.Equal(headerBytes(want), b[:HeaderSize]) {
			t.Errorf("%s: wrote %x", name, headerBytes(want))
		}
		if err := h.Check(h.CSize, 8192); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// 10.7: the header of a resent request, swapped once too often.
	var h Header
	b := readHex(t, "original/10.7-swapped")
	if h.Parse(b); !errors.Is(h.Check(0, 1<<20), unix.EPROTO) {
		t.Errorf("10.7: got %v, want EPROTO", h.Check(0, 1<<20))
	}
	le := binary.LittleEndian
	h = Header{Cmd: Msg(le.Uint32(b)), Size: le.Uint32(b[4:]), RW: le.Uint64(b[16:]), Flags: le.Uint64(b[24:]), ID: le.Uint64(b[32:]), Sector: le.Uint64(b[40:])}
	if h != write {
		t.Errorf("10.7: swapped back it is %+v", h)
	}
}
