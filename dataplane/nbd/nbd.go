// Package nbd offers a device to clients of the NBD protocol: on a Unix socket,
// to as many as like (Listen).
//
// A request's road, all on the goroutine that reads its client's socket:
//
//  1. parse     28 bytes of what the last receive brought       client.transmit
//  2. check     against the device as it is now                 request.check
//  3. get       a transaction, waiting if there is none         client.get
//  4. payload   of a WRITE, from the socket into the arena      client.take
//  5. submit    and kick once when no request is left to parse  client.kick
//
// and back, on whatever goroutine completes it:
//
//  6. complete  the reply's head is built in the transaction    client.Complete
//  7. send      head and READ's data leave from where they lie  conn.Out
//  8. put       the transaction goes back to its reserve        answer.Sent
//
// No step allocates, and none but the third and the fourth waits: for the
// reserve, and for the client's own bytes. Nothing that waits is called under
// Server.mu.
package nbd

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

const (
	clientsMax = 64        // at once; one more is closed at accept
	bufferSize = 256 << 10 // receive buffer of a client, bytes
	sparesMax  = 4         // receive buffers kept for the next client

	patience = 5 * time.Second // how long clients that do not move may make others wait
	ticks    = 10              // looks at the clients in that time
	blame    = 8               // they are to blame if they hold one part in so many of what all hold
)

// Info is a device as it is at the moment.
type Info struct {
	Size                         uint64 // bytes
	BlockMin, BlockPref, MaxSize uint32 // bytes; BlockMin, a power of two, divides the others
	Features                     uint64 // abi.Feature…
	ReadOnly                     bool
}

// Device is what a Server offers. The functions are called by any goroutine.
type Device struct {
	Name    string
	Info    func() Info
	Reserve *trans.Reserve
	Submit  func(*trans.Trans) // takes it; its Front gets it back exactly once, perhaps before Submit returns
	Kick    func()             // sends what was submitted since
}

// Server offers one device on one socket.
type Server struct {
	dev      Device
	listener *conn.Listener
	stop     chan struct{}
	running  sync.WaitGroup // accept, watch, one serve a client

	mu      sync.Mutex // guards what follows
	clients map[*client]struct{}
	spares  [][]byte
	closed  bool
}

// Listen offers d on a Unix socket at path, which is absolute. The socket is
// for its owner only (0600): who may connect may read and write the device.
// Errors: EINVAL for the path, and what conn.ListenUnix says.
func Listen(path string, d Device) (*Server, error) { return listen(path, d, patience) }

func listen(path string, d Device, patience time.Duration) (*Server, error) {
	a, err := abi.ParseAddr("unix:"+path, nil)
	if err != nil {
		return nil, err
	}
	l, err := conn.ListenUnix(a.Path(), 0o600)
	if err != nil {
		return nil, err
	}
	s := newServer(d, patience)
	s.listener = l
	s.running.Go(s.accept)
	return s, nil
}

// newServer makes a server without a socket of its own.
func newServer(d Device, patience time.Duration) *Server {
	s := &Server{dev: d, stop: make(chan struct{}), clients: map[*client]struct{}{}}
	s.running.Go(func() { s.watch(patience / ticks) })
	return s
}

// accept lets clients in. Started by Listen. Ends when Close closes the
// listener.
func (s *Server) accept() {
	for {
		sock, _, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.admit(sock)
	}
}

// admit starts serving a client, or closes it: when there are too many, no
// memory for its buffer, or the server ends.
func (s *Server) admit(stream conn.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	buf := s.bufferLocked()
	if buf == nil {
		_ = stream.Close()
		return
	}
	c := newClient(&s.dev, stream, buf)
	if sock, ok := stream.(*conn.Sock); ok {
		if cred, err := sock.Cred(); err == nil {
			c.pid = cred.Pid
		}
	}
	s.clients[c] = struct{}{}
	s.running.Go(func() { s.serve(c, buf) })
}

// bufferLocked is a receive buffer for one more client, nil if there is to be
// none.
func (s *Server) bufferLocked() (buf []byte) {
	if s.closed || len(s.clients) == clientsMax {
		return nil
	}
	if n := len(s.spares); n > 0 {
		buf, s.spares = s.spares[n-1], s.spares[:n-1]
		return buf
	}
	buf, err := mempool.Pages(bufferSize)
	if err != nil {
		return nil
	}
	return buf
}

// serve is one client's life. Started by admit. Owns the client's reading half
// and its buffer. Ends when the client has left or was closed, and all its
// transactions are back in the reserve.
func (s *Server) serve(c *client, buf []byte) {
	c.run()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if len(s.spares) < sparesMax && !s.closed {
		s.spares = append(s.spares, buf)
		return
	}
	mempool.FreePages(buf)
}

// watch closes clients that hold what others wait for and do not move: neither
// take their answers nor send the rest of what they began. Nobody else is ever
// closed for being slow. Started by newServer. Ends when Close begins.
func (s *Server) watch(tick time.Duration) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		for _, c := range s.idlers() {
			c.close(unix.ETIMEDOUT)
		}
	}
}

// idlers is one look of watch: the clients to close.
func (s *Server) idlers() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	var idle, hungry []*client
	var all, kept int64
	for c := range s.clients {
		held := c.held.Load()
		all += held
		if stuck, starved := c.look(); stuck >= ticks {
			idle = append(idle, c)
			kept += held
		} else if starved >= ticks {
			hungry = append(hungry, c)
		}
	}
	if kept*blame < all { // it is the device that is slow
		return nil
	}
	return slices.DeleteFunc(idle, func(c *client) bool { return !slices.ContainsFunc(hungry, c.starves) })
}

// Clients is the number of clients, those in their handshake included.
func (s *Server) Clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// Hangup stops accepting and closes every client: what the device answers from
// here on reaches nobody. It does not wait, and Close must follow.
func (s *Server) Hangup() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	all := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		all = append(all, c)
	}
	spares := s.spares
	s.spares = nil
	s.mu.Unlock()
	if first {
		close(s.stop)
		if s.listener != nil {
			_ = s.listener.Close()
		}
	}
	for _, c := range all {
		c.close(unix.ESHUTDOWN)
	}
	for _, b := range spares {
		mempool.FreePages(b)
	}
}

// Close is Hangup, and waits until all transactions of the clients have come
// back: the caller must see to it that the device completes them. It may be
// called more than once.
func (s *Server) Close() {
	s.Hangup()
	s.running.Wait()
}
