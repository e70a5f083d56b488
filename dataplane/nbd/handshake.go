package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"

	"dst/dataplane/conn"
)

// What a client may cost before it is served.
const (
	handshakeTime = 10 * time.Second // from accept to transmission
	optionsMax    = 32               // options
	optionMax     = 8 << 10          // data of an option that is looked at, bytes
	optionDrain   = 256 << 10        // data of an option that is skipped and answered; more closes
)

// errLeft ends a handshake in which nobody did anything wrong.
var errLeft = errors.New("the client left")

// haggler is a client before transmission: it agrees on the export by the
// fixed newstyle handshake. One goroutine uses it, and nothing else writes to
// the stream meanwhile.
type haggler struct {
	s        conn.Stream
	in       *conn.In
	name     string
	info     func() Info
	noZeroes bool // the client wants none behind EXPORT_NAME's answer
	fixed    bool // the client knows options
	out      []byte
}

// run is the handshake from the first byte to the last before transmission. An
// error means that the connection must be closed.
func (h *haggler) run() error {
	deadline := time.Now().Add(handshakeTime)
	if err := errors.Join(h.s.SetReadDeadline(deadline), h.s.SetWriteDeadline(deadline)); err != nil {
		return err
	}
	if err := h.greet(); err != nil {
		return err
	}
	for range optionsMax {
		done, err := h.option()
		if err != nil {
			return err
		}
		if done {
			return errors.Join(h.s.SetReadDeadline(time.Time{}), h.s.SetWriteDeadline(time.Time{}))
		}
	}
	return fmt.Errorf("the client sent %d options and chose no export", optionsMax)
}

// greet is the first exchange ("Newstyle negotiation").
func (h *haggler) greet() error {
	be := binary.BigEndian
	h.out = be.AppendUint64(h.out[:0], protocol.NEGOTIATION_MAGIC_OLDSTYLE)
	h.out = be.AppendUint64(h.out, protocol.NEGOTIATION_MAGIC_OPTION)
	h.out = be.AppendUint16(h.out, flagFixedNewstyle|flagNoZeroes)
	if err := h.send(); err != nil {
		return err
	}
	b, err := h.in.Peek(4)
	if err != nil {
		return err
	}
	flags := be.Uint32(b)
	h.in.Skip(4)
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("the client set unknown flags %#x", flags)
	}
	h.fixed = flags&uint32(flagFixedNewstyle) != 0
	h.noZeroes = flags&uint32(flagNoZeroes) != 0
	return nil
}

// option reads and answers one option; done means that transmission begins.
func (h *haggler) option() (done bool, err error) {
	b, err := h.in.Peek(optionSize)
	if err != nil {
		return false, err
	}
	be := binary.BigEndian
	magic, opt, n := be.Uint64(b), be.Uint32(b[8:]), be.Uint32(b[12:])
	h.in.Skip(optionSize)
	switch {
	case magic != protocol.NEGOTIATION_MAGIC_OPTION:
		return false, fmt.Errorf("the client sent an option with magic %#x", magic)
	case !h.fixed && opt != optExportName:
		return false, fmt.Errorf("the client sent option %d without the flag for options", opt)
	case n > optionDrain, opt == optExportName && n > nameMax:
		return false, fmt.Errorf("the client sent %d bytes with option %d", n, opt)
	case n > optionMax:
		if err := h.in.Discard(int64(n)); err != nil {
			return false, err
		}
		return false, h.reply(opt, repErrTooBig, "too much data")
	}
	data := []byte(nil)
	if n > 0 {
		if data, err = h.in.Peek(int(n)); err != nil {
			return false, err
		}
	}
	done, err = h.answer(opt, data)
	h.in.Skip(int(n))
	return done, err
}

// answer answers one option, whose data is valid during the call.
func (h *haggler) answer(opt uint32, data []byte) (done bool, err error) {
	switch opt {
	case optExportName:
		return true, h.exportName(string(data))
	case optAbort:
		// The client may have gone without waiting for this answer.
		_ = h.reply(opt, repAck, "")
		return false, errLeft
	case optList:
		if len(data) != 0 {
			return false, h.reply(opt, repErrInvalid, "LIST takes no data")
		}
		h.begin()
		h.put(opt, repServer, binary.BigEndian.AppendUint32(nil, uint32(len(h.name))), []byte(h.name))
		h.put(opt, repAck)
		return false, h.send()
	case optInfo, optGo:
		return h.choose(opt, data)
	}
	return false, h.reply(opt, repErrUnsup, "option not supported")
}

// exportName is EXPORT_NAME: it can not fail but by closing.
func (h *haggler) exportName(name string) error {
	if name != "" && name != h.name {
		return fmt.Errorf("the client asked for export %q", name)
	}
	d := h.info()
	h.out = binary.BigEndian.AppendUint64(h.out[:0], d.Size)
	h.out = binary.BigEndian.AppendUint16(h.out, d.flags())
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, zeroesSize)...)
	}
	return h.send()
}

// choose is INFO and GO. EXPORT and BLOCK_SIZE are told even unasked: a client
// that does not look at them loses nothing.
func (h *haggler) choose(opt uint32, data []byte) (done bool, err error) {
	name, wanted, ok := parseChoice(data)
	switch {
	case !ok:
		return false, h.reply(opt, repErrInvalid, "lengths do not add up")
	case name != "" && name != h.name:
		return false, h.reply(opt, repErrUnknown, "no such export")
	}
	d := h.info()
	be := binary.BigEndian
	h.begin()
	h.put(opt, repInfo, be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, infoExport), d.Size), d.flags()))
	size := be.AppendUint32(be.AppendUint16(nil, infoBlockSize), d.BlockMin)
	h.put(opt, repInfo, be.AppendUint32(be.AppendUint32(size, max(d.BlockMin, d.BlockPref)), d.MaxSize))
	told := map[uint16]bool{infoExport: true, infoBlockSize: true}
	for ; len(wanted) > 0; wanted = wanted[2:] {
		kind := be.Uint16(wanted)
		if told[kind] {
			continue
		}
		told[kind] = true
		switch kind {
		case infoName:
			h.put(opt, repInfo, be.AppendUint16(nil, kind), []byte(h.name))
		case infoDescription:
			h.put(opt, repInfo, be.AppendUint16(nil, kind), []byte("dst remote "+h.name))
		}
	}
	h.put(opt, repAck)
	return opt == optGo, h.send()
}

// parseChoice takes INFO's and GO's data apart: the export's name and the
// information requests, two bytes each.
func parseChoice(data []byte) (name string, wanted []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if n > nameMax || uint64(n)+2 > uint64(len(data)) {
		return "", nil, false
	}
	name, wanted = string(data[:n]), data[n+2:]
	return name, wanted, len(wanted) == 2*int(binary.BigEndian.Uint16(data[n:]))
}

// begin, put and send build one or more option replies ("Fixed newstyle
// negotiation") and write them at once.
func (h *haggler) begin() { h.out = h.out[:0] }

func (h *haggler) put(opt, kind uint32, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	be := binary.BigEndian
	h.out = be.AppendUint64(h.out, protocol.NEGOTIATION_MAGIC_REPLY)
	h.out = be.AppendUint32(be.AppendUint32(be.AppendUint32(h.out, opt), kind), uint32(n))
	for _, p := range parts {
		h.out = append(h.out, p...)
	}
}

func (h *haggler) send() error {
	n, err := h.s.Write(h.out)
	if err == nil && n < len(h.out) {
		err = io.ErrShortWrite
	}
	return err
}

// reply answers an option with one reply; text is for the eyes of a human.
func (h *haggler) reply(opt, kind uint32, text string) error {
	h.begin()
	h.put(opt, kind, []byte(text))
	return h.send()
}
