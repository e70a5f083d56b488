package genl

import (
	"errors"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzPolicy: whatever the bytes, they are refused with a place inside the
// message, or every byte of them is accounted for.
func FuzzPolicy(f *testing.F) {
	f.Add(slices.Concat(num(tU32, 15), str(tString, "abc"), nest(tNest, num(1, 1)), attr(tFlag), num(tMulti, 1), num(tMulti, 2)))
	f.Add(deep(maxDepth))
	f.Add(withLen(num(tU32, 15), math.MaxUint16))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg := append(make([]byte, attrsAt), b...)
		as, err := allKinds.Parse(msg, attrsAt)
		if err == nil {
			checkAttrs(t, msg, attrsAt, len(msg), as)
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Msg == "" || (e.Errno != unix.EINVAL && e.Errno != unix.ERANGE) {
			t.Fatalf("refused with %#v", err)
		}
		if int(e.Offset) < attrsAt || int(e.Offset) >= len(msg) || e.Offset%4 != 0 {
			t.Fatalf("offset %d of %d: %s", e.Offset, len(msg), e.Msg)
		}
	})
}

// checkAttrs demands that as are the attributes of msg[from:to], without a gap.
func checkAttrs(t *testing.T, msg []byte, from, to int, as Attrs) {
	for _, a := range as {
		if int(a.Offset) != from {
			t.Fatalf("attribute at %d, want %d", a.Offset, from)
		}
		if a.Nest != nil {
			checkAttrs(t, msg, from+unix.NLA_HDRLEN, from+unix.NLA_HDRLEN+len(a.Data), a.Nest)
		}
		from = min(from+align4(unix.NLA_HDRLEN+len(a.Data)), to)
	}
	if from != to {
		t.Fatalf("ends at %d, want %d", from, to)
	}
}

// FuzzReceive: whatever the datagram and whoever sent it, the server answers
// with whole messages, to the sender only, and is idle afterwards. Nobody but
// root makes a handler of an Admin operation run.
func FuzzReceive(f *testing.F) {
	get := frame(testID, unix.NLM_F_ACK, 1, cmdGet, str(aName, "vol0"))
	f.Add(get, uint32(port), uint32(0), len(get))
	f.Add(slices.Concat(get, frame(testID, anyDump, 2, cmdRows, num(aCount, 3))), uint32(port), uint32(0), 0)
	f.Add(frame(unix.GENL_ID_CTRL, unix.NLM_F_ACK, 3, unix.CTRL_CMD_GETFAMILY, str(unix.CTRL_ATTR_FAMILY_NAME, "test")), uint32(1), uint32(1000), 0)
	f.Fuzz(func(t *testing.T, b []byte, port, uid uint32, size int) {
		c, ran := newFake(), false
		family := testFamily(nil)
		family.Ops = map[uint8]Op{
			cmdOpen: family.Ops[cmdOpen],
			cmdGet:  {Admin: true, Policy: allKinds, Do: func(r *Request) error { ran = true; return r.Reply(nil) }},
			cmdRows: {Admin: true, DumpPolicy: allKinds, Dump: func(r *Request) error { ran = true; return r.Reply(nil) }},
		}
		s, err := New(c, family)
		if err != nil {
			t.Fatal(err)
		}
		s.receive(Datagram{Data: b, Size: max(size, len(b)), Port: port, Cred: &unix.Ucred{Uid: uid}})
		s.wg.Wait()
		ms := decode(t, c.take(port))
		if len(c.got) > 0 {
			t.Fatalf("others were sent %v", c.got)
		}
		if port == 0 && len(ms) > 0 {
			t.Fatal("the kernel was answered")
		}
		if ran && uid != 0 {
			t.Fatalf("uid %d ran a handler", uid)
		}
		for _, m := range ms {
			if m.port != port {
				t.Fatalf("port %d in an answer to %d", m.port, port)
			}
		}
	})
}
