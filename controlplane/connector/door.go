// Package connector is the door for configuration tools of the original driver:
// its binary commands over NETLINK_CONNECTOR, byte for byte (abi/connector.go).
// It asks the same Plane as controlplane does and decides nothing itself.
//
// A tool sends to the daemon's port, or to multicast group 6, and gets one
// answer, to itself alone: errno and nothing else. The sentence that goes with
// a refusal is in the daemon's log.
//
//	sock, err := connector.Listen()              // EADDRINUSE names the holder
//	door := connector.New(plane, sock, log)
//	go door.Serve()                              // until Close
//	door.Close()
//
// Order: all requests are handled one after the other, by the goroutine of
// Serve, as in the original. No command waits for a peer.
package connector

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane"
	"dst/controlplane/genl"
)

// Listen takes the daemon's port on NETLINK_CONNECTOR and joins the group, in
// the network namespace of the calling thread. The kernel lets only
// CAP_NET_ADMIN send there. Errors: EADDRINUSE, naming who holds the port;
// EPROTONOSUPPORT if the kernel was built without the connector.
func Listen() (*genl.Socket, error) {
	s, err := genl.ListenOn(unix.NETLINK_CONNECTOR, abi.Port, abi.CnIdx)
	if err != nil {
		return nil, fmt.Errorf("the connector door: %w", err)
	}
	return s, nil
}

// Door serves the original's commands.
type Door struct {
	plane controlplane.Plane
	conn  genl.Conn
	log   zerolog.Logger

	closed  atomic.Bool
	serving sync.Mutex // held by Serve
	close   sync.Once
}

// New makes a door to p on c, which it owns from now on: Listen's. Refusals are
// told to log: the answer has no room for a sentence.
func New(p controlplane.Plane, c genl.Conn, log zerolog.Logger) *Door {
	return &Door{plane: p, conn: c, log: log}
}

// Serve answers requests until Close, then returns nil. It is called once.
// Errors: the socket's; the door is deaf then.
func (d *Door) Serve() error {
	d.serving.Lock()
	defer d.serving.Unlock()
	buf := make([]byte, maxMessage)
	for !d.closed.Load() {
		g, err := d.conn.Recv(buf)
		switch {
		case err == nil:
			d.receive(g)
			clear(g.Data) // there may have been keys in it
		case d.closed.Load():
		case errors.Is(err, unix.ENOBUFS): // something was dropped, the socket lives
		default:
			return fmt.Errorf("the connector socket: %w", err)
		}
	}
	return nil
}

// Close ends Serve once the request in work is answered, and closes the socket.
func (d *Door) Close() (err error) {
	d.close.Do(func() {
		d.closed.Store(true)
		err = d.conn.SetReadDeadline(time.Unix(1, 0)) // Serve wakes; it can still answer
		d.serving.Lock()
		defer d.serving.Unlock()
		err = errors.Join(err, d.conn.Close())
	})
	return err
}
