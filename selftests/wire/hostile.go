package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dst/abi"
)

// hostile is what a bad client does with its connection until it is closed or the time is over.
var hostile = map[string]func(c *conn, export string) error{
	// says nothing at all
	"silent": func(*conn, string) error { return nil },
	// sends its HELLO byte by byte, and never the last
	"trickle": func(c *conn, export string) error {
		b := seal(digest, abi.Header{Cmd: abi.MsgHello, Size: 500}, make([]byte, 400))
		if err := c.mark(); err != nil {
			return err
		}
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	},
	// sends what is no frame, or announces what it never sends
	"garbage": func(c *conn, _ string) error {
		b := make([]byte, 64<<10)
		_, _ = rand.Read(b)
		return drown(c, b)
	},
	"huge": func(c *conn, export string) error {
		if err := c.greet(export, abi.PermRead); err != nil {
			return err
		}
		return c.send(abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, Size: 1<<32 - 1}, nil)
	},
	// is welcomed, and never speaks again
	"mute": func(c *conn, export string) error { return c.greet(export, abi.PermRead) },
	// asks for more and more and reads no answer
	"flood": func(c *conn, export string) error {
		if err := c.greet(export, abi.PermRead); err != nil {
			return err
		}
		return drown(c, seal(digest, abi.Header{Cmd: abi.MsgIO, Size: c.welcome.MaxSize}, nil))
	},
	"pings": func(c *conn, export string) error {
		if err := c.greet(export, abi.PermRead); err != nil {
			return err
		}
		return drown(c, seal(digest, abi.Header{Cmd: abi.MsgPing, Size: uint32(digest.Size())}, nil))
	},
	// says in the middle of a request that it has said all
	"half": func(c *conn, export string) error {
		if err := c.greet(export, abi.PermRead); err != nil {
			return err
		}
		if _, err := c.Write(seal(digest, abi.Header{Cmd: abi.MsgIO, Size: 4096}, nil)[:20]); err != nil {
			return err
		}
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite()
		}
		return nil
	},
}

// drown sends the same bytes for ever.
func drown(c *conn, b []byte) error {
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// kinds are the names of what can be done, sorted.
func kinds() (names []string) {
	for name := range hostile {
		names = append(names, name)
	}
	slices.Sort(names)
	return append(names, "all")
}

// besiege keeps n connections of a kind (or of all kinds) at an export for that time, each replaced as soon as it is closed, and
// prints how many there were and how many of them the export closed or refused.
func besiege(kind string, n int, span time.Duration, addr, export string) error {
	if hostile[kind] == nil && kind != "all" {
		return fmt.Errorf("no such kind %q: want one of %v", kind, kinds())
	}
	var opened, closed atomic.Int64
	var all sync.WaitGroup
	names := kinds()
	end := time.Now().Add(span)
	for i := range n {
		one := kind
		if kind == "all" {
			one = names[i%(len(names)-1)]
		}
		all.Go(func() {
			for time.Now().Before(end) {
				c, err := dial(addr)
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				opened.Add(1)
				_ = c.SetDeadline(end)
				if misbehave(c, hostile[one], export) {
					closed.Add(1)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	fmt.Printf("%s: %d connections, %d closed by the export\n", kind, opened.Load(), closed.Load())
	return nil
}

// misbehave does it and, if that has an end, waits until the connection is closed; false if the time was over first.
func misbehave(c *conn, how func(*conn, string) error, export string) bool {
	err := how(c, export)
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	timeout, ok := err.(net.Error)
	return !ok || !timeout.Timeout()
}
