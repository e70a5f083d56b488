package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// attr is a netlink attribute by hand: length, type, value, padding.
func attr(kind uint16, value ...byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint16(ne.AppendUint16(nil, uint16(4+len(value))), kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// The numbers here are those of linux/nbd-netlink.h, linux/nbd.h and
// linux/netlink.h (NLA_F_NESTED is 1 << 15), written out once more.
func TestMessages(t *testing.T) {
	const nested = 1 << 15
	socket := attr(7|nested, attr(1|nested, attr(1, u32(9)...)...)...)
	backend := attr(10, []byte("dst:vol0:1\x00")...)
	for name, tt := range map[string]struct {
		make func() (message, error)
		cmd  uint8
		ack  bool
		want [][]byte
	}{
		"connect": {func() (message, error) { return connectMessage("dst:vol0:1", 4096, 0x6d, 9) }, 1, false, [][]byte{
			attr(2, u64(0)...), attr(3, u64(4096)...), attr(4, u64(0)...), attr(8, u64(86400)...), attr(5, u64(0x6d)...), backend, socket}},
		"reconnect":  {func() (message, error) { return reconnectMessage(3, "dst:vol0:1", 9) }, 3, true, [][]byte{attr(1, u32(3)...), backend, socket}},
		"resize":     {func() (message, error) { return resizeMessage(3, "dst:vol0:1", 1<<40) }, 3, true, [][]byte{attr(1, u32(3)...), attr(2, u64(1<<40)...), backend}},
		"disconnect": {func() (message, error) { return disconnectMessage(3) }, 2, true, [][]byte{attr(1, u32(3)...)}},
	} {
		m, err := tt.make()
		if err != nil {
			t.Fatal(err)
		}
		if want := bytes.Join(tt.want, nil); m.cmd != tt.cmd || m.ack != tt.ack || !bytes.Equal(m.attrs, want) {
			t.Errorf("%s: command %d, ack %v, attributes\n% x, want %d, %v,\n% x", name, m.cmd, m.ack, m.attrs, tt.cmd, tt.ack, want)
		}
	}
}

func TestParseIndex(t *testing.T) {
	for _, tt := range []struct {
		attrs []byte
		want  int
		err   error
	}{
		{attr(1, u32(7)...), 7, nil},
		{append(attr(4, u64(1)...), attr(1, u32(16)...)...), 16, nil},
		{nil, 0, unix.EPROTO},
		{attr(2, u64(7)...), 0, unix.EPROTO},
	} {
		if got, err := parseIndex(tt.attrs); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("% x: %d, %v, want %d, %v", tt.attrs, got, err, tt.want, tt.err)
		}
	}
	for _, bad := range [][]byte{{1}, attr(1, 7), {255, 255, 1, 0, 0, 0, 0, 0}} {
		if got, err := parseIndex(bad); err == nil {
			t.Errorf("% x: %d and no error", bad, got)
		}
	}
}

// TestOfferedFlags: what the kernel is told about a device (linux/nbd.h).
func TestOfferedFlags(t *testing.T) {
	for _, tt := range []struct {
		info Info
		want uint16
	}{
		{Info{}, 1 | 4 | 8},
		{Info{ReadOnly: true}, 1 | 2 | 4 | 8},
		{Info{Features: 0xff}, 1 | 4 | 8 | 16 | 32 | 64},
	} {
		if got := tt.info.flags() &^ sendMultiConn; got != tt.want {
			t.Errorf("%+v: flags %#x, want %#x", tt.info, got, tt.want)
		}
	}
}
