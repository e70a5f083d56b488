// Package genl serves a generic-netlink family from user space. It knows
// netlink messages, attributes, policies, acknowledgements, dumps, events and
// credentials; it knows nothing of what the family is for.
//
// Only the kernel can register a family with its own controller, so a Server
// owns a fixed port id, answers CTRL_CMD_GETFAMILY there by itself, and clients
// address that port instead of port 0 (libnl: nl_socket_set_peer_port).
//
//	sock, err := genl.Listen(port)               // EADDRINUSE names the holder
//	srv, err := genl.New(sock, genl.Family{
//		Name: "x", ID: 0x3f0, Version: 1, MaxAttr: 7,
//		Ops: map[uint8]genl.Op{
//			cmdGet: {Do: get, Policy: getPolicy, Need: []uint16{attrName}, Dump: dump, Admin: true},
//		},
//		Stamp: stamp, Overrun: cmdLost,      // only if there are events
//	})
//	go srv.Serve()                               // until Close
//	srv.Notify(cmdEvent, "vol0", attrs)          // any goroutine, never blocks
//	srv.Close()
//
// A handler is decode, act, encode:
//
//	func get(r *genl.Request) error {
//		a, _ := r.Attrs.Get(attrName)        // the policy has checked it
//		v, ok := find(a.String())
//		if !ok {
//			return genl.At(attrName, fmt.Errorf("node %q: %w", a.String(), unix.ENODEV))
//		}
//		r.Reply(v.encode)                    // sent if the handler returns nil
//		return nil
//	}
//
// A Dump handler takes a snapshot of names and calls Reply once a row; Reply
// then waits for a slow reader and returns an error, to be returned, once it
// gave up on it. A row is built when it is sent, so a dump of any size costs
// one datagram of memory.
//
// Order: the requests of one port are handled one after the other, by a
// goroutine that exists while there are any; other ports are not disturbed.
// Ports, queued requests, queued bytes and subscribers are bounded, and what is
// beyond a bound is refused with EBUSY or EUSERS. Non-root callers of an Admin
// operation are refused before one attribute is looked at.
//
// Formats: linux/netlink.h, linux/genetlink.h. The echo in an acknowledgement
// is the request's 16-byte header with nlmsg_len 16 and NLM_F_CAPPED, which
// libnl, mdlayher/netlink and the kernel's own tool all read, and which cannot
// repeat a secret of the request.
package genl
