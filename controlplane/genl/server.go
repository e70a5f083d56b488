package genl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is the datagram socket of a Server: a *Socket, or a fake in tests.
// Recv is called by one goroutine, Send by many.
type Conn interface {
	// Recv waits for one datagram and puts it into buf.
	Recv(buf []byte) (Datagram, error)
	// Send never waits. Errors: EAGAIN if port does not read, ECONNREFUSED if
	// nobody is there.
	Send(port uint32, b []byte) error
	// SetReadDeadline ends a waiting Recv with os.ErrDeadlineExceeded.
	SetReadDeadline(t time.Time) error
	Close() error
}

// Datagram is what Recv returns.
type Datagram struct {
	Data []byte      // what fitted the buffer
	Size int         // bytes that were sent; more than len(Data) if it was cut
	Port uint32      // of the sender, told by the kernel
	Cred *unix.Ucred // of the sender, told by the kernel; nil if it was not
}

// Counts are totals since New.
type Counts struct {
	Requests    uint64 // taken for a handler
	Refused     uint64 // answered with an error before any handler
	Dropped     uint64 // datagrams or rests of them that cannot be answered
	Lost        uint64 // events that subscribers did not get
	Subscribers int    // at this moment
}

const maxRequest = 1 << 16 // bytes of a datagram

// Server serves one Family on one Conn.
type Server struct {
	conn     Conn
	families map[uint16]*Family
	family   *Family

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // Serve, the goroutines of lines, the teller

	mu     sync.Mutex // guards what follows; nothing waits while holding it
	closed bool
	lines  map[uint32]*line // by port
	events events

	requests, refused, dropped, lost atomic.Uint64
}

// New makes a server of f on c, which it owns from now on, Close included.
// Errors: EINVAL for a family that cannot be served; c is left open then.
func New(c Conn, f Family) (*Server, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultLimit
	}
	ctrl := controller(&f)
	ctrl.Limit = f.Limit
	s := &Server{
		conn: c, family: &f,
		families: map[uint16]*Family{f.ID: &f, ctrl.ID: ctrl},
		lines:    map[uint32]*line{},
		events:   events{subs: map[uint32]*subscriber{}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve receives and dispatches requests until Close, then returns nil.
// It is called once. Errors: those of the socket; the server is deaf then.
func (s *Server) Serve() error {
	if !s.enter() {
		return nil
	}
	defer s.wg.Done()
	buf := make([]byte, maxRequest)
	for {
		d, err := s.conn.Recv(buf)
		switch {
		case err == nil:
			s.receive(d)
			clear(d.Data)
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // something was dropped, the socket lives
			s.dropped.Add(1)
		default:
			return fmt.Errorf("netlink socket: %w", err)
		}
	}
}

// Close ends Serve, tells running handlers by their Context to end, answers
// queued requests with ESHUTDOWN, waits for all of it, and closes the Conn.
// Not to be called by a handler: it waits for that handler.
func (s *Server) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		s.wg.Wait()
		return nil
	}
	s.cancel()
	err := s.conn.SetReadDeadline(time.Unix(1, 0)) // Serve wakes; answers can still be sent
	s.wg.Wait()
	return errors.Join(err, s.conn.Close())
}

// enter counts a goroutine in, unless the server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lockedEnter()
}

func (s *Server) lockedEnter() bool {
	if !s.closed {
		s.wg.Add(1)
	}
	return !s.closed
}

// Counts returns the totals. Any goroutine may call it.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	n := len(s.events.subs)
	s.mu.Unlock()
	return Counts{s.requests.Load(), s.refused.Load(), s.dropped.Load(), s.lost.Load(), n}
}
