package genl

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Family is a generic-netlink family: the command table of a Server.
type Family struct {
	Name    string       // 1 to 15 bytes (GENL_NAMSIZ)
	ID      uint16       // message type, above GENL_ID_CTRL; the kernel gives out ids from below
	Version uint8        // of the family, told in every answer
	MaxAttr uint32       // highest attribute type, told by GETFAMILY
	Ops     map[uint8]Op // by command
	// Limit is how long one request may take, a dump included; 0 means 30 s. Then
	// its Context ends.
	Limit time.Duration
	// Stamp adds to an event what differs from subscriber to subscriber: seq, the
	// event's number from 1, and lost, how many events before it this subscriber
	// did not get. A family with events has one.
	Stamp func(ae *netlink.AttributeEncoder, seq, lost uint64)
	// Overrun is the command of an event that only says so; it is sent to one who
	// lost events and reads again although nothing else happens. 0 means never.
	Overrun uint8
}

// Op is one command of a Family. A command has a Do, a Dump, or both.
type Op struct {
	Do         func(*Request) error // NLM_F_DUMP not set
	Policy     *Policy              // attributes of a Do
	Need       []uint16             // attributes that a Do cannot be without
	Dump       func(*Request) error // NLM_F_DUMP set; Reply once a row
	DumpPolicy *Policy              // attributes of a Dump
	Admin      bool                 // uid 0 only
	Reply      uint8                // command of the answers; 0 means the same
}

const defaultLimit = 30 * time.Second

// check says what is wrong with a table. Errors: EINVAL.
func (f *Family) check() error {
	switch {
	case f.Name == "" || len(f.Name) >= unix.GENL_NAMSIZ:
		return fmt.Errorf("family name %q: 1 to %d bytes: %w", f.Name, unix.GENL_NAMSIZ-1, unix.EINVAL)
	case f.ID <= unix.GENL_ID_CTRL || f.ID > unix.GENL_MAX_ID:
		return fmt.Errorf("family %s: id %#x is not in %#x to %#x: %w", f.Name, f.ID, unix.GENL_ID_CTRL+1, unix.GENL_MAX_ID, unix.EINVAL)
	}
	for cmd, op := range f.Ops {
		if op.Do == nil && op.Dump == nil {
			return fmt.Errorf("family %s: command %d does nothing: %w", f.Name, cmd, unix.EINVAL)
		}
		for _, t := range op.Need {
			if _, ok := op.Policy.rule(t); !ok {
				return fmt.Errorf("family %s: command %d needs attribute %d, which its policy refuses: %w", f.Name, cmd, t, unix.EINVAL)
			}
		}
	}
	return nil
}

// flags are the GENL_* flags of op, as GETFAMILY tells them.
func (op Op) flags() (f uint32) {
	if op.Admin {
		f |= unix.GENL_ADMIN_PERM
	}
	if op.Do != nil {
		f |= unix.GENL_CMD_CAP_DO
	}
	if op.Dump != nil {
		f |= unix.GENL_CMD_CAP_DUMP
	}
	if op.Policy != nil || op.DumpPolicy != nil {
		f |= unix.GENL_CMD_CAP_HASPOL
	}
	return f
}
