package abi

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var netCtl = Addr{Type: unix.SOCK_STREAM, Proto: unix.IPPROTO_TCP,
	Sockaddr: NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("192.168.4.80:1025")).Sockaddr}

// nlmsg is nlmsghdr as the original's tool fills it (type NLMSG_DONE, no flags), and body.
func nlmsg(seq, pid uint32, body []byte) []byte {
	b := host.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = host.AppendUint32(b, unix.NLMSG_DONE)
	b = host.AppendUint32(b, seq)
	return append(host.AppendUint32(b, pid), body...)
}

// request is a whole request as the tool sends it.
func request(t testing.TB, seq uint32, c Ctl, payload func(b []byte) ([]byte, error)) []byte {
	t.Helper()
	b, err := c.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if payload != nil {
		if b, err = payload(b); err != nil {
			t.Fatal(err)
		}
	}
	m := CnMsg{Idx: CnIdx, Val: CnVal, Seq: seq, Len: uint16(len(b))}
	return nlmsg(seq, 1234, append(m.Append(nil), b...))
}

func hostOrder(t *testing.T) {
	if !littleEndian {
		t.Skip("SKIP: the golden bytes of host order are those of a little-endian host")
	}
}

// TestOriginalConnector makes and reads the worked examples, byte for byte.
func TestOriginalConnector(t *testing.T) {
	hostOrder(t)
	start := Ctl{Name: "disk0", Cmd: CtlStart, MaxPages: 2, ScanTimeout: 10000}
	add := Ctl{Name: "disk0", Cmd: CtlAddRemote, MaxPages: 32, ScanTimeout: 5000, MaxRetries: 10}
	want := readHex(t, "original/10.8-start")
	if got := request(t, 3, start, nil); !bytes.Equal(got, want) {
		t.Errorf("START:\n% x\nwant\n% x", got, want)
	}
	var m CnMsg
	var c Ctl
	data, err := m.Parse(want[unix.NLMSG_HDRLEN:])
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := c.Parse(data); err != nil || c != start || len(rest) != 0 {
		t.Errorf("START: %v, %+v, %d bytes left", err, c, len(rest))
	}
	if got, want := nlmsg(3, 0, m.Answer(0).Append(nil)), readHex(t, "original/10.8-ack"); !bytes.Equal(got, want) {
		t.Errorf("acknowledgement:\n% x\nwant\n% x", got, want)
	}
	if got := nlmsg(3, 0, m.Answer(unix.ENODEV).Append(nil)); !bytes.Equal(got[0x24:0x28], []byte{0xed, 0xff, 0xff, 0xff}) {
		t.Errorf("ENODEV: % x", got)
	}

	want = readHex(t, "original/10.8-add-remote")
	if got := request(t, 0, add, (&NetworkCtl{netCtl}).Append); !bytes.Equal(got, want) {
		t.Errorf("ADD_REMOTE:\n% x\nwant\n% x", got, want)
	}
	if data, err = m.Parse(want[unix.NLMSG_HDRLEN:]); err != nil {
		t.Fatal(err)
	}
	var n NetworkCtl
	if data, err = c.Parse(data); err != nil || c != add || n.Parse(data) != nil || n.Addr != netCtl {
		t.Errorf("ADD_REMOTE: %v, %+v, %v", err, c, n.Addr)
	}
	if s := n.Addr.String(); s != "tcp:192.168.4.80:1025" {
		t.Errorf("ADD_REMOTE of %s", s)
	}

	for name, u := range map[string]SecureUser{
		"10.8-secure-v4": {PermRW, Addr{Sockaddr: NetAddr(0, netip.MustParseAddrPort("10.0.0.7:0")).Sockaddr}},
		"10.8-secure-v6": {PermRead, Addr{Sockaddr: NetAddr(0, netip.MustParseAddrPort("[2001:db8::7]:0")).Sockaddr}},
	} {
		want, got := readHex(t, "original/"+name), SecureUser{}
		if b, err := u.Append(nil); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %v\n% x\nwant\n% x", name, err, b, want)
		}
		if err := got.Parse(want); err != nil || got != u {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
}

// ctlParts names the parts of a connector request or answer.
func ctlParts(b []byte) []part {
	ps := []part{cut(&b, 16, "nlmsghdr"), cut(&b, 20, "cn_msg, %d bytes follow", host.Uint16(b[16:]))}
	if len(b) == CtlAckSize-CnMsgSize {
		return append(ps, cut(&b, 4, "error"), cut(&b, 12, "unused"))
	}
	ps = append(ps, cut(&b, 32, "dst_ctl: name"), cut(&b, 4, "flags"), cut(&b, 4, "cmd"), cut(&b, 4, "max_pages"),
		cut(&b, 4, "trans_scan_timeout, ms"), cut(&b, 4, "trans_max_retries"), cut(&b, 4, "padding"), cut(&b, 8, "size"))
	switch len(b) {
	case ExportCtlSize:
		ps = append(ps, cut(&b, 32, "dst_export_ctl: device"))
		fallthrough
	case NetworkCtlSize:
		ps = append(ps, cut(&b, 4, "dst_network_ctl: type"), cut(&b, 4, "proto"))
	case SecureUserSize:
		ps = append(ps, cut(&b, 4, "dst_secure_user: permissions"))
	case 0:
		return ps
	default:
		return append(ps, cut(&b, 32, "dst_crypto_ctl: cipher_algo"), cut(&b, 32, "hash_algo"), cut(&b, 4, "cipher_keysize"),
			cut(&b, 4, "hash_keysize"), cut(&b, 4, "crypto_attached_size"), cut(&b, 4, "thread_num"), cut(&b, len(b), "keys"))
	}
	return append(ps, cut(&b, 130, "saddr"), cut(&b, 2, "sa_data_len"))
}

func TestGoldenConnector(t *testing.T) {
	hostOrder(t)
	ctl := func(cmd CtlCmd) Ctl { return Ctl{Name: "disk0", Cmd: cmd} }
	add := Ctl{Name: "disk0", Cmd: CtlAddExport, MaxPages: 32, ScanTimeout: 5000, Size: 1 << 30}
	key := []byte{0xc0, 0xc1, 0xc2, 0xc3}
	for name, f := range map[string]struct {
		title string
		b     []byte
	}{
		"cn-del-node":   {"DEL_NODE", request(t, 1, ctl(CtlDelNode), nil)},
		"cn-add-remote": {"ADD_REMOTE", request(t, 2, ctl(CtlAddRemote), (&NetworkCtl{netCtl}).Append)},
		"cn-add-export": {"ADD_EXPORT, 1 GiB of /dev/sdb", request(t, 3, add, (&ExportCtl{"/dev/sdb", netCtl}).Append)},
		"cn-crypto": {"CRYPTO, both keys", request(t, 4, ctl(CtlCrypto),
			(&CryptoCtl{Cipher: "cbc(aes)", Hash: "hmac(sha1)", CipherKey: key, HashKey: key[:3], Threads: 3}).Append)},
		"cn-security": {"SECURITY, read-only for a Unix address", request(t, 5, ctl(CtlSecurity), (&SecureUser{PermRead, UnixAddr("/run/a")}).Append)},
		"cn-start":    {"START", request(t, 6, ctl(CtlStart), nil)},
		"cn-ack":      {"answer, EEXIST", nlmsg(6, 0, (&CnMsg{Idx: CnIdx, Val: CnVal, Seq: 6}).Answer(unix.EEXIST).Append(nil))},
	} {
		golden(t, name, f.title+"; little-endian host", ctlParts(f.b))
	}
}

func TestConnectorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[!-~]{0,31}`)
		bytesOf := func(low, high int) []byte { return rapid.SliceOfN(rapid.Byte(), low, high).Draw(t, "bytes") }
		must := func(b []byte, err error) []byte {
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		sockaddr := string(append([]byte{99, 0}, bytesOf(0, SockaddrMax-2)...))
		c := Ctl{name.Draw(t, "name"), rapid.Uint32().Draw(t, "flags"), CtlCmd(rapid.IntRange(0, 5).Draw(t, "cmd")), rapid.Uint32().Draw(t, "pages"),
			rapid.Uint32().Draw(t, "scan"), rapid.Uint32().Draw(t, "retries"), rapid.Uint64().Draw(t, "size")}
		e := ExportCtl{name.Draw(t, "device"), Addr{rapid.Uint32().Draw(t, "type"), rapid.Uint32().Draw(t, "proto"), sockaddr}}
		u := SecureUser{Perm(rapid.IntRange(0, 3).Draw(t, "perm")), Addr{Sockaddr: sockaddr}}
		k := CryptoCtl{name.Draw(t, "cipher"), name.Draw(t, "hash"), bytesOf(1, 1024), bytesOf(0, 1024), rapid.Int32().Draw(t, "threads")}
		m := CnMsg{1, 2, 3, 4, CtlSize, 5}
		var (
			c2 Ctl
			e2 ExportCtl
			u2 SecureUser
			k2 CryptoCtl
			m2 CnMsg
			a2 CtlAck
		)
		body := append(m.Append(nil), must(c.Append(nil))...)
		if data, err := m2.Parse(body); err != nil || m2 != m || !bytes.Equal(data, body[CnMsgSize:]) {
			t.Fatalf("%v: %+v became %+v", err, m, m2)
		}
		if rest, err := c2.Parse(body[CnMsgSize:]); err != nil || c2 != c || len(rest) != 0 {
			t.Fatalf("%v: %+v became %+v", err, c, c2)
		}
		if err := e2.Parse(must(e.Append(nil))); err != nil || e2 != e {
			t.Fatalf("%v: %+v became %+v", err, e, e2)
		}
		if err := u2.Parse(must(u.Append(nil))); err != nil || u2 != u {
			t.Fatalf("%v: %+v became %+v", err, u, u2)
		}
		if err := k2.Parse(must(k.Append(nil))); err != nil || !bytes.Equal(k2.CipherKey, k.CipherKey) || !bytes.Equal(k2.HashKey, k.HashKey) ||
			k2.Cipher != k.Cipher || k2.Hash != k.Hash || k2.Threads != k.Threads {
			t.Fatalf("%v: %+v became %+v", err, k, k2)
		}
		a := m.Answer(unix.Errno(rapid.IntRange(0, 4095).Draw(t, "errno")))
		if err := a2.Parse(a.Append(nil)); err != nil || a2 != *a || a.Msg.Ack != m.Ack+1 {
			t.Fatalf("%v: %+v became %+v", err, *a, a2)
		}
	})
}

func TestConnectorRefuses(t *testing.T) {
	whole, err := (&Ctl{Name: "disk0", Cmd: CtlStart}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	crypto, err := (&CryptoCtl{Cipher: "a", CipherKey: []byte{1, 2}, HashKey: []byte{3}}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	saddr, err := appendSaddr(nil, netCtl.Sockaddr)
	if err != nil {
		t.Fatal(err)
	}
	with := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	ctl := func(b []byte) error { _, err := new(Ctl).Parse(b); return err }
	cn := func(b []byte) error { _, err := new(CnMsg).Parse(b); return err }
	u32 := func(v uint32) []byte { return host.AppendUint32(nil, v) }
	for _, tt := range []struct {
		name  string
		parse func([]byte) error
		b     []byte
		want  unix.Errno
	}{
		{"empty", cn, nil, unix.EBADMSG},
		{"cn_msg of 19 bytes", cn, make([]byte, 19), unix.EBADMSG},
		{"cn_msg says 1 of 0", cn, with(make([]byte, 20), 16, host.AppendUint16(nil, 1)...), unix.EBADMSG},
		{"cn_msg says 65535", cn, with(make([]byte, 84), 16, 255, 255), unix.EBADMSG},
		{"cn_msg leaves 4", cn, make([]byte, 24), unix.EBADMSG},
		{"dst_ctl of 63", ctl, whole[:63], unix.EBADMSG},
		{"command 6", ctl, with(whole, 36, u32(6)...), unix.EINVAL},
		{"command 2^32-1", ctl, with(whole, 36, u32(1<<32-1)...), unix.EINVAL},
		{"name without NUL", ctl, with(whole, 0, bytes.Repeat([]byte{'a'}, 32)...), unix.EINVAL},
		{"bytes behind the NUL", ctl, with(whole, 31, 'x'), unix.EINVAL},
		{"network of 139", new(NetworkCtl).Parse, make([]byte, 139), unix.EINVAL},
		{"network of 141", new(NetworkCtl).Parse, make([]byte, 141), unix.EINVAL},
		{"network of zeroes", new(NetworkCtl).Parse, make([]byte, 140), unix.EINVAL},
		{"family 0", new(NetworkCtl).Parse, with(make([]byte, 140), 138, host.AppendUint16(nil, 16)...), unix.EAFNOSUPPORT},
		{"sa_data_len 131", new(NetworkCtl).Parse, with(make([]byte, 140), 138, host.AppendUint16(nil, 131)...), unix.EINVAL},
		{"sa_data_len 65535", new(NetworkCtl).Parse, with(make([]byte, 140), 138, 255, 255), unix.EINVAL},
		{"export of 171", new(ExportCtl).Parse, make([]byte, 171), unix.EINVAL},
		{"device without NUL", new(ExportCtl).Parse, bytes.Repeat([]byte{'a'}, 172), unix.EINVAL},
		{"export of zeroes", new(ExportCtl).Parse, make([]byte, 172), unix.EINVAL},
		{"user of 135", new(SecureUser).Parse, make([]byte, 135), unix.EINVAL},
		{"user of zeroes", new(SecureUser).Parse, make([]byte, 136), unix.EINVAL},
		{"permission 4", new(SecureUser).Parse, append(u32(4), saddr...), unix.EINVAL},
		{"IPv4 of 15 bytes", new(SecureUser).Parse, with(append(u32(1), saddr...), 134, host.AppendUint16(nil, 15)...), unix.EINVAL},
		{"crypto of 79", new(CryptoCtl).Parse, make([]byte, 79), unix.EINVAL},
		{"a key byte less", new(CryptoCtl).Parse, crypto[:82], unix.EINVAL},
		{"a key byte more", new(CryptoCtl).Parse, append(bytes.Clone(crypto), 0), unix.EINVAL},
		{"key sizes that wrap", new(CryptoCtl).Parse, with(with(crypto, 64, u32(1<<31)...), 68, u32(1<<31+3)...), unix.EINVAL},
		{"key of 2^32-1", new(CryptoCtl).Parse, with(crypto, 64, u32(1<<32-1)...), unix.EINVAL},
		{"attached size", new(CryptoCtl).Parse, with(crypto, 72, u32(20)...), unix.EINVAL},
		{"cipher without key", new(CryptoCtl).Parse, with(make([]byte, 80), 0, 'a'), unix.EINVAL},
		{"cipher without NUL", new(CryptoCtl).Parse, with(crypto, 0, bytes.Repeat([]byte{'a'}, 32)...), unix.EINVAL},
		{"hash without NUL", new(CryptoCtl).Parse, with(crypto, 32, bytes.Repeat([]byte{'a'}, 32)...), unix.EINVAL},
		{"answer of 35", new(CtlAck).Parse, make([]byte, 35), unix.EBADMSG},
		{"answer of 20", new(CtlAck).Parse, make([]byte, 20), unix.EINVAL},
		{"answer with errno 1", new(CtlAck).Parse, with((&CnMsg{}).Answer(0).Append(nil), 20, u32(1)...), unix.EINVAL},
		{"answer with errno -4096", new(CtlAck).Parse, with((&CnMsg{}).Answer(0).Append(nil), 20, u32(1<<32-4096)...), unix.EINVAL},
	} {
		if err := tt.parse(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	long, tooLong := strings.Repeat("x", 32), Addr{Sockaddr: strings.Repeat("x", 131)}
	for name, f := range map[string]func([]byte) ([]byte, error){
		"name of 32":         (&Ctl{Name: long}).Append,
		"NUL in a name":      (&Ctl{Name: "a\x00b"}).Append,
		"device of 32":       (&ExportCtl{Device: long, Addr: netCtl}).Append,
		"address of 131":     (&NetworkCtl{tooLong}).Append,
		"no address":         (&SecureUser{}).Append,
		"cipher of 32":       (&CryptoCtl{Cipher: long}).Append,
		"hash of 32":         (&CryptoCtl{Hash: long}).Append,
		"key of 1025":        (&CryptoCtl{HashKey: make([]byte, 1025)}).Append,
		"no export address":  (&ExportCtl{Device: "/dev/sdb"}).Append,
		"long export device": (&ExportCtl{Device: "/" + long, Addr: netCtl}).Append,
	} {
		if _, err := f(nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: got %v, want EINVAL", name, err)
		}
	}
	var c CryptoCtl
	if err := c.Parse(crypto); err != nil {
		t.Fatal(err)
	}
	if c.Wipe(); !bytes.Equal(crypto[80:], make([]byte, 3)) {
		t.Errorf("keys are left after Wipe: % x", crypto[80:])
	}
}

func FuzzConnector(f *testing.F) {
	for _, name := range []string{"cn-del-node", "cn-add-remote", "cn-add-export", "cn-crypto", "cn-security", "cn-start", "cn-ack"} {
		f.Add(readHex(f, name)[unix.NLMSG_HDRLEN:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m CnMsg
		data, err := m.Parse(b)
		if err != nil {
			return
		}
		_ = new(CtlAck).Parse(b)
		var c Ctl
		payload, err := c.Parse(data)
		if err != nil {
			return
		}
		head, err := c.Append(nil)
		if err != nil || !bytes.Equal(head[:52], data[:52]) || !bytes.Equal(head[56:], data[56:CtlSize]) {
			t.Fatalf("%v: % x became % x", err, data[:CtlSize], head)
		}
		var n NetworkCtl
		if n.Parse(payload) == nil {
			if again, err := n.Append(nil); err != nil || n.Parse(again) != nil {
				t.Fatalf("%v: % x", err, again)
			}
		}
		var e ExportCtl
		if e.Parse(payload) == nil && strings.IndexByte(e.Device, 0) >= 0 {
			t.Fatalf("device %q", e.Device)
		}
		var k CryptoCtl
		if k.Parse(payload) == nil {
			if again, err := k.Append(nil); err != nil || !bytes.Equal(again, payload) {
				t.Fatalf("%v: % x became % x", err, payload, again)
			}
		}
		_ = new(SecureUser).Parse(payload)
	})
}
