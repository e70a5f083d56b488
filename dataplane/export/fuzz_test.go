package export

import (
	"errors"
	"net"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// FuzzWire feeds bytes to an export over a pipe, in one of three stages: from
// the first byte on; as the attributes of a well-sealed HELLO; as what follows
// WELCOME, without digests. Whatever comes, all that the export says is whole
// frames, it ends with the connection and has given everything back.
func FuzzWire(f *testing.F) {
	h := helloOf(1, 1, abi.PermRW)
	h.Digest = "none"
	f.Add(byte(stageMarked), h.Append(nil))
	mark := make([]byte, abi.HeaderSize)
	(&abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello}).Put(mark)
	f.Add(byte(stageFresh), append(mark, frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: 8}, []byte{1, 2, 3, 4})...))
	var session []byte
	for _, h := range []abi.Header{{Cmd: abi.MsgPing}, {Cmd: abi.MsgIO, Size: 4096}, {Cmd: abi.MsgFlush},
		{Cmd: abi.MsgDiscard, Size: 4096, Sector: 8}, {Cmd: abi.MsgWriteZeroes, Size: 512, Flags: abi.FlagNoHole | abi.FlagFUA}} {
		session = append(session, frame(crypt.DigestNone, h, nil)...)
	}
	session = append(session, frame(crypt.DigestNone, abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 512}, pattern(512, 1))...)
	f.Add(byte(stageWelcomed), session)
	f.Fuzz(func(t *testing.T, stage byte, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		fuzzOne(t, stage, b)
	})
}

// FuzzSecure is FuzzWire at an export with a key: from the first byte on; in place
// of the first record; as the attributes of a HELLO in it; as its plaintext; as what
// follows WELCOME.
func FuzzSecure(f *testing.F) {
	k := gcmKey(f, 1)
	spoken = k
	f.Cleanup(func() { spoken = nil })
	hello := helloOf(1, 1, abi.PermRW)
	attrs := hello.Append(nil)
	f.Add(byte(stageFresh), message1(f, k))
	f.Add(byte(stageFresh), append(firstWords(), attrs...))
	f.Add(byte(stageForged), append([]byte{0, 0, 48, 0}, make([]byte, 64)...))
	f.Add(byte(stageMarked), attrs)
	f.Add(byte(stagePlain), frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(attrs))}, attrs))
	f.Add(byte(stageWelcomed), append(frame(crypt.DigestNone, abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 512}, pattern(512, 1)),
		frame(crypt.DigestNone, abi.Header{Cmd: abi.MsgIO, Size: 4096}, nil)...))
	f.Fuzz(func(t *testing.T, stage byte, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		fuzzOne(t, stage, b)
	})
}

func fuzzOne(t *testing.T, stage byte, b []byte) {
	_, disk := memDisk(64 << 10)
	ports, budget := NewPorts(zerolog.Nop()), mempool.NewBudget(1<<30)
	c := Config{Name: "vol0", Listen: []abi.Addr{loopback()}, MaxPages: 2, Depth: 4, Workers: 2, Keys: keysNow()}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	n := newNode(c, Env{Budget: budget, Ports: ports, Log: zerolog.Nop()}, disk)
	if err := errors.Join(n.AddRule(anyone(abi.PermRW)), n.Start()); err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	(&port{ports: ports, nodes: []*Node{n}}).receive(far, from("10.0.0.1"))
	said := make(chan error, 1)
	cl := &client{t: t, st: near}
	hello := helloOf(1, 1, abi.PermRW)
	hello.Digest = "none"
	digest := crypt.DigestNone
	switch stage {
	case stageForged, stagePlain:
		if err := cl.mark(); err != nil {
			t.Fatal(err)
		}
		digest = crypt.DigestCRC32C
	case stageMarked:
		if err := cl.mark(); err != nil {
			t.Fatal(err)
		}
		b = frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)
		digest = crypt.DigestCRC32C
	case stageWelcomed:
		if err := cl.greet(hello); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			h, _, err := recvFrame(cl.st, digest)
			if err != nil {
				if errors.Is(err, unix.EBADMSG) {
					said <- err
				}
				close(said)
				return
			}
			switch h.Cmd { // what follows is sealed otherwise
			case abi.MsgCFG:
				digest = crypt.DigestCRC32C
			case abi.MsgWelcome:
				digest = crypt.DigestNone
			}
		}
	}()
	if stage == stageForged {
		_, _ = near.Write(b)
	} else {
		_, _ = cl.st.Write(b) // the export may close before it has all
	}
	near.Close()
	if err := <-said; err != nil {
		t.Errorf("the export sent a damaged frame: %v", err)
	}
	if err := n.Close(true); err != nil {
		t.Error(err)
	}
	ports.Close()
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes were not given back", used)
	}
}
