// Command spoof sends the daemon a request that removes a node, in all ways in which a process can pretend to be somebody who may.
//
//	spoof [-uid N] NAME    prints a line for each way: the door, the way, and the error or "sent"
//
// Both doors are tried: generic netlink, and the connector of the original driver. With -uid the sockets are opened, and connected, by
// who started it, and used by that user, to whom they were handed down.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// attempt is a socket, and what will be sent over it, and how.
type attempt struct {
	door, way string
	fd        int
	err       error // of what was done with it by who opened it
	send      func(fd int, message []byte) error
	message   []byte
}

func main() {
	uid := flag.Int("uid", -1, "the user who sends")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	name := flag.Arg(0)
	all := append(attempts("genl", unix.NETLINK_GENERIC, frame(abi.FamilyID, genlDel(name))),
		attempts("connector", unix.NETLINK_CONNECTOR, frame(unix.NLMSG_DONE, legacyDel(name)))...)
	if *uid >= 0 {
		must(syscall.Setuid(*uid)) // of all threads, which lose their capabilities
	}
	for _, a := range all {
		err, said := a.err, "sent"
		if err == nil {
			err = a.send(a.fd, a.message)
		}
		if err != nil {
			said = unix.ErrnoName(err.(unix.Errno))
		}
		fmt.Println(a.door, a.way, said)
	}
}

// attempts opens a socket for each way to send that message to the daemon.
func attempts(door string, protocol int, message []byte) (all []attempt) {
	daemon := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: abi.Port}
	group := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (abi.CnIdx - 1)}
	for _, a := range []attempt{
		{way: "connected", send: func(fd int, message []byte) error {
			_, err := unix.Write(fd, message)
			return err
		}},
		{way: "sendto", send: func(fd int, message []byte) error { return unix.Sendto(fd, message, 0, daemon) }},
		{way: "credentials", send: func(fd int, message []byte) error { // those of root
			return unix.Sendmsg(fd, message, unix.UnixCredentials(&unix.Ucred{Pid: 1}), daemon, 0)
		}},
		{way: "multicast", send: func(fd int, message []byte) error { return unix.Sendto(fd, message, 0, group) }},
	} {
		var err error
		a.door, a.message = door, message
		a.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		must(err)
		if a.way == "connected" {
			a.err = unix.Connect(a.fd, daemon)
		}
		all = append(all, a)
	}
	return all
}

// frame is a netlink message of that type, see netlink(7).
func frame(kind uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return append(append(b, make([]byte, 8)...), payload...)
}

// genlDel is a del-node behind a generic netlink header.
func genlDel(name string) []byte {
	b, err := abi.Marshal(&abi.Del{Name: name, Flags: abi.DelFlagForce})
	must(err)
	return append([]byte{abi.CmdDelNode, abi.FamilyVersion, 0, 0}, b...)
}

// legacyDel is a DEL_NODE of the original driver's tools.
func legacyDel(name string) []byte {
	ctl, err := (&abi.Ctl{Name: name, Cmd: abi.CtlDelNode}).Append(nil)
	must(err)
	head := abi.CnMsg{Idx: abi.CnIdx, Val: abi.CnVal, Seq: 1, Len: uint16(len(ctl))}
	return append(head.Append(nil), ctl...)
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
