package main

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dst/abi"
	"dst/dataplane/crypt"
)

// count is what became of the bad.
type count struct {
	Opened  int64 `json:"opened"`
	Closed  int64 `json:"closed"`  // by the export
	Stayed  int64 `json:"stayed"`  // longer than any handshake may
	Failed  int64 `json:"failed"`  // to connect at all
	Longest int64 `json:"longest"` // milliseconds that one could stay
}

// bitter is how long a bad client waits for its end.
const bitter = 15 * time.Second

// kinds are the ways to be bad: what is done with the connection before it is
// read until the export closes it.
var kinds = []func(s *siege, c net.Conn){
	func(*siege, net.Conn) {}, // silent
	func(_ *siege, c net.Conn) { // a byte every 4 s of what could become a handshake
		head := make([]byte, abi.HeaderSize)
		(&abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello}).Put(head)
		for i := range head {
			if _, err := c.Write(head[i : i+1]); err != nil || !waits(c, 4*time.Second) {
				return
			}
		}
	},
	(*siege).strange,
	func(_ *siege, c net.Conn) {
		_, _ = c.Write(garbage[mathrand.IntN(len(garbage)/2):]) // the export closes before it is all taken
	},
}

// garbage is made once: what a stranger spends on it is not the export's, and
// here it would be taken from the same processors.
var garbage = func() []byte {
	b := make([]byte, 64<<10)
	_, _ = rand.Read(b) // never fails
	return b
}()

// strange comes with a wrong key, or for an export that is not there.
func (s *siege) strange(c net.Conn) {
	if s.key != nil {
		_, _ = s.secure(c, s.wrong)
		return
	}
	k := &client{Stream: c, digest: crypt.DigestCRC32C}
	_ = k.greet(&siege{export: "another"})
}

// waits reads for so long; false if the connection has ended before.
func waits(c net.Conn, d time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(d))
	var b [256]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// attack lets all the bad ones come, at their rate, and waits for the last.
func (s *siege) attack() (n count) {
	var all sync.WaitGroup
	var longest atomic.Int64
	from, begin := s.sources(), time.Now()
	for i := range s.bad {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(s.rate)))) // the rate of the attack
		all.Go(func() {
			start := time.Now()
			c, err := s.dial(from[i%len(from)])
			if err != nil {
				atomic.AddInt64(&n.Failed, 1)
				return
			}
			defer func() { _ = c.Close() }()
			atomic.AddInt64(&n.Opened, 1)
			_ = c.SetDeadline(start.Add(bitter))
			kinds[i%len(kinds)](s, c)
			if waits(c, bitter) {
				atomic.AddInt64(&n.Stayed, 1)
				return
			}
			atomic.AddInt64(&n.Closed, 1)
			for took, most := time.Since(start).Milliseconds(), longest.Load(); took > most && !longest.CompareAndSwap(most, took); {
				most = longest.Load()
			}
		})
	}
	all.Wait()
	n.Longest = longest.Load()
	return n
}

// sources are the addresses of the bad, without the first and the last of a
// prefix, which hosts do not have.
func (s *siege) sources() (all []netip.Addr) {
	for a := s.from.Masked().Addr(); s.from.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	if len(all) > 2 {
		all = slices.Delete(all, 0, 1)
		all = all[:len(all)-1]
	}
	return all
}
