package genl

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// rowsOf counts the rows of ms, which end in DONE; ok is false if they do not.
func rowsOf(t *testing.T, ms []message) (rows int, done message, ok bool) {
	t.Helper()
	for _, m := range ms {
		if m.typ == unix.NLMSG_DONE {
			return rows, m, true
		}
		want := fmt.Sprintf("row%06d\x00", rows)
		if got := tlvs(t, m.attrs)[aName]; m.typ != testID || m.cmd != cmdGet || m.flag != unix.NLM_F_MULTI || string(got) != want {
			t.Fatalf("row %d: %+v, want %q", rows, m.header, want)
		}
		rows++
	}
	return rows, message{}, false
}

func TestDumpEndsInDoneWithoutAcknowledgement(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 100} {
		inBubble(t, testFamily, func(t *testing.T, b *bench) {
			b.put(port, frame(testID, anyDump|unix.NLM_F_ACK, 5, cmdRows, num(aCount, uint32(n))))
			got := b.conn.take(port)
			for _, d := range got {
				if len(d) > dumpSize {
					t.Errorf("a datagram of %d bytes", len(d))
				}
			}
			ms := decode(t, got)
			rows, done, ok := rowsOf(t, ms)
			if !ok || rows != n || len(ms) != n+1 || done.errno != 0 || done.seq != 5 || done.port != port || done.flag != unix.NLM_F_MULTI {
				t.Errorf("%d of %d rows, done %+v", rows, n, done)
			}
		})
	}
}

func TestDumpIsPacedByItsReader(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.conn.accept(port, 1)
		b.put(port, frame(testID, anyDump, 5, cmdRows, num(aCount, 1000)))
		var all [][]byte
		for len(all) < 142 { // 7 rows of 1 KB a datagram; the last one has DONE too
			got := b.conn.take(port)
			if len(got) > 1 {
				t.Fatalf("%d datagrams at once", len(got))
			}
			all = append(all, got...)
			b.conn.accept(port, 1)
			time.Sleep(maxWait)
			synctest.Wait()
		}
		if rows, done, ok := rowsOf(t, decode(t, append(all, b.conn.take(port)...))); !ok || rows != 1000 || done.errno != 0 {
			t.Errorf("%d rows, done %+v", rows, done)
		}
	})
}

func TestReaderWhoDoesNotReadIsGivenUp(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.conn.accept(port, 1)
		b.put(port, frame(testID, anyDump, 5, cmdRows, num(aCount, 1000)), frame(testID, unix.NLM_F_ACK, 6, cmdOpen))
		start := time.Now()
		time.Sleep(patience + maxWait)
		synctest.Wait()
		b.mu.Lock()
		n := len(b.lines)
		b.mu.Unlock()
		if n != 0 {
			t.Errorf("still served after %v", time.Since(start))
		}
		b.conn.accept(port, -1) // it reads again: served as anybody
		b.conn.take(port)
		if ms := b.ask(port, frame(testID, unix.NLM_F_ACK, 7, cmdOpen)); len(ms) != 1 || ms[0].seq != 7 || ms[0].errno != 0 {
			t.Errorf("got %+v", ms)
		}
	})
}

func TestDumpOfOneWhoIsGoneEnds(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.conn.leave(port)
		b.put(port, frame(testID, anyDump, 5, cmdRows, num(aCount, 1000000)))
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.lines) != 0 {
			t.Error("it runs for nobody")
		}
	})
}

func TestDumpEndsWithItsTime(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 1, cmdSlow)) // others are not disturbed by what follows
		b.conn.accept(port+1, 1)
		b.put(port+1, frame(testID, anyDump, 5, cmdRows, num(aCount, 1000000)))
		for range defaultLimit / time.Second {
			b.conn.accept(port+1, 1) // just enough not to be given up
			time.Sleep(time.Second)
			synctest.Wait()
		}
		b.mu.Lock()
		_, running := b.lines[port+1]
		b.mu.Unlock()
		if _, done, ok := rowsOf(t, decode(t, b.conn.take(port+1))); running || (ok && done.errno == 0) {
			t.Errorf("running %v, done %+v", running, done)
		}
	})
}

func TestSecondDumpOfAPortIsBusyUntilTheFirstIsSent(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.put(port, frame(testID, 0, 1, cmdSlow))
		b.put(port, frame(testID, anyDump, 2, cmdRows, num(aCount, 1)))
		if ms := b.ask(port, frame(testID, anyDump, 3, cmdRows)); len(ms) != 1 || ms[0].errno != unix.EBUSY || ms[0].seq != 3 {
			t.Errorf("got %+v", ms)
		}
		close(b.gate)
		synctest.Wait()
		if rows, _, ok := rowsOf(t, decode(t, b.conn.take(port))); !ok || rows != 1 {
			t.Error("the first dump is not whole")
		}
		if rows, _, ok := rowsOf(t, b.ask(port, frame(testID, anyDump, 4, cmdRows, num(aCount, 2)))); !ok || rows != 2 {
			t.Error("a dump after a dump is refused")
		}
	})
}

func TestDumpThatFailsAfterRowsSaysSoInDone(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		ms := b.ask(port, frame(testID, anyDump, 5, cmdRows, num(aCount, 20), str(aName, "disk on fire")))
		rows, done, ok := rowsOf(t, ms)
		if !ok || rows != 20 || done.errno != unix.EIO || done.text() != "disk on fire: input/output error" || done.flag&unix.NLM_F_ACK_TLVS == 0 {
			t.Errorf("%d rows, done %+v: %q", rows, done, done.text())
		}
	})
}

func TestGetFamily(t *testing.T) {
	name, id := uint16(unix.CTRL_ATTR_FAMILY_NAME), uint16(unix.CTRL_ATTR_FAMILY_ID)
	for _, tt := range []struct {
		name  string
		attrs [][]byte
		want  string
		errno unix.Errno
	}{
		{"by name", [][]byte{str(name, "test")}, "test", 0},
		{"by id", [][]byte{attr(id, native.AppendUint16(nil, testID)...)}, "test", 0},
		{"by both", [][]byte{str(name, "test"), attr(id, native.AppendUint16(nil, testID)...)}, "test", 0},
		{"the controller", [][]byte{str(name, "nlctrl")}, "nlctrl", 0},
		{"another name", [][]byte{str(name, "wireguard")}, "", unix.ENOENT},
		{"name and id disagree", [][]byte{str(name, "nlctrl"), attr(id, native.AppendUint16(nil, testID)...)}, "", unix.ENOENT},
		{"neither", nil, "", unix.EINVAL},
		{"name too long", [][]byte{str(name, "sixteen-letters!")}, "", unix.ERANGE},
	} {
		inBubble(t, testFamily, func(t *testing.T, b *bench) {
			ms := b.ask(port, frame(unix.GENL_ID_CTRL, 0, 9, unix.CTRL_CMD_GETFAMILY, tt.attrs...))
			if len(ms) != 1 || ms[0].errno != tt.errno {
				t.Fatalf("%s: got %+v", tt.name, ms)
			}
			if tt.errno != 0 {
				return
			}
			if m := ms[0]; m.typ != unix.GENL_ID_CTRL || m.cmd != unix.CTRL_CMD_NEWFAMILY || string(tlvs(t, m.attrs)[name]) != tt.want+"\x00" {
				t.Errorf("%s: got %+v", tt.name, m)
			}
		})
	}
}

func TestGetFamilyDumpAndGetPolicy(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		ms := b.ask(port, frame(unix.GENL_ID_CTRL, anyDump, 9, unix.CTRL_CMD_GETFAMILY))
		if len(ms) != 3 || ms[0].cmd != unix.CTRL_CMD_NEWFAMILY || ms[2].typ != unix.NLMSG_DONE {
			t.Errorf("got %+v", ms)
		}
		ms = b.ask(port, frame(unix.GENL_ID_CTRL, anyDump, 9, unix.CTRL_CMD_GETPOLICY, str(unix.CTRL_ATTR_FAMILY_NAME, "test")))
		if len(ms) != 1 || ms[0].errno != unix.EOPNOTSUPP || ms[0].text() == "" {
			t.Errorf("got %+v", ms)
		}
	})
}
