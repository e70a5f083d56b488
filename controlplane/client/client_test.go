package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// ownNetNS gives the test's thread, for the rest of its life, a network
// namespace of its own.
func ownNetNS(t *testing.T) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root for a network namespace of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// request is what a daemon of these tests was asked.
type request struct {
	typ   uint16
	cmd   uint8
	seq   uint32
	port  uint32
	attrs []byte
}

// message is a message that answers r.
func (r request) message(typ, flags uint16, seq uint32, body ...byte) []byte {
	b := native.AppendUint32(nil, uint32(16+len(body)))
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, r.port)
	return append(append(b, body...), make([]byte, -len(body)&3)...)
}

// answer is a generic-netlink answer to r that holds m.
func (r request) answer(m abi.Message) []byte {
	attrs, err := abi.Marshal(m)
	if err != nil {
		panic(err)
	}
	return r.message(r.typ, 0, r.seq, append([]byte{r.cmd, 1, 0, 0}, attrs...)...)
}

func (r request) ack(errno unix.Errno) []byte {
	body := native.AppendUint32(nil, uint32(-int32(errno)))
	return r.message(unix.NLMSG_ERROR, unix.NLM_F_CAPPED, r.seq, append(body, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)...)
}

// family answers GETFAMILY.
func (r request) family(version uint32) []byte {
	ae := netlink.NewAttributeEncoder()
	ae.Uint16(unix.CTRL_ATTR_FAMILY_ID, abi.FamilyID)
	ae.String(unix.CTRL_ATTR_FAMILY_NAME, abi.FamilyName)
	ae.Uint32(unix.CTRL_ATTR_VERSION, version)
	b, err := ae.Encode()
	if err != nil {
		panic(err)
	}
	return r.message(r.typ, 0, r.seq, append([]byte{unix.CTRL_CMD_NEWFAMILY, 2, 0, 0}, b...)...)
}

// daemon is one that says what a test wants it to say.
type daemon struct {
	fd     int
	answer func(r request) [][]byte // nil for GETFAMILY means: as it should be
	end    func()                   // of it, and of its socket; idempotent
}

// listen makes a daemon in the network namespace of the calling thread.
func listen(t *testing.T, answer func(request) [][]byte) *daemon {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: abi.Port})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000})
	}
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{fd: fd, answer: answer}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); d.serve(stop) }()
	d.end = sync.OnceFunc(func() {
		close(stop)
		<-ended
		_ = unix.Close(fd)
	})
	t.Cleanup(d.end)
	return d
}

func (d *daemon) serve(stop chan struct{}) {
	buf := make([]byte, 1<<16)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(d.fd, buf, 0)
		if err != nil || n < 20 {
			continue
		}
		r := request{native.Uint16(buf[4:]), buf[16], native.Uint32(buf[8:]), from.(*unix.SockaddrNetlink).Pid, slices.Clone(buf[20:n])}
		answers := d.answer(r)
		if answers == nil && r.typ == unix.GENL_ID_CTRL {
			answers = [][]byte{r.family(1)}
		}
		for _, b := range answers {
			d.send(r.port, b)
		}
	}
}

func (d *daemon) send(port uint32, b []byte) {
	_ = unix.Sendto(d.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port})
}

func dial(t *testing.T, timeout time.Duration) *Client {
	t.Helper()
	c, err := Dial(Options{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestNoDaemon(t *testing.T) {
	ownNetNS(t)
	_, err := Dial(Options{})
	if !errors.Is(err, ErrNoDaemon) || !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "no dstd answers in this network namespace: start dstd") {
		t.Errorf("got %v", err)
	}
}

// TestSilence: a daemon that does not answer, and a program that holds its port.
func TestSilence(t *testing.T) {
	ownNetNS(t)
	listen(t, func(request) [][]byte { return [][]byte{} })
	if _, err := Dial(Options{Timeout: 30 * time.Millisecond}); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want ETIMEDOUT", err)
	}
}

// TestFullQueue: a daemon that has not read for so long that nothing more can
// be sent to it is a daemon that does not answer.
func TestFullQueue(t *testing.T) {
	err := refusal(&netlink.OpError{Op: "send", Err: os.NewSyscallError("sendto", unix.EAGAIN)}, nil)
	if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want ETIMEDOUT", err)
	}
	said := refusal(&netlink.OpError{Op: "receive", Err: unix.EAGAIN, Message: "come back"}, nil)
	if !errors.Is(said, unix.EAGAIN) {
		t.Errorf("got %v, want what the daemon said", said)
	}
}

// TestStrangeDaemons: answers that are not what was asked for.
func TestStrangeDaemons(t *testing.T) {
	ownNetNS(t)
	sys := &abi.Sys{Version: "test"}
	var say atomic.Pointer[func(request) [][]byte]
	listen(t, func(r request) [][]byte { return (*say.Load())(r) })
	later := func(f func(r request) [][]byte) func(request) [][]byte {
		return func(r request) [][]byte {
			if r.typ == unix.GENL_ID_CTRL {
				return nil
			}
			return f(r)
		}
	}
	bad := func(length uint32) func(request) [][]byte {
		return later(func(r request) [][]byte {
			b := r.answer(sys)
			native.PutUint32(b, length)
			return [][]byte{b}
		})
	}
	for _, tt := range []struct {
		name string
		say  func(request) [][]byte
		want error
	}{
		{"as it should be", later(func(r request) [][]byte { return [][]byte{r.answer(sys)} }), nil},
		{"version 0", func(r request) [][]byte { return [][]byte{r.family(0)} }, unix.EOPNOTSUPP},
		{"another family", func(r request) [][]byte {
			return [][]byte{r.message(r.typ, 0, r.seq, 1, 2, 0, 0, 6, 0, 1, 0, 0xf0, 3, 0, 0)}
		}, unix.EBADMSG},
		{"no answer but an ack", later(func(r request) [][]byte { return [][]byte{r.ack(0)} }), unix.EBADMSG},
		{"another command", later(func(r request) [][]byte { r.cmd++; return [][]byte{r.answer(sys)} }), unix.EBADMSG},
		{"two answers", later(func(r request) [][]byte { return [][]byte{append(r.answer(sys), r.answer(sys)...)} }), unix.EBADMSG},
		{"length 0", bad(0), unix.EBADMSG},
		{"length 15", bad(15), unix.EBADMSG},
		{"length 2^31", bad(1 << 31), unix.EBADMSG},
		{"length 2^32-1", bad(1<<32 - 1), unix.EBADMSG},
		{"half an attribute", later(func(r request) [][]byte { return [][]byte{r.message(r.typ, 0, r.seq, r.cmd, 1, 0, 0, 9, 0, 1, 0)} }), unix.EBADMSG},
		{"errno without a sentence", later(func(r request) [][]byte { return [][]byte{r.ack(unix.EBUSY)} }), unix.EBUSY},
		{"junk before", later(func(r request) [][]byte {
			old := r
			old.seq--
			return [][]byte{{}, old.answer(&abi.Sys{Version: "old"}), old.ack(unix.EIO), r.message(unix.NLMSG_NOOP, 0, 0), r.answer(sys)}
		}), nil},
	} {
		say.Store(&tt.say)
		c, err := Dial(Options{Timeout: time.Second})
		if err == nil {
			var got *abi.Sys
			if got, err = c.Sys(t.Context()); err == nil && got.Version != "test" {
				t.Errorf("%s: got %+v", tt.name, got)
			}
			_ = c.Close()
		}
		if !errors.Is(err, tt.want) || err != nil && err.Error() == "" {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestLateAnswer: what was given up does not answer the next question.
func TestLateAnswer(t *testing.T) {
	ownNetNS(t)
	var held []byte
	listen(t, func(r request) [][]byte {
		switch {
		case r.typ == unix.GENL_ID_CTRL:
			return nil
		case held == nil:
			held = r.answer(&abi.Sys{Version: "late"})
			return nil
		}
		return [][]byte{held, r.answer(&abi.Sys{Version: "right"})}
	})
	c := dial(t, time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Sys(ctx); !errors.Is(err, unix.ETIMEDOUT) {
		t.Fatalf("got %v, want ETIMEDOUT", err)
	}
	if s, err := c.Sys(t.Context()); err != nil || s.Version != "right" {
		t.Errorf("got %v, %+v", err, s)
	}
}

// TestInterrupted: a call ends with its context, and with Close.
func TestInterrupted(t *testing.T) {
	ownNetNS(t)
	asked := make(chan struct{}, 1)
	listen(t, func(r request) [][]byte {
		if r.typ != unix.GENL_ID_CTRL {
			asked <- struct{}{}
		}
		return nil
	})
	c := dial(t, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Sys(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	go func() { <-asked; _ = c.Close() }()
	if _, err := c.Sys(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	if _, err := c.Sys(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed before: got %v", err)
	}
}

// TestNetNS: a daemon in another network namespace, by path.
func TestNetNS(t *testing.T) {
	ownNetNS(t)
	listen(t, func(r request) [][]byte {
		if r.typ == unix.GENL_ID_CTRL {
			return nil
		}
		return [][]byte{r.answer(&abi.Sys{Version: "there"})}
	})
	path := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	type result struct {
		s   *abi.Sys
		err error
	}
	done := make(chan result)
	go func() { // on a thread of the first namespace
		c, err := Dial(Options{NetNS: path})
		if err != nil {
			done <- result{nil, err}
			return
		}
		s, err := c.Sys(context.Background())
		done <- result{s, errors.Join(err, c.Close())}
	}()
	if r := <-done; r.err != nil || r.s.Version != "there" {
		t.Errorf("got %v, %+v", r.err, r.s)
	}
	if _, err := Dial(Options{NetNS: "there-is-none"}); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "/run/netns/there-is-none") {
		t.Errorf("unknown name: got %v", err)
	}
	if _, err := Dial(Options{NetNS: "/dev/null"}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no namespace: got %v", err)
	}
}

// TestEarlyEvents: events that come while a call waits are not lost.
func TestEarlyEvents(t *testing.T) {
	ownNetNS(t)
	event := func(r request, seq, lost uint64) []byte {
		r.seq, r.cmd = 0, abi.CmdEvent
		return r.answer(&abi.Event{Seq: seq, Lost: lost, Kind: abi.EventKindAdd})
	}
	listen(t, func(r request) [][]byte {
		switch r.cmd {
		case abi.CmdSubscribe:
			return [][]byte{event(r, 1, 0), r.ack(0)}
		case abi.CmdSys:
			if r.typ == unix.GENL_ID_CTRL {
				return nil
			}
			odd := r
			odd.seq = 0
			return [][]byte{event(r, 2, 0), r.answer(&abi.Sys{PID: 1}), event(r, 3, 0), event(r, 5, 0), event(r, 9, 3), odd.answer(&abi.Sys{}),
				odd.message(abi.FamilyID, 0, 0, abi.CmdEvent, 1, 0, 0, 5, 0, 1, 0, 1, 0, 0, 0)}
		}
		return nil
	})
	e, err := dial(t, time.Second).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, want := range []abi.Event{{Seq: 1}, {Seq: 2}, {Seq: 3}, {Seq: 5, Lost: 1}, {Seq: 9, Lost: 3}, {Seq: 0, Lost: 1}} {
		got, err := e.Next(t.Context())
		if err != nil || got.Seq != want.Seq || got.Lost != want.Lost {
			t.Errorf("got %v, %+v, want %+v", err, got, want)
		}
	}
}

func TestKeepIsBounded(t *testing.T) {
	s := &socket{}
	for range maxEarly + 7 {
		s.keep(netlink.Message{Header: netlink.Header{Type: abi.FamilyID}})
	}
	s.keep(netlink.Message{Header: netlink.Header{Type: abi.FamilyID, Sequence: 1}})
	if len(s.early) != maxEarly || s.missed != 7 {
		t.Errorf("%d kept, %d missed", len(s.early), s.missed)
	}
	b, err := abi.Marshal(&abi.Event{Seq: 1, Kind: abi.EventKindAdd})
	if err != nil {
		t.Fatal(err)
	}
	e := &Events{c: &Client{sock: s, family: abi.FamilyID}}
	m := netlink.Message{Header: netlink.Header{Type: abi.FamilyID}, Data: append([]byte{abi.CmdEvent, 1, 0, 0}, b...)}
	if ev, ok := e.decode(m); !ok || ev.Lost != 7 || s.missed != 0 {
		t.Errorf("then %+v", ev)
	}
}

func TestFromRoot(t *testing.T) {
	for _, tt := range []struct {
		oob  []byte
		want bool
	}{
		{unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: 0}), true},
		{unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: 1000}), false},
		{unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: 65534, Gid: 0}), false},
		{unix.UnixRights(0), false},
		{nil, false},
		{[]byte{1, 2, 3}, false},
	} {
		if got := fromRoot(tt.oob); got != tt.want {
			t.Errorf("% x: got %v", tt.oob, got)
		}
	}
}

func TestBlame(t *testing.T) {
	ae := netlink.NewAttributeEncoder()
	ae.String(1, "vol0")
	for range 2 {
		ae.Nested(5, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(1, 1)
			ae.Bytes(3, []byte{2, 0, 0})
			return nil
		})
	}
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   int
		path []uint16
		nth  int
	}{
		{0, []uint16{1}, 0},
		{12, []uint16{5}, 0},
		{16, []uint16{5, 1}, 0},
		{24, []uint16{5, 3}, 0},
		{32, []uint16{5}, 1},
		{44, []uint16{5, 3}, 1},
		{4, nil, 0}, // inside a string
		{len(b), nil, 0},
		{-1, nil, 0},
	} {
		if path, nth := blame(b, tt.at); !slices.Equal(path, tt.path) || nth != tt.nth {
			t.Errorf("offset %d: got %v, %d, want %v, %d", tt.at, path, nth, tt.path, tt.nth)
		}
	}
}

func FuzzSplit(f *testing.F) {
	r := request{typ: abi.FamilyID, cmd: 1, seq: 1}
	f.Add(append(r.answer(&abi.Sys{Version: "x"}), r.ack(unix.EIO)...), 20)
	f.Add(binary.NativeEndian.AppendUint32(nil, 1<<31), 0)
	f.Add([]byte{}, -1)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		blame(b, at)
		ms, err := split(b)
		if err != nil && !errors.Is(err, unix.EBADMSG) {
			t.Fatal(err)
		}
		total := 0
		for _, m := range ms {
			total += 16 + len(m.Data)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of %d", total, len(b))
		}
	})
}
