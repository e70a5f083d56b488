package nbd

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/trans"
)

// TestManyInFlight sends random requests, pipelined, over two connections, and
// holds every answer against a copy of the device.
func TestManyInFlight(t *testing.T) {
	for name, inline := range map[string]bool{"later": false, "inline": true} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, 16, 4*testMax)
			m.inline = inline
			_, path := serve(t, m)
			ended := make(chan bool)
			for half := range 2 {
				p := dial(t, path).enter()
				go func() {
					defer func() { ended <- true }()
					exercise(p, uint64(half)*testSize/2)
				}()
			}
			<-ended
			<-ended
		})
	}
}

// exercise works on the half of the device that begins at base: rounds of
// requests to places that do not overlap, answered in any order.
func exercise(p *peer, base uint64) {
	model := make([]byte, testSize/2)
	random := rand.NewChaCha8([32]byte{byte(base >> 16)})
	for round := range 60 {
		want := map[uint64][]byte{} // by cookie; nil: no data
		var sent bytes.Buffer
		const places = 24
		for i := range uint64(places) {
			at := i * (testSize / 2 / places) &^ 511
			n := uint32(1+rand.IntN(40)) * 512
			cookie := uint64(round)<<32 | i
			part := model[at : at+uint64(n)]
			switch rand.IntN(5) {
			case 0, 1:
				_ = putRequest(&sent, 0, cmdRead, cookie, base+at, n)
				want[cookie] = bytes.Clone(part)
			case 2:
				_ = putRequest(&sent, cmdFlagFUA, cmdWrite, cookie, base+at, n)
				_, _ = random.Read(part)
				sent.Write(part)
				want[cookie] = nil
			case 3:
				_ = putRequest(&sent, 0, cmdWriteZeroes, cookie, base+at, n)
				clear(part)
				want[cookie] = nil
			case 4:
				_ = putRequest(&sent, 0, cmdFlush, cookie, 0, 0)
				want[cookie] = nil
			}
		}
		go func() { _, _ = p.Write(sent.Bytes()) }()
		for len(want) > 0 {
			cookie, errno := p.answer()
			data, ok := want[cookie]
			if !ok || errno != 0 {
				p.t.Errorf("answer %d to request %#x, asked: %v", errno, cookie, ok)
				return
			}
			delete(want, cookie)
			got := make([]byte, len(data))
			if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, data) {
				p.t.Errorf("request %#x read other bytes than were written (%v)", cookie, err)
				return
			}
		}
	}
}

// TestOpsReachTheDevice: each request arrives as what it is, once.
func TestOpsReachTheDevice(t *testing.T) {
	m := newMemory(t, 4, testMax)
	m.logged = true
	_, path := serve(t, m)
	p := dial(t, path).enter()
	data := make([]byte, 1024)
	for i, tt := range []struct {
		flags, cmd uint16
		want       asked
	}{
		{0, cmdRead, asked{trans.Read, 0, 512, 1024}},
		{0, cmdWrite, asked{trans.Write, 0, 1024, 1024}},
		{cmdFlagFUA, cmdWrite, asked{trans.Write, abi.FlagFUA, 1024, 1024}},
		{0, cmdFlush, asked{trans.Flush, 0, 0, 0}},
		{0, cmdTrim, asked{trans.Discard, 0, 0, testSize}},
		{cmdFlagFUA, cmdTrim, asked{trans.Discard, abi.FlagFUA, 512, 512}},
		{0, cmdWriteZeroes, asked{trans.Zero, 0, 0, testSize}},
		{cmdFlagFUA | cmdFlagNoHole, cmdWriteZeroes, asked{trans.Zero, abi.FlagFUA | abi.FlagNoHole, 512, 512}},
	} {
		p.request(tt.flags, tt.cmd, uint64(i), tt.want.offset, tt.want.length)
		if tt.cmd == cmdWrite {
			p.put(data)
		}
		p.expect(uint64(i), 0)
		if tt.cmd == cmdRead {
			p.get(data)
		}
		m.mu.Lock()
		if !slices.Equal(m.log, []asked{tt.want}) {
			t.Errorf("the device was asked %+v, want %+v", m.log, tt.want)
		}
		m.log = nil
		m.mu.Unlock()
	}
}

// TestErrorsOfTheDevice: a READ that fails has no data behind its answer.
func TestErrorsOfTheDevice(t *testing.T) {
	m := newMemory(t, 4, testMax)
	m.fail[4096], m.fail[8192], m.fail[12288] = unix.EIO, unix.ENOSPC, unix.EBADMSG
	_, path := serve(t, m)
	p := dial(t, path).enter()
	for offset, want := range map[uint64]uint32{4096: wireEIO, 8192: wireENOSPC, 12288: wireEIO} {
		p.request(0, cmdRead, offset, offset, 4096)
		p.expect(offset, want)
		p.request(0, cmdWrite, offset, offset, 4096)
		p.put(make([]byte, 4096))
		p.expect(offset, want)
		p.inStep()
	}
}

// TestInvalidRequestsStayInStep: what is refused never reaches the device, and
// the next request is understood.
func TestInvalidRequestsStayInStep(t *testing.T) {
	m := newMemory(t, 4, testMax)
	m.logged = true
	s, path := serve(t, m)
	p := dial(t, path).enter()
	for _, tt := range []struct {
		what       string
		flags, cmd uint16
		offset     uint64
		length     uint32
		err        uint32
	}{
		{"unknown command", 0, 5, 0, 512, wireEINVAL},
		{"unknown flag", 1 << 9, cmdRead, 0, 512, wireEINVAL},
		{"FAST_ZERO", 1 << 4, cmdWriteZeroes, 0, 512, wireEINVAL},
		{"unaligned READ", 0, cmdRead, 7, 512, wireEINVAL},
		{"oversized READ", 0, cmdRead, 0, testMax + 512, wireEINVAL},
		{"READ of 2^32-1", 0, cmdRead, 0, 1<<32 - 1, wireEINVAL},
		{"WRITE of nothing", 0, cmdWrite, 0, 0, wireEINVAL},
		{"unaligned WRITE", 0, cmdWrite, 0, 513, wireEINVAL},
		{"WRITE one larger than the largest", 0, cmdWrite, 0, testMax + 512, wireEINVAL},
		{"WRITE larger than the receive buffer", 0, cmdWrite, 0, 3 * bufferSize, wireEINVAL},
		{"WRITE past the end", 0, cmdWrite, testSize, 4096, wireENOSPC},
		{"WRITE across the end", 0, cmdWrite, testSize - 512, 1024, wireENOSPC},
		{"WRITE with an unknown flag", 1 << 1, cmdWrite, 0, 4096, wireEINVAL},
		{"TRIM past the end", 0, cmdTrim, testSize, 512, wireEINVAL},
		{"FLUSH with a length", 0, cmdFlush, 0, 512, wireEINVAL},
	} {
		p.request(tt.flags, tt.cmd, 42, tt.offset, tt.length)
		if tt.cmd == cmdWrite {
			p.put(make([]byte, tt.length))
		}
		t.Log(tt.what)
		p.expect(42, tt.err)
		p.inStep()
	}
	m.mu.Lock()
	for _, a := range m.log {
		if a != (asked{trans.Read, 0, 512, 512}) {
			t.Errorf("the device was asked %+v", a)
		}
	}
	m.info.ReadOnly = true
	m.mu.Unlock()
	for _, cmd := range []uint16{cmdWrite, cmdTrim, cmdWriteZeroes} {
		p.request(0, cmd, 43, 0, 512)
		if cmd == cmdWrite {
			p.put(make([]byte, 512))
		}
		p.expect(43, wireEPERM)
		p.inStep()
	}
	for name, f := range map[string]func(*peer){
		"a WRITE too large to skip": func(p *peer) { p.request(0, cmdWrite, 1, 0, drainMax+1) },
		"a WRITE of 2^32-1":         func(p *peer) { p.request(0, cmdWrite, 1, 0, 1<<32-1) },
		"no request":                func(p *peer) { p.put(make([]byte, requestSize)) },
		"an answer": func(p *peer) {
			p.put(protocol.TransmissionReplyHeader{ReplyMagic: protocol.TRANSMISSION_MAGIC_REPLY})
			p.put(make([]byte, requestSize))
		},
	} {
		t.Log(name)
		p := dial(t, path).enter()
		f(p)
		p.gone()
	}
	p.Close()
	until(t, "all clients are gone", func() bool { return s.Clients() == 0 })
}

// TestEndsAnswerWhatIsInFlight: after DISC, and after a half-close, what was
// asked before is answered, and then the server closes.
func TestEndsAnswerWhatIsInFlight(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"DISC":       func(p *peer) { p.request(0, cmdDisc, 0, 0, 0) },
		"half-close": func(p *peer) { _ = p.Conn.(*net.UnixConn).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, 8, 4*testMax)
			m.hold(true)
			s, path := serve(t, m)
			p := dial(t, path).enter()
			for i := range uint64(3) {
				p.request(0, cmdRead, i, 0, 4096)
			}
			end(p)
			until(t, "the requests are there", func() bool { return m.submitted() == 3 })
			m.hold(false)
			seen := 0
			for range 3 {
				cookie, errno := p.answer()
				seen |= 1 << cookie
				if errno != 0 {
					t.Error(errno)
				}
				p.get(make([]byte, 4096))
			}
			if seen != 7 {
				t.Errorf("answered %b", seen)
			}
			p.gone()
			until(t, "the client is gone", func() bool { return s.Clients() == 0 })
		})
	}
}

// TestDisconnectInFlight: what a client leaves behind comes back later; other
// clients do not notice.
func TestDisconnectInFlight(t *testing.T) {
	m := newMemory(t, 16, 4*testMax)
	s, path := serve(t, m)
	other := dial(t, path).enter()
	other.inStep()
	m.hold(true)
	p := dial(t, path).enter()
	for i := range uint64(4) {
		p.request(0, cmdRead, i, 0, 4096)
		p.request(0, cmdWrite, i, 0, 4096)
		p.put(make([]byte, 4096))
	}
	p.request(0, cmdWrite, 9, 0, 4096)
	p.put(make([]byte, 4000)) // and leaves in the middle of a payload
	until(t, "the requests are there", func() bool { return m.submitted() == 8 })
	p.Close()
	other.request(0, cmdRead, 1, 0, 512)
	until(t, "the other's request is there", func() bool { return m.submitted() == 9 })
	m.hold(false)
	other.expect(1, 0)
	other.get(make([]byte, 512))
	other.inStep()
	until(t, "the client is gone", func() bool { return s.Clients() == 1 })
}

// TestBackPressure: a client may ask for more than the reserve has.
func TestBackPressure(t *testing.T) {
	m := newMemory(t, 4, testMax)
	_, path := serve(t, m)
	p := dial(t, path).enter()
	const n = 200
	go func() {
		for i := range uint64(n) {
			_ = putRequest(p, 0, cmdRead, i, 0, testMax)
		}
	}()
	seen := map[uint64]bool{}
	for range n {
		cookie, errno := p.answer()
		p.get(make([]byte, testMax))
		if seen[cookie] || errno != 0 {
			t.Fatalf("answer %d to %d, seen: %v", errno, cookie, seen[cookie])
		}
		seen[cookie] = true
	}
}

// TestStalledClient: a client that takes no answers stops no other as long as
// the reserve lasts, and the device never.
func TestStalledClient(t *testing.T) {
	m := newMemory(t, 64, 63*testMax)
	_, path := serve(t, m)
	p := dial(t, path).enter()
	for i := range uint64(48) { // 3 MiB: more than socket buffers hold
		p.request(0, cmdRead, i, 0, testMax)
	}
	other := dial(t, path).enter()
	for range 100 {
		other.inStep()
	}
	for range 48 {
		if _, errno := p.answer(); errno != 0 {
			t.Error(errno)
		}
		p.get(make([]byte, testMax))
	}
}

// watched looks at the clients of s as watch does, as often as patience takes,
// and returns whom it would close. All clients seem to be of different
// processes.
func watched(s *Server) (closed []*client) {
	s.mu.Lock()
	for c := range s.clients {
		c.pid = 0
	}
	s.mu.Unlock()
	for range ticks + 1 {
		closed = append(closed, s.idlers()...)
	}
	return closed
}

// waiting is the number of clients that wait for the reserve.
func waiting(s *Server) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		n += int(c.waits.Load() & 1)
	}
	return n
}

// still is held that stays: nothing has left for many looks in a row. One look
// may fall between two answers that the socket still has room for.
func still(s *Server, held func() bool) func() bool {
	looks, left := 0, uint64(0)
	return func() bool {
		now := uint64(0)
		s.mu.Lock()
		for c := range s.clients {
			now += c.out.Progress()
		}
		s.mu.Unlock()
		if looks++; now != left || !held() {
			looks, left = 0, now
		}
		return looks > 50
	}
}

var hogs = map[string]func(p *peer){
	"answers not taken": func(p *peer) {
		for i := range uint64(200) {
			p.request(0, cmdRead, i, 0, testMax)
		}
	},
	"payload not sent": func(p *peer) {
		p.request(0, cmdWrite, 1, 0, testMax)
		p.put(make([]byte, 100))
	},
}

// TestIdlers: who holds the whole reserve and does not move is to be closed
// once somebody else waits for it, and not before.
func TestIdlers(t *testing.T) {
	for name, hog := range hogs {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, 4, testMax)
			s, err := listen(t.TempDir()+"/s", m.device("vol0"), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			path := s.listener.Addr().Path()
			hog(dial(t, path).enter())
			until(t, "the memory is held", still(s, func() bool { return m.arena.InUse() == testMax && m.submitted() == 0 }))
			if n := len(watched(s)); n != 0 {
				t.Fatal("a client alone was closed for being slow")
			}
			before := waiting(s)
			other := dial(t, path).enter()
			other.request(0, cmdRead, 1, 0, 512)
			until(t, "the other waits", func() bool { return waiting(s) == before+1 })
			idle := watched(s)
			if len(idle) != 1 {
				t.Fatalf("%d clients are to be closed, want 1", len(idle))
			}
			idle[0].close(unix.ETIMEDOUT)
			other.expect(1, 0)
			other.get(make([]byte, 512))
			if n := len(watched(s)); n != 0 {
				t.Errorf("%d clients are to be closed, want none", n)
			}
		})
	}
}

// TestWatchCloses: the same, by the clock.
func TestWatchCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, 4, testMax)
		s := newServer(m.device("vol0"), patience)
		defer s.Close()
		here, there := net.Pipe()
		s.admit(there)
		p := (&peer{here, t}).enter()
		p.request(0, cmdWrite, 1, 0, testMax)
		time.Sleep(100 * patience)
		if s.Clients() != 1 {
			t.Error("a client alone was closed for being slow")
		}
		here2, there2 := net.Pipe()
		s.admit(there2)
		start := time.Now()
		(&peer{here2, t}).enter().inStep()
		if d := time.Since(start); d < patience-time.Second || d > patience+time.Second {
			t.Errorf("the second client waited %v, want %v", d, patience)
		}
		p.gone()
		here2.Close()
	})
}

// TestIdlersOfOneProcess: a stopped process does not lose its connections
// because it starves itself.
func TestIdlersOfOneProcess(t *testing.T) {
	starving := &client{pid: 7}
	for pid, harm := range map[int32]bool{7: false, 8: true, 0: true} {
		if (&client{pid: pid}).starves(starving) != harm {
			t.Errorf("pid %d starves 7: want %v", pid, harm)
		}
	}
	if !(&client{}).starves(&client{}) {
		t.Error("unknown processes are not the same one")
	}
}

// TestSlowDeviceIsNobodysFault: while the device answers nothing, a client in
// the middle of a payload is not to be closed although others wait.
func TestSlowDeviceIsNobodysFault(t *testing.T) {
	m := newMemory(t, 16, 16*testMax)
	m.hold(true)
	s, path := serve(t, m)
	idle := dial(t, path).enter()
	idle.request(0, cmdWrite, 1, 0, 4096)
	until(t, "one is away", func() bool { return m.reserve.InUse() == 1 })
	busy := dial(t, path).enter()
	for i := range uint64(16) {
		busy.request(0, cmdRead, i, 0, 4096)
	}
	until(t, "the device has the others", func() bool { return m.submitted() == 15 && waiting(s) == 1 })
	if n := len(watched(s)); n != 0 {
		t.Errorf("%d clients are to be closed, want none", n)
	}
	m.hold(false)
	idle.put(make([]byte, 4096))
	idle.expect(1, 0)
	idle.inStep()
}

func TestTooManyClients(t *testing.T) {
	s, path := serve(t, newMemory(t, 4, testMax))
	var all []*peer
	for range clientsMax {
		all = append(all, dial(t, path).enter())
	}
	dial(t, path).gone()
	all[0].inStep()
	all[1].Close()
	until(t, "there is room", func() bool { return s.Clients() < clientsMax })
	dial(t, path).enter().inStep()
}

// TestServerClose: all clients are closed, in whatever they are, and Close
// waits for what the device has.
func TestServerClose(t *testing.T) {
	m := newMemory(t, 4, testMax)
	s, path := serve(t, m)
	peers := []*peer{dial(t, path), dial(t, path).hello(bothFlags), dial(t, path).enter(), dial(t, path).enter(), dial(t, path).enter()}
	m.hold(true)
	for i := range uint64(4) { // one more waits for the reserve
		peers[2].request(0, cmdRead, i, 0, testMax/4)
	}
	until(t, "the requests are there", func() bool { return m.submitted() == 4 })
	peers[3].request(0, cmdRead, 1, 0, 512)
	peers[4].request(0, cmdWrite, 1, 0, 512)
	closed := make(chan bool)
	go func() {
		s.Close()
		close(closed)
	}()
	for i, p := range peers {
		if i == 0 { // its greeting may still come
			_, _ = io.CopyN(io.Discard, p, 18)
		}
		p.gone()
	}
	select {
	case <-closed:
		t.Error("Close did not wait for the device")
	default:
	}
	m.hold(false)
	<-closed
	s.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		t.Error("a closed server was reached")
	}
}

// TestSocketIsPrivate: who may connect may write the device.
func TestSocketIsPrivate(t *testing.T) {
	_, path := serve(t, newMemory(t, 4, testMax))
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}
