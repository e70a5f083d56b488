package controlplane

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dst/abi"
)

const (
	remoteFlags = abi.NodeFlagReadOnly | abi.NodeFlagStarted
	exportFlags = abi.NodeFlagReadOnly | abi.NodeFlagShared | abi.NodeFlagWritethrough | abi.NodeFlagStarted |
		abi.NodeFlagDirect | abi.NodeFlagBuffered
	livingFlags = abi.NodeFlagReadOnly // may change while a node lives
)

// named blames the name of the request for errors that are about it.
func named(err error) error {
	var f *abi.Fault
	if !errors.As(err, &f) && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EEXIST)) {
		return abi.Blame(abi.AttrNodeName, err) // AttrCryptoName is the same number
	}
	return err
}

// wrong is EINVAL and a sentence, blamed on attr.
func wrong(attr uint16, format string, args ...any) error {
	return abi.Blame(attr, fmt.Errorf(format+": %w", append(args, unix.EINVAL)...))
}

func checkRemote(n *abi.Node) error {
	if err := checkNode(n, remoteFlags); err != nil {
		return err
	}
	if n.Export != "" {
		if err := abi.ValidName(n.Export); err != nil {
			return abi.Blame(abi.AttrNodeExport, err)
		}
	}
	switch {
	case n.Attach == abi.AttachSocket && n.Socket == "":
		return wrong(abi.AttrNodeAttach, "attach socket needs the path of the socket")
	case n.Attach != abi.AttachSocket && n.Socket != "":
		return wrong(abi.AttrNodeSocket, "a socket path goes with attach socket only")
	case n.Socket != "" && n.Socket[0] != '/':
		return wrong(abi.AttrNodeSocket, "socket %q: write an absolute path", n.Socket)
	}
	return nil
}

func checkExport(n *abi.Node) error {
	if err := checkNode(n, exportFlags); err != nil {
		return err
	}
	both := abi.NodeFlagDirect | abi.NodeFlagBuffered
	switch {
	case !strings.HasPrefix(n.Device, "/"):
		return wrong(abi.AttrNodeDevice, "device %q: write an absolute path", n.Device)
	case n.Flags&both == both:
		return wrong(abi.AttrNodeFlags, "direct and buffered exclude each other")
	}
	return nil
}

// checkNode is what both kinds have in common.
func checkNode(n *abi.Node, allowed abi.NodeFlag) error {
	if err := abi.ValidName(n.Name); err != nil {
		return abi.Blame(abi.AttrNodeName, err)
	}
	for i, a := range n.Addrs {
		if err := a.Check(); err != nil {
			return abi.BlameNth(abi.AttrNodeAddress, i, err)
		}
		if slices.Contains(n.Addrs[:i], a) {
			return abi.BlameNth(abi.AttrNodeAddress, i, fmt.Errorf("address %v is given twice: %w", a, unix.EINVAL))
		}
	}
	switch {
	case n.Flags&^allowed != 0:
		return wrong(abi.AttrNodeFlags, "flags %#x do not go with this kind of node", uint32(n.Flags&^allowed))
	case n.Size%abi.SectorSize != 0:
		return wrong(abi.AttrNodeSize, "size %d is not a multiple of %d", n.Size, abi.SectorSize)
	case n.Size >= 1<<63:
		return wrong(abi.AttrNodeSize, "size %d is beyond what a device can have", n.Size)
	}
	return nil
}

func checkSet(n *abi.Node) error {
	switch {
	case n.Mask == 0 && n.Knobs == abi.Knobs{}:
		return fmt.Errorf("nothing to set: name what is to change: %w", unix.EINVAL)
	case n.Mask&^livingFlags != 0:
		return wrong(abi.AttrNodeFlagsMask, "only read-only may change while a node lives: remove it and add it again")
	case n.Flags&^n.Mask != 0:
		return wrong(abi.AttrNodeFlags, "flags %#x are not in flags-mask", uint32(n.Flags&^n.Mask))
	}
	return nil
}

func checkCrypto(c *abi.Crypto) error {
	for _, k := range []struct {
		algorithm, file         string
		key                     []byte
		attr, fileAttr, keyAttr uint16
		what                    string
		keyed                   bool // useless without a key
	}{
		{c.Cipher, c.CipherKeyFile, c.CipherKey, abi.AttrCryptoCipher, abi.AttrCryptoCipherKeyFile, abi.AttrCryptoCipherKey, "cipher", true},
		{c.Hash, c.HashKeyFile, c.HashKey, abi.AttrCryptoHash, abi.AttrCryptoHashKeyFile, abi.AttrCryptoHashKey, "hash", false},
	} {
		switch {
		case k.file != "" && len(k.key) > 0:
			return wrong(k.keyAttr, "the %s key is given twice: as bytes and as a file", k.what)
		case k.file != "" && k.file[0] != '/':
			return wrong(k.fileAttr, "key file %q: write an absolute path", k.file)
		case k.algorithm == "" && k.file != "":
			return wrong(k.fileAttr, "a %s key needs a %s", k.what, k.what)
		case k.algorithm == "" && len(k.key) > 0:
			return wrong(k.keyAttr, "a %s key needs a %s", k.what, k.what)
		case k.keyed && k.algorithm != "" && k.file == "" && len(k.key) == 0:
			return wrong(k.attr, "%s %q needs a key", k.what, k.algorithm)
		}
	}
	if c.Cipher == "" && c.Hash == "" && c.Threads == nil {
		return fmt.Errorf("nothing to set: name a cipher or a hash: %w", unix.EINVAL)
	}
	return nil
}
