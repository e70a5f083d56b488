package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// told is what INFO or GO answered, by kind of information.
func (p *peer) told(opt uint32) map[uint16][]byte {
	p.t.Helper()
	all := map[uint16][]byte{}
	for {
		kind, data := p.reply(opt)
		if kind == repAck {
			return all
		}
		if kind != repInfo || len(data) < 2 {
			p.t.Fatalf("reply %#x %q", kind, data)
		}
		id := binary.BigEndian.Uint16(data)
		if all[id] != nil {
			p.t.Fatalf("information %d was told twice", id)
		}
		all[id] = data
	}
}

// TestInfoAndGo reads the answers with go-nbd's structures.
func TestInfoAndGo(t *testing.T) {
	m := newMemory(t, 4, testMax)
	m.info.Features |= abi.FeatureRotational
	_, path := serve(t, m)
	p := dial(t, path).hello(bothFlags)
	for _, opt := range []uint32{optInfo, optInfo, optGo} {
		// 0x1234 is no information of the protocol: to be ignored.
		p.option(opt, choice("vol0", infoName, infoName, infoDescription, 0x1234, infoBlockSize))
		all := p.told(opt)
		if len(all) != 4 {
			t.Errorf("told %d things: %v", len(all), all)
		}
		var export protocol.NegotiationReplyInfo
		var size protocol.NegotiationReplyBlockSize
		for id, v := range map[uint16]any{infoExport: &export, infoBlockSize: &size} {
			r := bytes.NewReader(all[id])
			if err := binary.Read(r, binary.BigEndian, v); err != nil || r.Len() != 0 {
				t.Fatalf("information %d: %v, %d bytes left", id, err, r.Len())
			}
		}
		flags := sendHasFlags | sendFlush | sendFUA | sendTrim | sendWriteZeroes | sendMultiConn | sendRotational
		if want := (protocol.NegotiationReplyInfo{Type: infoExport, Size: testSize, TransmissionFlags: flags}); export != want {
			t.Errorf("EXPORT is %+v, want %+v", export, want)
		}
		if want := (protocol.NegotiationReplyBlockSize{Type: infoBlockSize, MinimumBlockSize: 512, PreferredBlockSize: 4096,
			MaximumBlockSize: testMax}); size != want {
			t.Errorf("BLOCK_SIZE is %+v, want %+v", size, want)
		}
		if name := string(all[infoName][2:]); name != "vol0" {
			t.Errorf("NAME is %q", name)
		}
		if text := string(all[infoDescription][2:]); text != "dst remote vol0" {
			t.Errorf("DESCRIPTION is %q", text)
		}
	}
	p.inStep()
}

// TestInfoChanges: each question gets the device as it is then.
func TestInfoChanges(t *testing.T) {
	m := newMemory(t, 4, testMax)
	_, path := serve(t, m)
	p := dial(t, path).hello(bothFlags)
	for _, size := range []uint64{testSize, testSize / 2} {
		m.mu.Lock()
		m.info.Size = size
		m.mu.Unlock()
		p.option(optInfo, choice(""))
		if got := binary.BigEndian.Uint64(p.told(optInfo)[infoExport][2:]); got != size {
			t.Errorf("size %d, want %d", got, size)
		}
	}
	p.option(optGo, choice(""))
	p.told(optGo)
	p.request(0, cmdRead, 1, testSize/2, 512)
	p.expect(1, wireEINVAL)
}

func TestList(t *testing.T) {
	_, path := serve(t, newMemory(t, 4, testMax))
	p := dial(t, path).hello(bothFlags)
	p.option(optList, nil)
	if kind, data := p.reply(optList); kind != repServer || !bytes.Equal(data, []byte("\x00\x00\x00\x04vol0")) {
		t.Errorf("LIST told %#x %q", kind, data)
	}
	if kind, data := p.reply(optList); kind != repAck || len(data) != 0 {
		t.Errorf("LIST ended with %#x %q", kind, data)
	}
	p.option(optAbort, nil)
	if kind, _ := p.reply(optAbort); kind != repAck {
		t.Errorf("ABORT got %#x", kind)
	}
	p.gone()
}

func TestExportName(t *testing.T) {
	_, path := serve(t, newMemory(t, 4, testMax))
	for _, tt := range []struct {
		name  string
		flags uint32
		size  int // of the answer; 0: closed
	}{
		{"vol0", bothFlags, 10},
		{"", bothFlags, 10},
		{"vol0", uint32(flagFixedNewstyle), 10 + zeroesSize},
		{"vol0", 0, 10 + zeroesSize}, // newstyle that is not fixed
		{"vol1", bothFlags, 0},
		{"vol0\x00", bothFlags, 0},
		{strings.Repeat("x", nameMax), bothFlags, 0},
	} {
		p := dial(t, path).hello(tt.flags)
		p.option(optExportName, []byte(tt.name))
		if tt.size == 0 {
			p.gone()
			continue
		}
		b := make([]byte, tt.size)
		p.get(b)
		if size := binary.BigEndian.Uint64(b); size != testSize {
			t.Errorf("%q: size %d", tt.name, size)
		}
		if !bytes.Equal(b[10:], make([]byte, tt.size-10)) {
			t.Errorf("%q: reserved bytes are not zero", tt.name)
		}
		p.inStep()
	}
}

// TestOptionsAnswered sends one option each and then proves that the next is
// still understood.
func TestOptionsAnswered(t *testing.T) {
	_, path := serve(t, newMemory(t, 4, testMax))
	name := func(n uint32, rest string) []byte { return append(binary.BigEndian.AppendUint32(nil, n), rest...) }
	for _, tt := range []struct {
		what string
		opt  uint32
		data []byte
		want uint32
	}{
		{"PEEK_EXPORT", 4, nil, repErrUnsup},
		{"STARTTLS", 5, nil, repErrUnsup},
		{"STARTTLS with data", 5, []byte("x"), repErrUnsup},
		{"STRUCTURED_REPLY", 8, nil, repErrUnsup},
		{"LIST_META_CONTEXT", 9, name(4, "vol0\x00\x00\x00\x00"), repErrUnsup},
		{"SET_META_CONTEXT", 10, name(4, "vol0\x00\x00\x00\x00"), repErrUnsup},
		{"EXTENDED_HEADERS", 11, nil, repErrUnsup},
		{"option 0", 0, nil, repErrUnsup},
		{"the last option there can be", 1<<32 - 1, make([]byte, optionMax), repErrUnsup},
		{"an option with much data", 99, make([]byte, optionMax+1), repErrTooBig},
		{"an option with the most data", 99, make([]byte, optionDrain), repErrTooBig},
		{"LIST with data", optList, []byte("x"), repErrInvalid},
		{"GO without data", optGo, nil, repErrInvalid},
		{"GO with 3 bytes", optGo, make([]byte, 3), repErrInvalid},
		{"GO without a count", optGo, name(0, ""), repErrInvalid},
		{"GO with half a count", optGo, name(0, "\x00"), repErrInvalid},
		{"GO with a name longer than its data", optGo, name(5, "vol0\x00\x00"), repErrInvalid},
		{"GO with a name that leaves no count", optGo, name(6, "vol0\x00\x00"), repErrInvalid},
		{"GO with a name of 2^32-1", optGo, name(1<<32-1, "vol0\x00\x00"), repErrInvalid},
		{"GO with a name of 2^31", optGo, name(1<<31, "vol0\x00\x00"), repErrInvalid},
		{"GO with too long a name", optGo, choice(strings.Repeat("x", nameMax+1)), repErrInvalid},
		{"GO with more requests than data", optGo, name(0, "\x00\x02\x00\x00"), repErrInvalid},
		{"GO with fewer requests than data", optGo, name(0, "\x00\x00\x00\x00"), repErrInvalid},
		{"GO with 65535 requests", optGo, choice("", make([]uint16, 65535)...), repErrTooBig},
		{"GO elsewhere", optGo, choice("vol1"), repErrUnknown},
		{"INFO elsewhere", optInfo, choice("VOL0"), repErrUnknown},
		{"INFO of a very long name", optInfo, choice(strings.Repeat("x", nameMax)), repErrUnknown},
	} {
		p := dial(t, path).hello(bothFlags)
		p.option(tt.opt, tt.data)
		if kind, text := p.reply(tt.opt); kind != tt.want || len(text) == 0 {
			t.Errorf("%s: %#x %q, want %#x and a text", tt.what, kind, text, tt.want)
		}
		p.option(optGo, choice(""))
		p.told(optGo)
		p.inStep()
	}
}

// TestHandshakeClosed: what can not be answered ends the connection.
func TestHandshakeClosed(t *testing.T) {
	s, path := serve(t, newMemory(t, 4, testMax))
	option := func(magic uint64, id, n uint32) any {
		return protocol.NegotiationOptionHeader{OptionMagic: magic, ID: id, Length: n}
	}
	const magic = protocol.NEGOTIATION_MAGIC_OPTION
	for _, tt := range []struct {
		what  string
		flags uint32
		sent  any
	}{
		{"an unknown flag", 1 << 2, nil},
		{"all flags", 1<<32 - 1, nil},
		{"a wrong magic", bothFlags, option(magic+1, optGo, 0)},
		{"a reply's magic", bothFlags, option(protocol.NEGOTIATION_MAGIC_REPLY, optGo, 0)},
		{"an option without the flag for it", uint32(flagNoZeroes), option(magic, optList, 0)},
		{"too much data", bothFlags, option(magic, 99, optionDrain+1)},
		{"2^31 bytes of data", bothFlags, option(magic, optGo, 1<<31)},
		{"2^32-1 bytes of data", bothFlags, option(magic, optList, 1<<32-1)},
		{"too long a name", bothFlags, option(magic, optExportName, nameMax+1)},
		{"no option but a request", bothFlags, protocol.TransmissionRequestHeader{RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST}},
	} {
		p := dial(t, path).hello(tt.flags)
		if tt.sent != nil {
			p.put(tt.sent)
		}
		t.Log(tt.what)
		p.gone()
	}
	// Those who leave in the middle leave nothing behind.
	for cut := range 60 {
		whole := binary.BigEndian.AppendUint32(nil, bothFlags)
		whole = binary.BigEndian.AppendUint64(whole, magic)
		whole = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(whole, optInfo), 100)
		p := dial(t, path)
		p.put(append(whole, make([]byte, 60)...)[:cut])
		p.Close()
	}
	until(t, "all clients are gone", func() bool { return s.Clients() == 0 })
}

func TestOptionFlood(t *testing.T) {
	_, path := serve(t, newMemory(t, 4, testMax))
	p := dial(t, path).hello(bothFlags)
	for range optionsMax {
		p.option(optList, []byte("x"))
		p.reply(optList)
	}
	p.gone()
}

// TestHandshakeDeadline: whoever is not through in time is closed, however
// busy it keeps the server, and may then take its time.
func TestHandshakeDeadline(t *testing.T) {
	silent := func(p *peer) { _, _ = io.Copy(io.Discard, p) }
	slow := func(p *peer) {
		go func() { _, _ = io.Copy(io.Discard, p) }()
		for b := binary.BigEndian.AppendUint32(nil, bothFlags); ; b = []byte("I") {
			if _, err := p.Write(b); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	deaf := func(p *peer) {
		p.hello(bothFlags)
		p.option(optList, nil)
		time.Sleep(2 * handshakeTime)
		p.gone()
	}
	for name, f := range map[string]func(*peer){"silent": silent, "slow": slow, "deaf": deaf} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t, 4, testMax)
				s := newServer(m.device("vol0"), patience)
				defer s.Close()
				here, there := net.Pipe()
				s.admit(there)
				p := &peer{here, t}
				start := time.Now()
				f(p)
				synctest.Wait()
				if n := s.Clients(); n != 0 {
					t.Errorf("%d clients after %v", n, time.Since(start))
				}
				if name != "deaf" && time.Since(start) > handshakeTime+time.Second {
					t.Errorf("it took %v", time.Since(start))
				}
			})
		})
	}
	t.Run("through", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(t, 4, testMax)
			s := newServer(m.device("vol0"), patience)
			defer s.Close()
			here, there := net.Pipe()
			s.admit(there)
			p := (&peer{here, t}).enter()
			time.Sleep(10 * handshakeTime)
			p.inStep()
			here.Close()
		})
	})
}

func TestListenErrors(t *testing.T) {
	m := newMemory(t, 4, testMax)
	for _, path := range []string{"", "relative", "/" + strings.Repeat("x", 107)} {
		if s, err := Listen(path, m.device("vol0")); err == nil {
			s.Close()
			t.Errorf("%q was listened on", path)
		} else if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: %v", path, err)
		}
	}
	_, path := serve(t, m)
	if s, err := Listen(path, m.device("vol0")); err == nil {
		s.Close()
		t.Error("the socket was taken from its owner")
	}
}
