package connector

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

// pipe is a genl.Conn whose one client is a test.
type pipe struct {
	in   chan genl.Datagram
	out  chan []byte
	ends chan struct{}
	buf  []byte // Serve's
}

func newPipe() *pipe {
	return &pipe{in: make(chan genl.Datagram), out: make(chan []byte, 2), ends: make(chan struct{})}
}

// datagram is b as root sends it.
func datagram(b []byte) genl.Datagram {
	return genl.Datagram{Data: b, Size: len(b), Port: 1234, Cred: &unix.Ucred{}}
}

func (p *pipe) Recv(buf []byte) (genl.Datagram, error) {
	p.buf = buf
	select {
	case g := <-p.in:
		g.Data = buf[:copy(buf, g.Data)]
		return g, nil
	case <-p.ends:
		return genl.Datagram{}, os.ErrDeadlineExceeded
	}
}

func (p *pipe) Send(_ uint32, b []byte) error {
	if p.out != nil {
		p.out <- b
	}
	return nil
}

func (p *pipe) SetReadDeadline(time.Time) error { close(p.ends); return nil }
func (p *pipe) Close() error                    { return nil }

// TestUnknownSender: without a port or credentials there is no answer.
func TestUnknownSender(t *testing.T) {
	p, conn := newFake("vol0"), newPipe()
	d := New(p, conn, zerolog.Nop())
	served := make(chan error, 1)
	go func() { served <- d.Serve() }()
	nobody, kernel := datagram(start("vol0").frame(1)), datagram(start("vol0").frame(2))
	nobody.Cred, kernel.Port = nil, 0
	conn.in <- nobody
	conn.in <- kernel
	conn.in <- datagram(start("vol0").frame(3))
	if b := <-conn.out; host.Uint32(b[8:]) != 3 {
		t.Errorf("request %d was answered", host.Uint32(b[8:]))
	}
	if err := errors.Join(d.Close(), <-served); err != nil {
		t.Error(err)
	}
	if calls := p.taken(); len(calls) != 1 {
		t.Errorf("the plane did %+v", calls)
	}
}

// FuzzDoor sends any datagram and then a request that is right: the first one
// gets at most one answer, of 52 bytes, and must not keep the door from
// answering the second, nor add a node with a bad name or a rule that is none.
func FuzzDoor(f *testing.F) {
	seeds, err := filepath.Glob("../../abi/testdata/cn-*.hex")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no golden bytes: %v", err)
	}
	for _, name := range seeds {
		f.Add(golden(f, strings.TrimSuffix(filepath.Base(name), ".hex")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, conn := newFake("disk0"), newPipe()
		d := New(p, conn, zerolog.Nop())
		served := make(chan error, 1)
		go func() { served <- d.Serve() }()
		conn.in <- datagram(b)
		conn.in <- datagram(start("mark").frame(0x600d))
		if err := errors.Join(d.Close(), <-served); err != nil { // both are answered then
			t.Error(err)
		}
		close(conn.out)
		var answers [][]byte
		for a := range conn.out {
			answers = append(answers, a)
			if len(a) != 52 || !bytes.Equal(a[40:], make([]byte, 12)) {
				t.Errorf("answer % x", a)
			}
		}
		if n := len(answers); n == 0 || host.Uint32(answers[n-1][8:]) != 0x600d {
			t.Errorf("the second request has no answer: % x", answers)
		}
		for _, c := range p.taken() {
			if err := abi.ValidName(c.name); err != nil {
				t.Error(err)
			}
			if c.method == "AddRule" && c.rule.Perm != abi.PermWrite && c.rule.Check() != nil {
				t.Errorf("%+v: %v", c.rule, c.rule.Check())
			}
		}
		if !bytes.Equal(conn.buf, make([]byte, len(conn.buf))) {
			t.Error("the request is left in the buffer")
		}
	})
}
