// Package client is the caller's end of the control interface: what dstctl, the
// system tests and Go programs use to configure a dstd.
//
//	c, err := client.Dial(client.Options{})
//	err = c.AddExport(ctx, &abi.Node{Name: "vol0", Device: "/srv/vol0.img", Addrs: addrs})
//	err = c.Start(ctx, "vol0")
//	nodes, err := c.List(ctx)
//	w, err := c.Watch(ctx)               // what is, then what changes
//	for { u, err := w.Next(ctx); … }
//
// Dial asks GETFAMILY before anything secret is sent, and every datagram must
// come from the daemon's port and be sent by uid 0: the kernel lets nobody
// without CAP_NET_ADMIN send on NETLINK_GENERIC, so that a program which took the
// port can neither answer nor get a key. Before the bytes of a key it is asked
// again: the daemon may have ended since, and somebody else have its port.
//
// Every call ends: after 5 seconds without an answer, at the deadline of its
// context if that has one, or when the context is cancelled. Errors of the daemon
// are *Error, which unwrap to their errno; ErrNoDaemon means that nobody is
// there. All methods may be called by any goroutine; calls on one Client wait
// for each other.
package client
