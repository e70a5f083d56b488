package connector

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

const maxMessage = 16384 // bytes of nlmsg_len (CONNECTOR_MAX_MSG_SIZE of linux/connector.h)

var host = binary.NativeEndian

// receive answers the first message of a datagram; the connector never looked
// at a second one, nor at type, flags and sequence of the nlmsghdr. What cannot
// be answered is dropped: without a sender, without credentials, with a length
// that lies, or for another user of the connector.
func (d *Door) receive(g genl.Datagram) {
	if g.Port == 0 || g.Cred == nil || len(g.Data) < unix.NLMSG_HDRLEN+abi.CnMsgSize {
		return
	}
	size := uint64(host.Uint32(g.Data))
	if size < unix.NLMSG_HDRLEN+abi.CnMsgSize || size > uint64(g.Size) {
		return
	}
	var m abi.CnMsg
	data, err := m.Parse(g.Data[unix.NLMSG_HDRLEN:min(size, uint64(len(g.Data)))])
	if m.Idx != abi.CnIdx || m.Val != abi.CnVal {
		return
	}
	switch {
	case g.Cred.Uid != 0:
		err = fmt.Errorf("only root may do this, not uid %d: %w", g.Cred.Uid, unix.EPERM)
	case size > maxMessage:
		err = fmt.Errorf("a request has at most %d bytes, not %d: %w", maxMessage, size, unix.EMSGSIZE)
	case err == nil:
		err = d.obey(data)
	}
	if err != nil {
		d.log.Info().Err(err).Msg("a request at the connector door was refused")
	}
	d.answer(g.Port, &m, err)
}

// answer acknowledges m to its sender and to nobody else, who may be gone: the
// original's tool waits for a second.
func (d *Door) answer(port uint32, m *abi.CnMsg, err error) {
	var errno unix.Errno
	if e := genl.Ack(err); e != nil {
		errno = e.Errno
	}
	const size = unix.NLMSG_HDRLEN + abi.CtlAckSize
	b := host.AppendUint32(make([]byte, 0, size), size)
	b = host.AppendUint16(b, unix.NLMSG_DONE)
	b = host.AppendUint16(b, 0)
	b = host.AppendUint32(b, m.Seq)
	b = host.AppendUint32(b, 0)
	if err := d.conn.Send(port, m.Answer(errno).Append(b)); err != nil {
		d.log.Debug().Err(err).Uint32("port", port).Msg("an answer of the connector door was not taken")
	}
}

// obey does what the request b asks for.
func (d *Door) obey(b []byte) error {
	var c abi.Ctl
	payload, err := c.Parse(b)
	if len(b) < abi.CtlSize || c.Cmd > abi.CtlStart {
		return err
	}
	cmd := commands[c.Cmd]
	if err == nil {
		err = cmd.do(d, &c, payload)
	}
	if err != nil {
		err = fmt.Errorf("%s %q: %w", cmd.name, c.Name, d.nameFirst(&c, cmd.adds, err))
	}
	return err
}

// nameFirst is why c is refused with err. The original looked for the node
// before it looked at anything else, so what is wrong with the name goes before
// what is wrong with the rest.
func (d *Door) nameFirst(c *abi.Ctl, adds bool, err error) error {
	switch exists := slices.Contains(d.plane.Names(), c.Name); {
	case exists && adds:
		return fmt.Errorf("the node exists: %w", unix.EEXIST)
	case !exists && !adds:
		return fmt.Errorf("there is no such node: %w", unix.ENODEV)
	}
	return err
}
