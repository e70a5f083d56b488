package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/trans"
)

// pair is a connection of Unix sockets: the server's end and the client's.
func pair(t testing.TB) (*conn.Sock, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := conn.NewSock(fds[0], abi.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "client")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return sock, c.(*net.UnixConn)
}

// hear lets a client say said, and nothing else, to a fresh server, and
// returns what the server answered until it closed. newMemory checks that
// everything has come back.
func hear(t *testing.T, said []byte) []byte {
	m := newMemory(t, 4, testMax)
	s := newServer(m.device("vol0"), patience)
	defer s.Close()
	there, here := pair(t)
	defer here.Close()
	s.admit(there)
	p := newPeer(t, here)
	go func() {
		_, _ = p.Write(said) // the server may have closed
		_ = here.CloseWrite()
	}()
	heard, err := io.ReadAll(p)
	if err != nil && isTimeout(err) {
		t.Fatal("the server neither answered nor closed")
	}
	return heard
}

func wire(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		_ = binary.Write(&b, binary.BigEndian, v)
	}
	return b.Bytes()
}

func optionHead(id, n uint32) any {
	return protocol.NegotiationOptionHeader{OptionMagic: protocol.NEGOTIATION_MAGIC_OPTION, ID: id, Length: n}
}

// entered is the client's half of a handshake, enteredSize what the server
// says in it.
var entered = wire(bothFlags, optionHead(optGo, 6), choice(""))

const enteredSize = 18 + 20 + 12 + 20 + 14 + 20

// FuzzHandshake: whatever a client says first, it hears whole replies to what
// it asked, and as many final ones as it asked options, or less and the end.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte{})
	f.Add(entered)
	f.Add(wire(bothFlags, optionHead(optList, 0), optionHead(optAbort, 0)))
	f.Add(wire(bothFlags, optionHead(optExportName, 4), []byte("vol0")))
	f.Add(wire(bothFlags, optionHead(optInfo, 14), choice("vol0", infoName, infoDescription), optionHead(optGo, 6), choice("")))
	f.Add(wire(bothFlags, optionHead(99, optionMax+1), make([]byte, optionMax+1), optionHead(5, 1), []byte("x")))
	f.Add(wire(bothFlags, optionHead(optGo, 10), uint32(1<<31), make([]byte, 6)))
	f.Fuzz(func(t *testing.T, said []byte) {
		heard := hear(t, said)
		if len(heard) < 18 {
			t.Fatalf("greeted with %d bytes", len(heard))
		}
		replies := heard[18:]
		final := 0
		for len(replies) >= 20 && binary.BigEndian.Uint64(replies) == protocol.NEGOTIATION_MAGIC_REPLY {
			kind, n := binary.BigEndian.Uint32(replies[12:]), binary.BigEndian.Uint32(replies[16:])
			if uint64(n) > uint64(len(replies)-20) {
				t.Fatalf("a reply of %d bytes is cut", n)
			}
			if kind != repInfo && kind != repServer {
				final++
			}
			replies = replies[20+n:]
		}
		if final > max(0, len(said)-4)/optionSize || final > optionsMax {
			t.Fatalf("%d options answered in %d bytes", final, len(said))
		}
	})
}

// FuzzTransmission: whatever a client sends, each request is answered once and
// rightly, up to the first that can not be followed.
func FuzzTransmission(f *testing.F) {
	request := func(flags, cmd uint16, cookie, offset uint64, n uint32, payload int) []byte {
		var b bytes.Buffer
		_ = putRequest(&b, flags, cmd, cookie, offset, n)
		return append(b.Bytes(), make([]byte, payload)...)
	}
	f.Add(request(0, cmdRead, 1, 0, 512, 0))
	f.Add(request(cmdFlagFUA, cmdWrite, 1, 512, 1024, 1024))
	f.Add(append(request(0, cmdWrite, 1, 513, 1024, 1024), request(0, cmdDisc, 2, 0, 0, 0)...))
	f.Add(append(request(0, cmdTrim, 1, 0, testSize, 0), request(cmdFlagNoHole, cmdWriteZeroes, 2, 0, 1<<31, 0)...))
	f.Add(append(request(0, cmdFlush, 1, 0, 0, 0), request(1<<4, 7, 2, 0, 1<<32-1, 0)...))
	f.Add(append(request(0, cmdRead, 1, 512, 4096, 0), request(0, cmdRead, 2, testSize, 512, 0)...))
	f.Add(request(0, cmdWrite, 1, 0, drainMax+1, 10))
	f.Fuzz(func(t *testing.T, said []byte) {
		heard := hear(t, append(bytes.Clone(entered), said...))
		if len(heard) < enteredSize {
			t.Fatalf("entered with %d bytes, want %d", len(heard), enteredSize)
		}
		want, whole, ok := foresee(said)
		if !ok {
			return
		}
		for answers := heard[enteredSize:]; len(answers) > 0; {
			var h protocol.TransmissionReplyHeader
			if err := binary.Read(bytes.NewReader(answers), binary.BigEndian, &h); err != nil {
				if whole {
					t.Fatal("an answer is cut")
				}
				return
			}
			w, asked := want[h.Handle]
			if h.ReplyMagic != protocol.TRANSMISSION_MAGIC_REPLY || !asked || h.Error != w.err {
				t.Fatalf("answered %+v, want %+v (asked: %v)", h, w, asked)
			}
			delete(want, h.Handle)
			if answers = answers[replySize:]; len(answers) < w.data {
				if whole {
					t.Fatal("data is cut")
				}
				return
			}
			answers = answers[w.data:]
		}
		if whole && len(want) > 0 {
			t.Fatalf("not answered: %v", want)
		}
	})
}

// foreseen is the answer that a request must get.
type foreseen struct {
	err  uint32
	data int
}

// foresee walks what a client said: the answers by cookie, and whether all of
// them must come, which is so if the client ended where a request does. ok is
// false if cookies repeat.
func foresee(said []byte) (want map[uint64]foreseen, whole, ok bool) {
	d := Info{Size: testSize, BlockMin: 512, MaxSize: testMax, Features: abi.FeatureDiscard | abi.FeatureWriteZeroes}
	want = map[uint64]foreseen{}
	for len(said) > 0 {
		var r request
		if len(said) < requestSize || !r.parse(said) {
			return want, false, true
		}
		said = said[requestSize:]
		if r.cmd == cmdDisc {
			return want, true, true
		}
		if uint64(r.payload()) > uint64(len(said)) {
			return want, false, true
		}
		said = said[r.payload():]
		op, _, errno := r.check(&d)
		w := foreseen{err: wireError(errno)}
		if errno == 0 && op == trans.Read {
			w.data = int(r.length)
		}
		if _, twice := want[r.cookie]; twice {
			return nil, false, false
		}
		want[r.cookie] = w
	}
	return want, true, true
}
