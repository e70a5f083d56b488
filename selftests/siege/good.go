package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

const (
	block   = 4096
	blocks  = 256
	pause   = 5 * time.Millisecond // between the requests of a good client
	patient = 10 * time.Second     // an answer that takes longer is none
)

// client is one session, its frames made by hand.
type client struct {
	conn.Stream
	digest crypt.Digest
	id     uint64
	breaks int

	mu    sync.Mutex
	times []time.Duration
}

// dial connects from an address.
func (s *siege) dial(from netip.Addr) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patient}
	return d.Dial("tcp", s.addr)
}

// connect makes a session.
func (s *siege) connect(from netip.Addr) (*client, error) {
	c, err := s.dial(from)
	if err != nil {
		return nil, err
	}
	k := &client{Stream: c, digest: crypt.DigestCRC32C}
	if err = c.SetDeadline(time.Now().Add(patient)); err == nil {
		err = k.greet(s)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return k, nil
}

// greet is the handshake: a mark, or a secure channel, then HELLO and WELCOME.
func (c *client) greet(s *siege) (err error) {
	hello := abi.Hello{Export: s.export, Epoch: 1, Mode: abi.PermRW, Keepalive: 1000, Digest: c.digest.Name()}
	_, _ = rand.Read(hello.ClientID[:]) // never fails
	after := c.digest
	if s.key != nil {
		after = crypt.DigestNone
		hello.Digest = after.Name()
		c.Stream, err = s.secure(c.Stream, s.key)
	} else {
		err = c.mark()
	}
	if err == nil {
		err = c.send(abi.Header{Cmd: abi.MsgHello}, hello.Append(nil))
	}
	for err == nil {
		var h abi.Header
		if h, _, err = c.receive(); err == nil && h.Cmd == abi.MsgWelcome {
			c.digest = after
			return nil
		}
		if err == nil && h.Cmd != abi.MsgDraining {
			err = fmt.Errorf("%v instead of WELCOME", h.Cmd)
		}
	}
	return err
}

// mark sends the mark of a plain client and takes the answer.
func (c *client) mark() error {
	b := make([]byte, abi.HeaderSize)
	(&abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello}).Put(b)
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// send sends a frame; Size, unless it is set, is that of the data.
func (c *client) send(h abi.Header, data []byte) error {
	h.CSize = uint32(c.digest.Size())
	if h.Size == 0 {
		h.Size = h.CSize + uint32(len(data))
	}
	head := make([]byte, abi.HeaderSize+c.digest.Size(), abi.HeaderSize+c.digest.Size()+len(data))
	h.Put(head)
	c.digest.Seal(head, data)
	_, err := c.Write(append(head, data...))
	return err
}

// receive takes a frame.
func (c *client) receive() (h abi.Header, data []byte, err error) {
	head := make([]byte, abi.HeaderSize+c.digest.Size())
	if _, err = io.ReadFull(c, head); err != nil {
		return h, nil, err
	}
	h.Parse(head)
	if err = h.Check(uint32(c.digest.Size()), abi.MaxRequest); err != nil {
		return h, nil, err
	}
	data = make([]byte, h.Payload())
	if _, err = io.ReadFull(c, data); err == nil {
		err = c.digest.Check(head, data)
	}
	return h, data, err
}

// ask reads or writes block n and waits for the answer.
func (c *client) ask(n uint64, write bool) error {
	c.id++
	h, data := abi.Header{Cmd: abi.MsgIO, ID: c.id, Sector: n * block / abi.SectorSize, Size: block}, []byte(nil)
	if write {
		h.RW, h.Size, data = abi.RWWrite, 0, make([]byte, block)
	}
	if err := c.send(h, data); err != nil {
		return err
	}
	for {
		h, _, err := c.receive()
		switch {
		case err != nil:
			return err
		case h.Cmd == abi.MsgPing:
			if err := c.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil); err != nil {
				return err
			}
		case h.ID == c.id && h.Errno() == 0:
			return nil
		default:
			return fmt.Errorf("answer %+v", h)
		}
	}
}

// work asks for a block now and then, in turn for reading and writing, and notes
// how long it took. Started by run. Owns c. Ends when stop is closed; a client
// whose link is cut comes back at once.
func (s *siege) work(c *client, n uint64, stop <-chan struct{}) {
	defer func() { _ = c.Close() }()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		n = (n*5 + 1) % blocks
		start := time.Now()
		_ = c.SetReadDeadline(start.Add(patient))
		_ = c.SetWriteDeadline(start.Add(patient))
		for c.ask(n, n%2 == 1) != nil {
			c.breaks++
			_ = c.Close()
			if k, err := s.connect(s.at); err == nil {
				c.Stream, c.digest = k.Stream, k.digest
				continue
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
		c.mu.Lock()
		c.times = append(c.times, time.Since(start))
		c.mu.Unlock()
	}
}

// take is what was noted since it was called last.
func (c *client) take() (times []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	times, c.times = c.times, nil
	return times
}

// visit is what somebody feels who comes while the siege lasts.
type visit struct {
	Served  int `json:"served"`
	Refused int `json:"refused"`
	WorstMS int `json:"worst_ms"` // from the first try until served
	P50MS   int `json:"p50_ms"`
}

// visits comes, reads a block and goes, until the siege is over. Who is refused
// tries again after a moment, as a remote does.
func (s *siege) visits(over <-chan struct{}) (v visit) {
	var waits felt
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	first := time.Now()
	for {
		c, err := s.connect(s.at)
		if err == nil {
			err = c.ask(1, false)
			_ = c.Close()
		}
		if err == nil {
			v.Served++
			waits.add([]time.Duration{time.Since(first)})
		} else {
			v.Refused++
		}
		select {
		case <-over:
			waits.sum()
			v.P50MS, v.WorstMS = waits.P50/1000, waits.Max/1000
			return v
		case <-tick.C:
		}
		if err == nil {
			first = time.Now()
		}
	}
}
