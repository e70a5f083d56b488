// Command wire is a client of an export that speaks the wire by hand, for what a good client never does.
//
//	wire ADDR EXPORT ro|rw      sends what stdin says, a line each, and prints what came of it
//	wire ADDR NAME nbd          the same, as an NBD client of "attach socket"
//	wire -sniff > FILE          what crosses the network namespace's interfaces, until SIGTERM (see sniff.go)
//	wire -hostile KIND -n N -for TIME ADDR EXPORT    N connections at a time that misbehave (see hostile.go)
//
// Lines of stdin: read OFFSET LENGTH | write OFFSET LENGTH BYTE | discard OFFSET LENGTH | zeroes OFFSET LENGTH | flush | ping.
// Offsets are given in bytes and sent in sectors of 512. Each line gets one of: "ok" (a read: and its first byte),
// an errno's name, or "closed" if the other end closed the connection.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

func main() {
	kind := flag.String("hostile", "", "misbehave: "+strings.Join(kinds(), ", "))
	n := flag.Int("n", 64, "that many connections at a time")
	span := flag.Duration("for", 5*time.Second, "for so long")
	tap := flag.Bool("sniff", false, "copy what crosses the interfaces to stdout")
	flag.Parse()
	var err error
	switch {
	case *tap && flag.NArg() == 0:
		err = sniff(os.Stdout)
	case *kind != "" && flag.NArg() == 2:
		err = besiege(*kind, *n, *span, flag.Arg(0), flag.Arg(1))
	case *kind == "" && flag.NArg() == 3:
		err = talk(flag.Arg(0), flag.Arg(1), flag.Arg(2))
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

// request is what one line of stdin asks for.
type request struct {
	word           string
	offset, length uint64
	fill           byte
}

// data is what a write sends.
func (r *request) data() []byte {
	if r.word != "write" {
		return nil
	}
	return bytes.Repeat([]byte{r.fill}, int(r.length))
}

// talker is a session of either protocol. do's error means that it ended.
type talker interface {
	do(r *request) (answer string, err error)
	bye() error
}

// talk is a whole session, led by stdin.
func talk(addr, name, mode string) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var t talker = c
	switch mode {
	case "ro":
		err = c.greet(name, abi.PermRead)
	case "rw":
		err = c.greet(name, abi.PermRW)
	case "nbd":
		t, err = greetNBD(c.Conn, name)
	default:
		err = fmt.Errorf("mode %q: want ro, rw or nbd", mode)
	}
	if err != nil {
		return err
	}
	fmt.Println("welcome", c.welcome.Mode)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r request
		_, _ = fmt.Sscan(in.Text(), &r.word, &r.offset, &r.length, &r.fill)
		answer, err := t.do(&r)
		if err != nil {
			fmt.Println("closed")
			return nil
		}
		fmt.Println(answer)
	}
	return t.bye()
}

// said is what an answer with that errno and data is printed as.
func said(errno unix.Errno, data []byte) string {
	switch {
	case errno != 0:
		return unix.ErrnoName(errno)
	case len(data) > 0:
		return fmt.Sprint("ok ", data[0])
	}
	return "ok"
}

// do sends a request and waits for its answer.
func (c *conn) do(r *request) (string, error) {
	c.id++
	h := abi.Header{ID: c.id, Sector: r.offset / abi.SectorSize, Size: uint32(r.length)}
	switch r.word {
	case "read":
		h.Cmd = abi.MsgIO
	case "write":
		h.Cmd, h.RW, h.Size = abi.MsgIO, abi.RWWrite, 0
	case "discard":
		h.Cmd = abi.MsgDiscard
	case "zeroes":
		h.Cmd = abi.MsgWriteZeroes
	case "flush":
		h.Cmd = abi.MsgFlush
	case "ping":
		h.Cmd = abi.MsgPing
	default:
		return "not understood", nil
	}
	if err := c.send(h, r.data()); err != nil {
		return "", err
	}
	return c.answer()
}

func (c *conn) bye() error { return c.send(abi.Header{Cmd: abi.MsgBye}, nil) }

// answer waits for what answers the newest request, and answers PINGs meanwhile.
func (c *conn) answer() (string, error) {
	for {
		h, data, err := c.recv(digest)
		switch {
		case err != nil:
			return "", err
		case h.Cmd == abi.MsgPing:
			if err := c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil); err != nil {
				return "", err
			}
		case h.ID != c.id:
			return "", fmt.Errorf("answer to %d instead of %d", h.ID, c.id)
		default:
			return said(h.Errno(), data), nil
		}
	}
}
