package export

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// TestN14NothingSurvivesTheHandshake: what is put behind message 1 in clear, before
// there is a channel, is taken for a record, and is none.
func TestN14NothingSurvivesTheHandshake(t *testing.T) {
	m, disk := memDisk(1 << 20)
	calls := recorded(m)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	h := helloOf(1, 1, abi.PermRW)
	attrs := h.Append(nil)
	hello := frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)
	write := frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 4 + 512}, pattern(512, 1))
	for name, b := range map[string][]byte{
		"a HELLO in clear": hello, "mark and HELLO": append(firstWords(), hello...), "a WRITE": write, "a second message 1": message1(t, k),
	} {
		n := w.silence(append(message1(t, k), b...))
		if n != crypt.ReplySize && n != 0 { // 0: the end came before the answer was read
			t.Errorf("%s: %d bytes", name, n)
		}
	}
	// Injected before the client's own record, whom it costs the connection.
	c := w.dial()
	raw := c.st
	if err := c.prove(k); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write(hello[:32]); err != nil {
		t.Fatal(err)
	}
	if _, err := c.st.Write(hello); err != nil && !ended(err) {
		t.Fatal(err)
	}
	if err := c.answer(); !ended(err) {
		t.Errorf("%v", err)
	}
	eventually(t, "all are counted", func() bool { return w.Counters().AuthErrors == 5 })
	want(t, "calls of the store", len(calls()), 0)
}

// TestN15ForgedRecords: bytes that are not the client's end its session, are counted,
// and reach no store.
func TestN15ForgedRecords(t *testing.T) {
	k := gcmKey(t, 1)
	for i, harm := range []func(raw conn.Stream) []byte{
		func(conn.Stream) []byte { return make([]byte, 100) },
		func(conn.Stream) []byte { return append([]byte{0, 2, 0, 0}, make([]byte, 600)...) },
		func(conn.Stream) []byte { return []byte{0xff, 0xff, 0xff, 0xff} },
		func(raw conn.Stream) []byte { return raw.(*tap).out.Bytes()[84:] }, // all that it said, again
	} {
		m, disk := memDisk(1 << 20)
		w := keyed(t, Config{}, disk, k)
		c := w.dial()
		raw := &tap{Stream: c.st}
		c.st = raw
		if err := c.prove(k); err != nil {
			t.Fatal(err)
		}
		h := helloOf(1, 1, abi.PermRW)
		h.Digest = "none"
		c.hello = h
		b := h.Append(nil)
		if _, err := c.st.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)); err != nil {
			t.Fatal(err)
		}
		if err := c.answer(); err != nil {
			t.Fatal(err)
		}
		want(t, "WRITE", c.write(0, pattern(4096, 1), 0), 0)
		calls := recorded(m)
		if _, err := raw.Stream.Write(harm(raw)); err != nil {
			t.Fatal(err)
		}
		c.gone()
		eventually(t, "it is counted", func() bool { return w.Counters().AuthErrors == 1 })
		if n := len(calls()); n != 0 {
			t.Errorf("%d: the store was called %d times", i, n)
		}
		c = w.served(k, helloOf(1, 2, abi.PermRW))
		want(t, "FLUSH after it", c.flush(), 0)
	}
}

// TestN19NoWayToAnotherExport: whatever a header says, it is about the export that
// HELLO named.
func TestN19NoWayToAnotherExport(t *testing.T) {
	_, disk := memDisk(1 << 20)
	m, other := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	n, err := New(Config{Name: "vol1", Listen: w.Addrs(), Digest: crypt.DigestCRC32C, Keys: keysNow()}, w.env(other))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(true)
	if err := errors.Join(n.AddRule(anyone(abi.PermRW)), n.Start()); err != nil {
		t.Fatal(err)
	}
	calls := recorded(m)
	c := w.client(helloOf(1, 1, abi.PermRW))
	for bit := range 64 {
		for _, h := range []abi.Header{{RW: abi.RWWrite | 1<<bit}, {RW: abi.RWWrite, Flags: 1 << bit}, {RW: abi.RWWrite, Reserved: uint32(1 << bit)},
			{RW: abi.RWWrite, Sector: 1 << bit}} {
			h.Cmd = abi.MsgIO
			if r, _ := c.do(h, pattern(512, 1)); r.Errno() != 0 && r.Errno() != unix.EINVAL {
				t.Errorf("%+v: %v", h, r.Errno())
			}
		}
	}
	want(t, "calls of the other store", len(calls()), 0)
}

// TestN27EveryStoreError fails each call of the store in turn, in a fixed course of
// requests: the request that needed it is answered with an error, or by the end of
// the connection, and never as done.
func TestN27EveryStoreError(t *testing.T) {
	course := []abi.Header{
		{Cmd: abi.MsgIO, RW: abi.RWWrite}, {Cmd: abi.MsgIO, Size: 512}, {Cmd: abi.MsgFlush},
		{Cmd: abi.MsgIO, RW: abi.RWWrite, Flags: abi.FlagFUA}, {Cmd: abi.MsgIO, RW: abi.RWWrite, Flags: abi.FlagFUA | abi.FlagPreflush},
		{Cmd: abi.MsgDiscard, Size: 4096}, {Cmd: abi.MsgWriteZeroes, Size: 4096, Flags: abi.FlagNoHole},
		{Cmd: abi.MsgWriteZeroes, Size: 4096, Flags: abi.FlagFUA}, {Cmd: abi.MsgIO, Size: 4096}, {Cmd: abi.MsgFlush},
	}
	for k := int64(1); ; k++ {
		m, disk := memDisk(1 << 20)
		var calls, failed atomic.Int64
		m.setGate(func(call string, _, _ uint64) error {
			if calls.Add(1) == k {
				failed.Store(1)
				return unix.EIO
			}
			return nil
		})
		w := newWorld(t, Config{}, disk)
		c := w.client(helloOf(1, 1, abi.PermRW))
		for i, h := range course {
			h.ID = uint64(i + 1)
			var data []byte
			if h.RW != 0 {
				data = pattern(512, byte(i))
			}
			err := c.send(h, data)
			var r abi.Header
			if err == nil {
				r, _, err = c.reply()
			}
			if failed.Load() == 0 {
				want(t, fmt.Sprintf("request %d, %v", i, err), r.Errno(), 0)
				continue
			}
			if err == nil && r.Errno() == 0 {
				t.Errorf("call %d failed, and request %d was answered as done", k, i)
			}
			if err != nil && !errors.Is(err, io.EOF) && !ended(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			break
		}
		_ = c.st.Close() // who was told of an error is waited for
		w.end()
		if failed.Load() == 0 {
			t.Logf("%d calls", k-1)
			return
		}
	}
}

// TestN07FirstRecord: what may stand in the first record is a HELLO and nothing else;
// one that is wrong in itself is answered with a code, as who sent it has a key.
func TestN07FirstRecord(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k := gcmKey(t, 1)
	w := keyed(t, Config{}, disk, k)
	good := helloOf(1, 1, abi.PermRW)
	good.Digest = "none"
	attrs := good.Append(nil)
	hello := func(attrs []byte) []byte {
		return frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs)
	}
	crc := good
	crc.Digest = "crc32c"
	wrong := hello(attrs)
	wrong[50] ^= 1
	for name, tt := range map[string]struct {
		said []byte
		code abi.RefuseCode // 0: no answer
	}{
		"a mark, then HELLO":     {append(firstWords(), hello(attrs)...), 0},
		"a WRITE":                {frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 516}, pattern(512, 1)), 0},
		"a WELCOME":              {frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgWelcome, Size: uint32(4 + len(attrs))}, attrs), 0},
		"a HELLO that is longer": {frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: 4 + abi.HelloMax + 1}, make([]byte, abi.HelloMax+1)), 0},
		"a wrong digest":         {wrong, 0},
		"nothing in it":          {hello(nil), abi.RefuseMalformed},
		"cut":                    {hello(attrs[:len(attrs)-1]), abi.RefuseMalformed},
		"unknown, must":          {hello(append(attrs[:len(attrs):len(attrs)], 0x80, 0x1f, 0, 0)), abi.RefuseUnknown},
		"another digest":         {hello(crc.Append(nil)), abi.RefuseDigest},
	} {
		c := w.dial()
		if err := c.prove(k); err != nil {
			t.Fatal(err)
		}
		if _, err := c.st.Write(tt.said); err != nil && !ended(err) {
			t.Fatal(err)
		}
		c.hello = good
		err := c.answer()
		var r *abi.Refuse
		if tt.code == 0 && !ended(err) || tt.code != 0 && (!errors.As(err, &r) || r.Code != tt.code) {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.st.Close()
	}
	c := w.dial() // in two records, with an attribute that need not be understood
	if err := c.prove(k); err != nil {
		t.Fatal(err)
	}
	b := hello(append(attrs[:len(attrs):len(attrs)], 0x00, 0x1f, 0, 2, 1, 2))
	for _, part := range [][]byte{b[:31], b[31:]} {
		if _, err := c.st.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	c.hello = good
	want(t, "in two records", c.answer(), nil)
	want(t, "FLUSH", c.flush(), 0)
}
