package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// Options say where the daemon is. The zero value is right for most callers.
type Options struct {
	NetNS   string        // network namespace: a path, or a name of iproute2; "" = that of the calling thread
	Timeout time.Duration // without an answer, for contexts without a deadline; 0 = 5 s
	Port    uint32        // of the daemon, for tests; 0 = abi.Port
}

const defaultTimeout = 5 * time.Second

// Client is a connection to the daemon of one network namespace.
type Client struct {
	options Options
	sock    *socket
	conn    *genetlink.Conn
	family  uint16

	mu sync.Mutex // one call at a time: guards conn and, but for its Close, sock
}

// Dial connects to the daemon and asks it for its family.
// Errors: ErrNoDaemon; EPERM if the caller is not root; ETIMEDOUT; EOPNOTSUPP
// for a daemon with another control interface.
func Dial(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Port == 0 {
		o.Port = abi.Port
	}
	sock, err := openIn(o.NetNS, o.Port)
	if err != nil {
		return nil, refusal(err, nil)
	}
	c := &Client{options: o, sock: sock, conn: genetlink.NewConn(netlink.NewConn(sock, sock.port))}
	if err := c.findFamily(context.Background()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the connection and every call that waits. Any goroutine may call it.
func (c *Client) Close() error { return c.sock.Close() }

// findFamily asks who is there: who has the daemon's port and is not allowed to
// send cannot answer. Since Dial it may be another process.
func (c *Client) findFamily(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sock.wait(ctx, c.options.Timeout)
	f, err := c.conn.GetFamily(abi.FamilyName)
	switch {
	case err != nil:
		return refusal(err, nil)
	case f.Name != abi.FamilyName || f.ID < unix.NLMSG_MIN_TYPE:
		return badMessage
	case f.Version < abi.FamilyVersion:
		return &Error{Errno: unix.EOPNOTSUPP,
			Msg: fmt.Sprintf("this dstd has version %d of the control interface, %d is needed: start the dstd of this version", f.Version, abi.FamilyVersion)}
	}
	c.family = f.ID
	return nil
}

// call sends one request and returns the attributes of its answers. What it
// encoded is erased.
func (c *Client) call(ctx context.Context, cmd uint8, flags netlink.HeaderFlags, req abi.Message) ([][]byte, error) {
	var attrs []byte
	if req != nil {
		var err error
		if attrs, err = abi.Marshal(req); err != nil {
			return nil, err
		}
		defer clear(attrs)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sock.wait(ctx, c.options.Timeout)
	m := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: abi.FamilyVersion}, Data: attrs}
	answers, err := c.conn.Execute(m, c.family, netlink.Request|flags)
	if err != nil {
		if errors.Is(err, os.ErrClosed) {
			return nil, os.ErrClosed
		}
		return nil, refusal(err, attrs)
	}
	rows := make([][]byte, 0, len(answers))
	for _, a := range answers {
		if a.Header.Command == cmd {
			rows = append(rows, a.Data)
		}
	}
	return rows, nil
}

// act sends a request that is only acknowledged.
func (c *Client) act(ctx context.Context, cmd uint8, req abi.Message) error {
	_, err := c.call(ctx, cmd, netlink.Acknowledge, req)
	return err
}

// ask sends a request that has one answer.
func (c *Client) ask(ctx context.Context, cmd uint8, req, answer abi.Message) error {
	rows, err := c.call(ctx, cmd, 0, req)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return badMessage
	}
	return abi.Unmarshal(rows[0], answer)
}

// row is a Message that T is the value of.
type row[T any] interface {
	*T
	abi.Message
}

// list asks for a dump and decodes its rows.
func list[T any, P row[T]](ctx context.Context, c *Client, cmd uint8, req abi.Message) ([]P, error) {
	rows, err := c.call(ctx, cmd, netlink.Dump, req)
	if err != nil {
		return nil, err
	}
	all := make([]P, len(rows))
	for i, b := range rows {
		all[i] = new(T)
		if err := abi.Unmarshal(b, all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}
