package controlplane

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

// pipe is a genl.Conn whose one client is a test.
type pipe struct {
	in   chan []byte
	out  chan []byte
	ends chan struct{}
}

func (p *pipe) Recv(buf []byte) (genl.Datagram, error) {
	select {
	case b := <-p.in:
		return genl.Datagram{Data: buf[:copy(buf, b)], Size: len(b), Port: 1234, Cred: &unix.Ucred{}}, nil
	case <-p.ends:
		return genl.Datagram{}, os.ErrDeadlineExceeded
	}
}

func (p *pipe) Send(_ uint32, b []byte) error {
	p.out <- append([]byte(nil), b...)
	return nil
}

func (p *pipe) SetReadDeadline(time.Time) error { close(p.ends); return nil }
func (p *pipe) Close() error                    { return nil }

// FuzzDoor sends any request and then one that is right: the first one must not
// keep the door from answering the second, nor add a node with a bad name.
func FuzzDoor(f *testing.F) {
	golden, err := filepath.Glob("../abi/testdata/genl-*.hex")
	if err != nil || len(golden) == 0 {
		f.Fatalf("no golden bytes: %v", err)
	}
	for _, name := range golden {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		b, err := hex.DecodeString(digits.String())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	plane, conn := newFake(), &pipe{make(chan []byte), make(chan []byte), make(chan struct{})}
	d, err := New(plane, conn)
	if err != nil {
		f.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- d.Serve() }()
	f.Cleanup(func() {
		if err := d.Close(); err != nil {
			f.Error(err)
		}
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	const mark = 0x600d
	good := message(abi.FamilyID, unix.NLM_F_REQUEST, abi.CmdSys, nil)
	binary.NativeEndian.PutUint32(good[8:], mark)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 12 && binary.NativeEndian.Uint32(b[8:]) == mark {
			return
		}
		go func() {
			conn.in <- b
			conn.in <- good
		}()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case answer := <-conn.out:
				if binary.NativeEndian.Uint32(answer[8:]) != mark {
					continue
				}
			case <-deadline:
				t.Fatal("the door does not answer any more")
			}
			break
		}
		for _, name := range plane.Names() {
			if err := abi.ValidName(name); err != nil {
				t.Fatal(err)
			}
			_ = plane.Del(name, true)
		}
	})
}
