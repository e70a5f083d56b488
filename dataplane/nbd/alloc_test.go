package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"runtime/debug"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// batch is a client that sends the same requests again and again in one write
// and reads all answers, with nothing allocated.
type batch struct {
	c       io.ReadWriter
	sent    []byte
	answers []byte
}

func newBatch(c io.ReadWriter, cmd uint16, depth int, length uint32) *batch {
	b := &batch{c: c}
	for i := range depth {
		head := make([]byte, requestSize)
		be := binary.BigEndian
		be.PutUint32(head, protocol.TRANSMISSION_MAGIC_REQUEST)
		be.PutUint16(head[6:], cmd)
		be.PutUint64(head[8:], uint64(i))
		be.PutUint64(head[16:], uint64(i)*uint64(length)%testSize)
		be.PutUint32(head[24:], length)
		b.sent = append(b.sent, head...)
		if cmd == cmdWrite {
			b.sent = append(b.sent, make([]byte, length)...)
		}
	}
	n := depth * replySize
	if cmd == cmdRead {
		n += depth * int(length)
	}
	b.answers = make([]byte, n)
	return b
}

func (b *batch) run(t testing.TB) {
	if _, err := b.c.Write(b.sent); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b.c, b.answers); err != nil {
		t.Fatal(err)
	}
}

// open starts a server for one client over a socket pair.
func open(t testing.TB, m *memory) *net.UnixConn {
	s := newServer(m.device("vol0"), patience)
	t.Cleanup(s.Close)
	there, here := pair(t)
	t.Cleanup(func() { here.Close() })
	s.admit(there)
	newPeer(t, here).enter()
	return here
}

// openDisk starts a disk's life at a socket pair whose other end the test has
// in the kernel's place.
func openDisk(t testing.TB, m *memory) *net.UnixConn {
	_, here := startDisk(t, DiskConfig{Device: m.device("vol0"), Backend: "dst:vol0:1"})
	return here
}

// TestNoAllocations: in steady state a request costs no heap memory.
func TestNoAllocations(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, tt := range []struct {
		name   string
		cmd    uint16
		depth  int
		length uint32
	}{
		{"READ", cmdRead, 1, 4096},
		{"READ, 16 deep", cmdRead, 16, 4096},
		{"READ of 64 KiB", cmdRead, 2, 64 << 10},
		{"WRITE", cmdWrite, 1, 4096},
		{"WRITE, 16 deep", cmdWrite, 16, 4096},
		{"WRITE of 64 KiB", cmdWrite, 2, 64 << 10},
		{"invalid", 9, 16, 4096},
	} {
		for how, open := range map[string]func(testing.TB, *memory) *net.UnixConn{"inline": open, "later": open, "kernel": openDisk} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				m := newMemory(t, 16, 16*testMax)
				m.inline = how == "inline"
				b := newBatch(open(t, m), tt.cmd, tt.depth, tt.length)
				for range 100 {
					b.run(t)
				}
				if n := testing.AllocsPerRun(500, func() { b.run(t) }); n != 0 {
					t.Errorf("%v allocations for %d requests", n, tt.depth)
				}
			})
		}
	}
}

// BenchmarkServer is what the socket half costs: a client that pipelines, and
// a device that answers at once.
func BenchmarkServer(b *testing.B) {
	for _, bb := range []struct {
		name   string
		cmd    uint16
		depth  int
		length uint32
	}{
		{"READ4K/1", cmdRead, 1, 4096},
		{"READ4K/16", cmdRead, 16, 4096},
		{"READ4K/64", cmdRead, 64, 4096},
		{"WRITE4K/1", cmdWrite, 1, 4096},
		{"WRITE4K/16", cmdWrite, 16, 4096},
		{"WRITE4K/64", cmdWrite, 64, 4096},
		{"READ64K/8", cmdRead, 8, 64 << 10},
		{"WRITE64K/8", cmdWrite, 8, 64 << 10},
	} {
		b.Run(bb.name, func(b *testing.B) {
			m := newMemory(b, 128, 64*testMax)
			m.inline = true
			client := newBatch(open(b, m), bb.cmd, bb.depth, bb.length)
			b.SetBytes(int64(bb.length))
			b.ReportAllocs()
			for i := 0; i < b.N; i += bb.depth {
				client.run(b)
			}
		})
	}
}
