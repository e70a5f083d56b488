package conn_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
)

// TestSecureSlowLine: the parts of a large record on a slow line are signs of life,
// though nothing of them is shown; drops of one are none, or whoever holds the line
// could make a dead peer live for days.
func TestSecureSlowLine(t *testing.T) {
	const large = 64 << 10
	a, b := conntest.SockPair(t)
	line := &tampered{Stream: a, at: -1}
	sa, sb := conntest.Secure(t, line, b, suite(t, "", ""), nil)
	defer sa.Free()
	defer sb.Free()
	for _, s := range []*conn.Secure{sa, sb} {
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	said := bytes.Repeat([]byte("slow"), large/4)
	from := len(line.tape)
	line.Stream = devNull{a}
	write(t, sa, said)
	record := line.tape[from:]

	in := conn.NewIn(sb, make([]byte, large))
	heard := make([]byte, len(said))
	whole := make(chan error, 1)
	go func() { whole <- in.ReadFull(heard) }()
	for n := 0; n < 2048; n++ { // drops
		write(t, a, record[n:n+1])
	}
	if lives := in.Frames(); lives > 1 {
		t.Errorf("%d signs of life of 2048 drops", lives)
	}
	for rest := record[2048:]; len(rest) > 8<<10; rest = rest[8<<10:] {
		was := in.Frames()
		write(t, a, rest[:8<<10])
		for late := time.After(5 * time.Second); in.Frames() == was; {
			select {
			case <-late:
				t.Fatalf("no sign of life with %d bytes to come", len(rest))
			case err := <-whole:
				t.Fatalf("shown before it was whole: %v", err)
			case <-time.After(time.Millisecond):
			}
		}
		record = rest[8<<10:]
	}
	write(t, a, record)
	if err := <-whole; err != nil || !bytes.Equal(heard, said) {
		t.Fatal(err)
	}
	_ = a.Close()
	if err := in.ReadFull(heard[:1]); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
}
