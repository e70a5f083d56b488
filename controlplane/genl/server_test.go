package genl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The commands and attributes of the family under test.
const (
	testID = 0x3f0

	cmdGet   = 1 // do: name → name, size; dump: count rows
	cmdOpen  = 2 // do, for everybody
	cmdSlow  = 3 // do: waits for the gate or its context
	cmdFail  = 4 // do: answers, then fails with the text of name
	cmdRows  = 5 // dump only: count rows, then fails if name is given
	cmdBig   = 6 // do: an answer that fits nothing
	cmdEvent = 7
	cmdLost  = 8

	aName  = 1
	aSize  = 2
	aCount = 3
	aLost  = 4
)

var (
	namePolicy = &Policy{Name: "get", Attrs: map[uint16]Rule{
		aName: {Name: "name", Kind: String, Min: 1, Max: 31},
		aSize: {Name: "size", Kind: U32},
	}}
	rowPolicy = &Policy{Name: "rows", Attrs: map[uint16]Rule{
		aCount: {Name: "count", Kind: U32},
		aName:  {Name: "name", Kind: String},
	}}
)

// testFamily is a family whose slow command ends when gate is closed.
func testFamily(gate <-chan struct{}) Family {
	return Family{
		Name: "test", ID: testID, Version: 3, MaxAttr: aLost, Overrun: cmdLost,
		Ops: map[uint8]Op{
			cmdGet:  {Do: doGet, Policy: namePolicy, Need: []uint16{aName}, Dump: dumpRows, DumpPolicy: rowPolicy, Admin: true},
			cmdOpen: {Do: func(*Request) error { return nil }},
			cmdSlow: {Admin: true, Do: func(r *Request) error {
				select {
				case <-gate:
					return nil
				case <-r.Context().Done():
					return fmt.Errorf("too slow: %w", r.Context().Err())
				}
			}},
			cmdFail: {Admin: true, Policy: namePolicy, Do: func(r *Request) error {
				if err := r.Reply(nil); err != nil {
					return err
				}
				a, _ := r.Attrs.Get(aName)
				return At(aName, fmt.Errorf("node %q: %w", a.String(), unix.ENODEV))
			}},
			cmdRows: {Admin: true, Dump: dumpRows, DumpPolicy: rowPolicy, Reply: cmdGet},
			cmdBig: {Admin: true, Do: func(r *Request) error {
				return r.Reply(func(ae *netlink.AttributeEncoder) {
					for range 2 {
						ae.Bytes(aName, make([]byte, 1<<15))
					}
				})
			}},
		},
		Stamp: func(ae *netlink.AttributeEncoder, seq, lost uint64) {
			ae.Uint64(aCount, seq)
			if lost > 0 {
				ae.Uint64(aLost, lost)
			}
		},
	}
}

func doGet(r *Request) error {
	a, _ := r.Attrs.Get(aName)
	return r.Reply(func(ae *netlink.AttributeEncoder) {
		ae.String(aName, a.String())
		ae.Uint32(aSize, r.Seq)
	})
}

func dumpRows(r *Request) error {
	a, _ := r.Attrs.Get(aCount)
	for i := range a.Uint() {
		if err := r.Reply(func(ae *netlink.AttributeEncoder) {
			ae.String(aName, fmt.Sprintf("row%06d", i))
			ae.Bytes(aSize, make([]byte, 1000))
		}); err != nil {
			return err
		}
	}
	if n, ok := r.Attrs.Get(aName); ok {
		return fmt.Errorf("%s: %w", n.String(), unix.EIO)
	}
	return nil
}

const port = 4711

func TestDoAnswersThenAcknowledges(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		ms := b.ask(port, frame(testID, unix.NLM_F_ACK, 42, cmdGet, str(aName, "vol0")))
		if len(ms) != 2 {
			t.Fatalf("%d messages, want answer and acknowledgement", len(ms))
		}
		if m := ms[0]; m.typ != testID || m.cmd != cmdGet || m.seq != 42 || m.port != port || m.flag != 0 {
			t.Errorf("answer %+v", m)
		}
		if got := tlvs(t, ms[0].attrs); string(got[aName]) != "vol0\x00" || native.Uint32(got[aSize]) != 42 {
			t.Errorf("attributes %v", got)
		}
		m := ms[1]
		if m.typ != unix.NLMSG_ERROR || m.errno != 0 || m.seq != 42 || m.port != port || m.flag != unix.NLM_F_CAPPED {
			t.Errorf("acknowledgement %+v", m)
		}
		if m.echo.len != headerLen || m.echo.typ != testID || m.echo.seq != 42 || m.len != headerLen+4+headerLen {
			t.Errorf("echo %+v in %d bytes", m.echo, m.len)
		}
		if ms := b.ask(port, frame(testID, 0, 43, cmdGet, str(aName, "vol0"))); len(ms) != 1 {
			t.Errorf("%d messages without NLM_F_ACK, want 1", len(ms))
		}
	})
}

func TestRefusals(t *testing.T) {
	name := str(aName, "vol0")
	long := frame(testID, 0, 1, cmdGet, name)
	reserved := frame(testID, 0, 1, cmdGet, name)
	reserved[headerLen+2] = 1
	tests := []struct {
		name  string
		msg   []byte
		errno unix.Errno
		text  string
		at    uint32
		miss  uint32
	}{
		{"no generic header", long[:headerLen+2], unix.EINVAL, "generic-netlink header", 0, 0},
		{"foreign family", frame(0x25, 0, 1, cmdGet), unix.ENOENT, "no family", 0, 0},
		{"unknown command", frame(testID, 0, 1, 99), unix.EOPNOTSUPP, "no command 99", 0, 0},
		{"do of what is only dumped", frame(testID, 0, 1, cmdRows), unix.EOPNOTSUPP, "only be dumped", 0, 0},
		{"dump of what is only done", frame(testID, anyDump, 1, cmdOpen), unix.EOPNOTSUPP, "cannot be dumped", 0, 0},
		{"reserved field", reserved, unix.EINVAL, "reserved", headerLen + 2, 0},
		{"attribute where none is allowed", frame(testID, 0, 1, cmdOpen, name), unix.EINVAL, "not known in this request", attrsAt, 0},
		{"unknown attribute", frame(testID, 0, 1, cmdGet, name, num(77, 1)), unix.EINVAL, "attribute 77 is not known in get", attrsAt + 12, 0},
		{"missing attribute", frame(testID, 0, 1, cmdGet, num(aSize, 1)), unix.EINVAL, "attribute name is missing in get", 0, aName},
		{"handler's error", frame(testID, 0, 1, cmdFail, num(aSize, 1), name), unix.ENODEV, `node "vol0": no such device`, attrsAt + 8, 0},
		{"answer too large", frame(testID, 0, 1, cmdBig), unix.EMSGSIZE, "larger", 0, 0},
		{"dump with a bad attribute", frame(testID, anyDump, 1, cmdRows, num(aSize, 1)), unix.EINVAL, "not known in rows", attrsAt, 0},
		{"dump that fails at once", frame(testID, anyDump, 1, cmdRows, str(aName, "disk on fire")), unix.EIO, "disk on fire", 0, 0},
		{"dump that fails before a datagram left", frame(testID, anyDump, 1, cmdRows, num(aCount, 2), str(aName, "smoke")), unix.EIO, "smoke", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, testFamily, func(t *testing.T, b *bench) {
				native.PutUint32(tt.msg, uint32(len(tt.msg)))
				ms := b.ask(port, tt.msg)
				if len(ms) != 1 {
					t.Fatalf("%d messages, want one error", len(ms))
				}
				m := ms[0]
				if m.typ != unix.NLMSG_ERROR || m.errno != tt.errno || m.seq != 1 || !strings.Contains(m.text(), tt.text) {
					t.Errorf("type %d, errno %d (%v), seq %d: %q", m.typ, m.errno, m.errno, m.seq, m.text())
				}
				if m.number(unix.NLMSGERR_ATTR_OFFS) != tt.at || m.number(missType) != tt.miss {
					t.Errorf("offset %d, missing %d", m.number(unix.NLMSGERR_ATTR_OFFS), m.number(missType))
				}
				if m.flag != unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS || m.echo.len != headerLen {
					t.Errorf("flags %#x, echo %+v", m.flag, m.echo)
				}
			})
		})
	}
}

func TestErrorNeverRepeatsTheRequest(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		secret := "correct horse battery staple"
		b.put(port, frame(testID, 0, 1, cmdGet, str(aSize, secret)))
		for _, d := range b.conn.take(port) {
			if bytes.Contains(d, []byte(secret)) {
				t.Errorf("the answer repeats the request: %q", d)
			}
		}
	})
}

func TestRequestIsErasedAfterItsHandler(t *testing.T) {
	var kept []byte
	keeper := func(gate <-chan struct{}) Family {
		f := testFamily(gate)
		f.Ops[cmdGet] = Op{Policy: namePolicy, Do: func(r *Request) error { kept = r.Raw; return nil }}
		return f
	}
	inBubble(t, keeper, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 1, cmdGet, str(aName, "secret")))
		if len(kept) == 0 || !bytes.Equal(kept, make([]byte, len(kept))) {
			t.Errorf("the request is still there: %q", kept)
		}
	})
}

func TestNonRootIsRefusedBeforeAttributesAreParsed(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		user := &unix.Ucred{Pid: 9, Uid: 1000}
		for _, flag := range []uint16{0, anyDump} {
			b.conn.in <- Datagram{Data: frame(testID, flag, 5, cmdGet, []byte{1, 2, 3}), Port: port, Cred: user}
			synctest.Wait()
			ms := decode(t, b.conn.take(port))
			if len(ms) != 1 || ms[0].errno != unix.EPERM || !strings.Contains(ms[0].text(), "only root") || ms[0].number(unix.NLMSGERR_ATTR_OFFS) != 0 {
				t.Errorf("got %+v", ms)
			}
		}
		b.conn.in <- Datagram{Data: frame(testID, unix.NLM_F_ACK, 6, cmdOpen), Port: port, Cred: user}
		synctest.Wait()
		if ms := decode(t, b.conn.take(port)); len(ms) != 1 || ms[0].errno != 0 {
			t.Errorf("what is open to all was refused: %+v", ms)
		}
		if c := b.Counts(); c.Requests != 1 || c.Refused != 2 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestUnanswerableIsDropped(t *testing.T) {
	good := frame(testID, unix.NLM_F_ACK, 1, cmdOpen)
	withLen := func(n uint32) []byte {
		b := slices.Clone(good)
		native.PutUint32(b, n)
		return b
	}
	tests := []struct {
		name string
		d    Datagram
	}{
		{"from the kernel", Datagram{Data: good, Port: 0, Cred: rootCred()}},
		{"without credentials", Datagram{Data: good, Port: port}},
		{"empty", Datagram{Data: []byte{}, Port: port, Cred: rootCred()}},
		{"shorter than a header", Datagram{Data: good[:headerLen-1], Port: port, Cred: rootCred()}},
		{"length 0", Datagram{Data: withLen(0), Port: port, Cred: rootCred()}},
		{"length below a header", Datagram{Data: withLen(headerLen - 1), Port: port, Cred: rootCred()}},
		{"length one too much", Datagram{Data: withLen(uint32(len(good) + 1)), Port: port, Cred: rootCred()}},
		{"length 2^31", Datagram{Data: withLen(1 << 31), Port: port, Cred: rootCred()}},
		{"length 2^32-1", Datagram{Data: withLen(math.MaxUint32), Port: port, Cred: rootCred()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, testFamily, func(t *testing.T, b *bench) {
				b.conn.in <- tt.d
				synctest.Wait()
				if got := b.conn.take(tt.d.Port); len(got) > 0 {
					t.Errorf("answered: %x", got)
				}
				if b.Counts().Dropped != 1 {
					t.Errorf("counts %+v", b.Counts())
				}
				if ms := b.ask(port, good); len(ms) != 1 || ms[0].errno != 0 {
					t.Errorf("the server does not serve any more: %+v", ms)
				}
			})
		})
	}
}

func TestRestOfADatagramIsDroppedAfterALyingLength(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		one, two := frame(testID, unix.NLM_F_ACK, 1, cmdOpen), frame(testID, unix.NLM_F_ACK, 2, cmdOpen)
		bad := slices.Clone(one)
		native.PutUint32(bad, 7)
		if ms := b.ask(port, slices.Concat(one, bad, two)); len(ms) != 1 || ms[0].seq != 1 {
			t.Errorf("got %+v", ms)
		}
		if ms := b.ask(port, append(slices.Clone(one), 1, 2, 3, 4)); len(ms) != 1 || b.Counts().Dropped != 2 {
			t.Errorf("got %+v, %+v", ms, b.Counts())
		}
	})
}

func TestSeveralMessagesInOneDatagram(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		var d []byte
		for seq := range uint32(3) {
			d = append(d, frame(testID, unix.NLM_F_ACK, seq, cmdOpen)...)
		}
		tail := appendHeader(nil, header{len: attrsAt, typ: testID, flag: unix.NLM_F_REQUEST | unix.NLM_F_ACK, seq: 3})
		d = append(d, append(tail, cmdOpen, 1, 0, 0)...)
		ms := b.ask(port, d)
		if len(ms) != 4 {
			t.Fatalf("%d answers", len(ms))
		}
		for i, m := range ms {
			if m.seq != uint32(i) || m.errno != 0 {
				t.Errorf("answer %d: %+v", i, m)
			}
		}
	})
}

func TestCutDatagramIsRefused(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		d := Datagram{Data: frame(testID, 0, 8, cmdOpen), Size: maxRequest + 1, Port: port, Cred: rootCred()}
		b.conn.in <- d
		synctest.Wait()
		if ms := decode(t, b.conn.take(port)); len(ms) != 1 || ms[0].errno != unix.EMSGSIZE || ms[0].seq != 8 {
			t.Errorf("got %+v", ms)
		}
		native.PutUint16(d.Data[6:], 0) // not even a request
		b.conn.in <- d
		synctest.Wait()
		if got := b.conn.take(port); len(got) > 0 {
			t.Errorf("answered: %x", got)
		}
	})
}

func TestWhatIsNoRequestIsOnlyAcknowledged(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		for _, typ := range []uint16{testID, unix.NLMSG_NOOP, unix.NLMSG_ERROR, unix.NLMSG_DONE} {
			for _, flag := range []uint16{0, unix.NLM_F_ACK} {
				h := header{typ: typ, flag: flag, seq: 3}
				if typ != testID {
					h.flag |= unix.NLM_F_REQUEST
				}
				ms := b.ask(port, appendMessage(nil, h))
				if want := int(flag / unix.NLM_F_ACK); len(ms) != want || (want == 1 && ms[0].errno != 0) {
					t.Errorf("type %d flags %#x: got %+v", typ, h.flag, ms)
				}
			}
		}
	})
}

func TestReceiveErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFake()
		s, err := New(c, testFamily(nil))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		c.in <- Datagram{Size: int(unix.ENOBUFS)} // an overrun is no end
		c.in <- Datagram{Size: int(unix.EBADF)}
		if err := <-served; !errors.Is(err, unix.EBADF) {
			t.Error("Serve:", err)
		}
		if s.Counts().Dropped != 1 {
			t.Errorf("counts %+v", s.Counts())
		}
		if err := errors.Join(s.Close(), s.Close(), s.Serve()); err != nil {
			t.Error("Close twice, Serve after it:", err)
		}
	})
}

func TestRequestsOfOnePortAreInOrderAndOthersAreNotDisturbed(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		if ms := b.ask(port, frame(testID, unix.NLM_F_ACK, 1, cmdSlow), frame(testID, unix.NLM_F_ACK, 2, cmdOpen)); len(ms) > 0 {
			t.Fatalf("answered too early: %+v", ms)
		}
		if ms := b.ask(port+1, frame(testID, unix.NLM_F_ACK, 3, cmdOpen)); len(ms) != 1 || ms[0].seq != 3 {
			t.Fatalf("another port was held up: %+v", ms)
		}
		close(b.gate)
		synctest.Wait()
		if ms := decode(t, b.conn.take(port)); len(ms) != 2 || ms[0].seq != 1 || ms[1].seq != 2 {
			t.Errorf("got %+v", ms)
		}
	})
}

func TestSlowHandlerEndsWithItsContext(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 1, cmdSlow))
		time.Sleep(defaultLimit)
		synctest.Wait()
		if ms := decode(t, b.conn.take(port)); len(ms) != 1 || ms[0].errno != unix.ETIMEDOUT || !strings.Contains(ms[0].text(), "too slow") {
			t.Errorf("got %+v", ms)
		}
	})
}

func TestTooManyRequestsOfOnePortAreBusy(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 0, cmdSlow))
		for seq := range uint32(maxQueued) {
			b.put(port, frame(testID, unix.NLM_F_ACK, seq, cmdOpen))
		}
		if ms := b.ask(port, frame(testID, 0, 999, cmdOpen)); len(ms) != 1 || ms[0].errno != unix.EBUSY || ms[0].seq != 999 {
			t.Errorf("got %+v", ms)
		}
		close(b.gate)
		synctest.Wait()
		if n := len(b.conn.take(port)); n != maxQueued {
			t.Errorf("%d answers, want %d", n, maxQueued)
		}
	})
}

func TestTooManyBytesOfOnePortAreBusy(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 0, cmdSlow))
		large := frame(testID, 0, 1, cmdOpen, make([]byte, maxRequest-attrsAt))
		for range maxQueuedSz / maxRequest {
			b.put(port, large)
		}
		if ms := b.ask(port, frame(testID, 0, 2, cmdOpen)); len(ms) != 1 || ms[0].errno != unix.EBUSY {
			t.Errorf("got %+v", ms)
		}
		close(b.gate)
	})
}

func TestTooManyPortsAreBusy(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		for i := range uint32(maxLines) {
			b.put(port+i, frame(testID, 0, 0, cmdSlow))
		}
		if ms := b.ask(1, frame(testID, 0, 1, cmdOpen)); len(ms) != 1 || ms[0].errno != unix.EBUSY {
			t.Errorf("got %+v", ms)
		}
		close(b.gate)
		synctest.Wait()
		if ms := b.ask(1, frame(testID, unix.NLM_F_ACK, 2, cmdOpen)); len(ms) != 1 || ms[0].errno != 0 {
			t.Errorf("still busy: %+v", ms)
		}
	})
}

func TestCloseEndsHandlersAndAnswersWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFake()
		s, err := New(c, testFamily(nil))
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t, c, s, nil, make(chan error, 1)}
		go func() { b.served <- s.Serve() }()
		b.put(port, frame(testID, 0, 1, cmdSlow), frame(testID, 0, 2, cmdOpen), frame(testID, anyDump, 3, cmdRows))
		if err := errors.Join(s.Close(), <-b.served); err != nil {
			t.Fatal(err)
		}
		ms := decode(t, c.take(port))
		if len(ms) != 3 {
			t.Fatalf("%d answers", len(ms))
		}
		for i, m := range ms {
			if m.errno != unix.ESHUTDOWN || m.seq != uint32(i+1) {
				t.Errorf("answer %d: %+v", i, m)
			}
		}
		if !c.closed || !errors.Is(s.enqueue(&job{}), unix.ESHUTDOWN) || !errors.Is(s.Subscribe(1, nil), unix.ESHUTDOWN) {
			t.Error("the server is not closed")
		}
		s.Notify(cmdEvent, "", nil) // harmless
	})
}

func TestNewRefusesABadTable(t *testing.T) {
	do := func(*Request) error { return nil }
	for name, f := range map[string]Family{
		"no name":        {ID: testID},
		"long name":      {Name: "sixteen-letters!", ID: testID},
		"controller id":  {Name: "x", ID: unix.GENL_ID_CTRL},
		"id too high":    {Name: "x", ID: unix.GENL_MAX_ID + 1},
		"empty row":      {Name: "x", ID: testID, Ops: map[uint8]Op{1: {}}},
		"impossible row": {Name: "x", ID: testID, Ops: map[uint8]Op{1: {Do: do, Need: []uint16{1}}}},
	} {
		if _, err := New(newFake(), f); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAck(t *testing.T) {
	refusal := &Error{Errno: unix.ERANGE, Msg: "too much", Offset: 24, Miss: 3}
	for _, tt := range []struct {
		err  error
		want *Error
	}{
		{nil, nil},
		{unix.ENODEV, &Error{Errno: unix.ENODEV, Msg: "no such device"}},
		{&Error{Errno: unix.ENODEV}, &Error{Errno: unix.ENODEV, Msg: "no such device"}},
		{fmt.Errorf("node %q: %w", "a", unix.EEXIST), &Error{Errno: unix.EEXIST, Msg: `node "a": file exists`}},
		{refusal, refusal},
		{fmt.Errorf("node: %w", refusal), &Error{Errno: unix.ERANGE, Msg: "node: too much", Offset: 24, Miss: 3}},
		{At(7, unix.EPERM), &Error{Errno: unix.EPERM, Msg: "operation not permitted", Attr: 7}},
		{errors.New("odd"), &Error{Errno: unix.EIO, Msg: "odd"}},
		{unix.Errno(0), &Error{Errno: unix.EIO, Msg: "errno 0"}},
		{unix.Errno(70000), &Error{Errno: unix.EIO, Msg: "errno 70000"}},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), &Error{Errno: unix.ETIMEDOUT, Msg: "x: context deadline exceeded"}},
		{context.Canceled, &Error{Errno: unix.ESHUTDOWN, Msg: "context canceled"}},
		{fmt.Errorf("a\x00b: %w", unix.EIO), &Error{Errno: unix.EIO, Msg: "a?b: input/output error"}},
		{errors.New(strings.Repeat("é", maxSentence) + "x"), &Error{Errno: unix.EIO, Msg: strings.Repeat("é", maxSentence/2)}},
		{errors.New("x" + strings.Repeat("é", maxSentence)), &Error{Errno: unix.EIO, Msg: "x" + strings.Repeat("é", maxSentence/2-1)}},
	} {
		got := Ack(tt.err)
		if (got == nil) != (tt.want == nil) || (got != nil && *got != *tt.want) {
			t.Errorf("Ack(%v) = %+v, want %+v", tt.err, got, tt.want)
		}
	}
	if At(1, nil) != nil {
		t.Error("At of nil is an error")
	}
}
