package connector

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/genl"
)

var (
	here  = tcp("192.168.4.80:1025")
	aes   = []byte("0123456789abcdef")
	both  = abi.CryptoCtl{Cipher: "cbc(aes)", Hash: "hmac(sha1)", CipherKey: aes, HashKey: []byte("key"), Threads: -1}
	inet  = abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.7/32"), Perm: abi.PermRW}
	inet6 = abi.Rule{Kind: abi.RuleKindInet6, Prefix: netip.MustParsePrefix("2001:db8::7/128"), Perm: abi.PermRead}
)

// TestCommands: what the Plane is asked for by each command.
func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    request
		want call
	}{
		{"add-remote", addRemote("new", here), call{method: "AddRemote", name: "new", node: abi.Node{
			Name: "new", Addrs: []abi.Addr{here}, Attach: abi.AttachNbd, Flags: abi.NodeFlagSole, Knobs: abi.Knobs{FailAfter: new(uint32(0))}}}},
		{"add-remote with numbers", addRemote("new", here).with(func(c *abi.Ctl) {
			c.Flags, c.MaxPages, c.ScanTimeout, c.MaxRetries, c.Size = ^uint32(0), 32, 5000, 10, 1<<40
		}), call{method: "AddRemote", name: "new", node: abi.Node{
			Name: "new", Addrs: []abi.Addr{here}, Attach: abi.AttachNbd, Flags: abi.NodeFlagSole, Size: 1 << 40,
			Knobs: abi.Knobs{MaxPages: new(uint32(32)), FailAfter: new(uint32(50000))}}}},
		{"add-export", addExport("new", "/dev/sdb", here).with(func(c *abi.Ctl) {
			c.MaxPages, c.ScanTimeout, c.MaxRetries, c.Size = 2000, 5000, 10, 1<<30
		}), call{method: "AddExport", name: "new", node: abi.Node{
			Name: "new", Device: "/dev/sdb", Addrs: []abi.Addr{here}, Size: 1 << 30, Knobs: abi.Knobs{MaxPages: new(uint32(1024))}}}},
		{"crypto", crypto("vol0", both), call{method: "Crypto", name: "vol0", crypto: abi.Crypto{
			Name: "vol0", Cipher: both.Cipher, Hash: both.Hash, CipherKey: both.CipherKey, HashKey: both.HashKey}}},
		{"crypto with threads", crypto("vol0", abi.CryptoCtl{Hash: "crc32c", Threads: 3}), call{method: "Crypto", name: "vol0", crypto: abi.Crypto{
			Name: "vol0", Hash: "crc32c", CipherKey: []byte{}, HashKey: []byte{}, Threads: new(uint32(3))}}},
		{"crypto with too many threads", crypto("vol0", abi.CryptoCtl{Hash: "crc32c", Threads: math.MaxInt32}), call{method: "Crypto", name: "vol0", crypto: abi.Crypto{
			Name: "vol0", Hash: "crc32c", CipherKey: []byte{}, HashKey: []byte{}, Threads: new(uint32(1024))}}},
		{"security", secure("vol0", abi.PermRW, bare("10.0.0.7:99")), call{method: "AddRule", name: "vol0", rule: inet}},
		{"start", start("vol0"), call{method: "Start", name: "vol0"}},
		{"start with bytes behind", start("vol0").cut(100), call{method: "Start", name: "vol0"}},
		{"del", del("vol0"), call{method: "Del", name: "vol0"}},
		{"del with bytes behind", del("vol0").cut(3), call{method: "Del", name: "vol0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newFake("vol0")
			serve(t, p)
			if errno := dial(t).do(tt.r); errno != 0 {
				t.Errorf("refused: %v", errno)
			}
			if calls := p.taken(); len(calls) != 1 || !reflect.DeepEqual(calls[0], tt.want) {
				t.Errorf("the plane was asked for\n%+v\nwant\n%+v", calls, tt.want)
			}
		})
	}
}

func TestKnobs(t *testing.T) {
	for _, tt := range []struct{ pages, scan, retries, wantPages, wantFail uint32 }{
		{0, 0, 0, 0, 0},
		{1, 10000, 0, 1, 0},
		{1024, 0, 10, 1024, 10_000},
		{1025, 1, 1, 1024, 1},
		{math.MaxUint32, math.MaxUint32, math.MaxUint32, 1024, math.MaxUint32},
	} {
		c := &abi.Ctl{MaxPages: tt.pages, ScanTimeout: tt.scan, MaxRetries: tt.retries}
		pages, fail := maxPages(c), failAfter(c)
		if (pages == nil) != (tt.wantPages == 0) || pages != nil && *pages != tt.wantPages || *fail != tt.wantFail {
			t.Errorf("%+v: %v pages, %d ms", tt, pages, *fail)
		}
	}
}

// TestRules: which peers an address of the original's names.
func TestRules(t *testing.T) {
	cid := uint32(7)
	for _, tt := range []struct {
		addr  abi.Addr
		want  abi.Rule
		errno unix.Errno
	}{
		{bare("10.0.0.7:0"), inet, 0},
		{bare("0.0.0.0:0"), abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("0.0.0.0/32"), Perm: abi.PermRW}, 0},
		{bare("[2001:db8::7]:9"), abi.Rule{Kind: inet6.Kind, Prefix: inet6.Prefix, Perm: abi.PermRW}, 0},
		{bare("[::ffff:10.0.0.7]:0"), inet, 0},
		{bare("[fe80::1%2]:0"), abi.Rule{}, unix.EOPNOTSUPP},
		{raw(unix.AF_UNIX, make([]byte, 108)...), abi.Rule{Kind: abi.RuleKindUnix, Perm: abi.PermRW}, 0},
		{abi.Addr{Sockaddr: abi.UnixAddr("/run/a").Sockaddr}, abi.Rule{}, unix.EOPNOTSUPP},
		{raw(unix.AF_UNIX, 0, 'a', 0), abi.Rule{}, unix.EOPNOTSUPP},
		{abi.VsockAddr(cid, 1), abi.Rule{Kind: abi.RuleKindVsock, ID: &cid, Perm: abi.PermRW}, 0},
		{raw(unix.AF_PACKET, make([]byte, 18)...), abi.Rule{}, unix.EAFNOSUPPORT},
		{raw(0xffff, 1, 2), abi.Rule{}, unix.EAFNOSUPPORT},
	} {
		r, err := rule(abi.SecureUser{Perm: abi.PermRW, Addr: tt.addr})
		if tt.errno != 0 {
			if !errors.Is(err, tt.errno) {
				t.Errorf("%v: %v, want %v", tt.addr, err, tt.errno)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(r, tt.want) || r.Check() != nil {
			t.Errorf("%v: %+v, %v, want %+v", tt.addr, r, err, tt.want)
		}
	}
}

// TestRefusals: errnos, and which of two mistakes is told.
func TestRefusals(t *testing.T) {
	ctl := func(n int) []byte { return framed(1, make([]byte, n)) }
	lying := func(change func(b []byte)) []byte {
		b := start("vol0").frame(1)
		change(b)
		return b
	}
	name32 := func(cmd abi.CtlCmd, name string, payload appender) []byte {
		b := ask(cmd, "", payload).frame(1)
		copy(b[36:68], name)
		return b
	}
	long := strings.Repeat("x", 32)
	remote, export := addRemote("new", here), addExport("new", "/dev/sdb", here)
	keys := crypto("vol0", both)
	for _, tt := range []struct {
		name string
		b    []byte
		want unix.Errno
	}{
		{"nothing behind cn_msg", ctl(0), unix.EBADMSG},
		{"63 bytes of dst_ctl", ctl(63), unix.EBADMSG},
		{"zeroes: DEL of no name", ctl(64), unix.ENODEV},
		{"cn_msg.len beyond the message", lying(func(b []byte) { b[32]++ }), unix.EBADMSG},
		{"cn_msg.len 65535", lying(func(b []byte) { b[32], b[33] = 255, 255 }), unix.EBADMSG},
		{"cn_msg.len far too small", lying(func(b []byte) { b[32] = 8 }), unix.EBADMSG},
		{"command 6", request{ctl: abi.Ctl{Name: "vol0", Cmd: 6}}.frame(1), unix.EINVAL},
		{"command 2^32-1 of no node", request{ctl: abi.Ctl{Name: "none", Cmd: math.MaxUint32}}.frame(1), unix.EINVAL},
		{"16385 bytes", ctl(16385 - 36), unix.EMSGSIZE},
		{"60000 bytes", ctl(60000), unix.EMSGSIZE},

		{"remote exists", addRemote("vol0", here).frame(1), unix.EEXIST},
		{"remote exists, before its size", addRemote("vol0", here).cut(139).frame(1), unix.EEXIST},
		{"remote of 139", remote.cut(139).frame(1), unix.EINVAL},
		{"remote of 141", remote.cut(141).frame(1), unix.EINVAL},
		{"remote of nothing", remote.cut(0).frame(1), unix.EINVAL},
		{"remote, sa_data_len 0", remote.patch(138, 0, 0).frame(1), unix.EINVAL},
		{"remote, sa_data_len 131", remote.patch(138, 131).frame(1), unix.EINVAL},
		{"remote, sa_data_len 65535", remote.patch(138, 255, 255).frame(1), unix.EINVAL},
		{"remote, sa_data_len unlike its family's", remote.patch(138, 14).frame(1), unix.EINVAL},
		{"remote without a family", remote.patch(8, 0, 0).frame(1), unix.EAFNOSUPPORT},
		{"remote with a name of 32", name32(abi.CtlAddRemote, long, &abi.NetworkCtl{Addr: here}), unix.EINVAL},
		{"remote with bytes behind its name", name32(abi.CtlAddRemote, "new\x00x", &abi.NetworkCtl{Addr: here}), unix.EINVAL},
		{"remote with a slash", addRemote("a/b", here).frame(1), unix.EINVAL},
		{"remote without a name", addRemote("", here).frame(1), unix.EINVAL},

		{"export exists", addExport("vol0", "/dev/sdb", here).frame(1), unix.EEXIST},
		{"export exists, before its size", addExport("vol0", "/dev/sdb", here).cut(140).frame(1), unix.EEXIST},
		{"export of 171", export.cut(171).frame(1), unix.EINVAL},
		{"export of 173", export.cut(173).frame(1), unix.EINVAL},
		{"export, device without an end", export.patch(0, bytes.Repeat([]byte{'/'}, 32)...).frame(1), unix.EINVAL},

		{"crypto of no node", crypto("none", both).frame(1), unix.ENODEV},
		{"crypto of no node, before its size", crypto("none", both).cut(79).frame(1), unix.ENODEV},
		{"crypto of 79", keys.cut(79).frame(1), unix.EINVAL},
		{"crypto of nothing", keys.cut(0).frame(1), unix.EINVAL},
		{"crypto, a key byte less", keys.cut(80 + 18).frame(1), unix.EINVAL},
		{"crypto, a key byte more", keys.cut(80 + 20).frame(1), unix.EINVAL},
		{"crypto, keys of 2^32 bytes together", keys.patch(64, 0xf0, 255, 255, 255).patch(68, 0x23).frame(1), unix.EINVAL},
		{"crypto, cipher without a key", crypto("vol0", abi.CryptoCtl{Cipher: "cbc(aes)"}).frame(1), unix.EINVAL},
		{"crypto, attached size", keys.patch(72, 20).frame(1), unix.EINVAL},

		{"security of no node", secure("none", abi.PermRW, here).frame(1), unix.ENODEV},
		{"security of no node, before its size", secure("none", abi.PermRW, here).cut(1).frame(1), unix.ENODEV},
		{"security of 135", secure("vol0", abi.PermRW, here).cut(135).frame(1), unix.EINVAL},
		{"security of 137", secure("vol0", abi.PermRW, here).cut(137).frame(1), unix.EINVAL},
		{"security, permission 4", secure("vol0", 4, here).frame(1), unix.EINVAL},
		{"security of a packet socket", secure("vol0", abi.PermRW, raw(unix.AF_PACKET, make([]byte, 18)...)).frame(1), unix.EAFNOSUPPORT},

		{"start of no node", start("none").frame(1), unix.ENODEV},
		{"start of a name of 32", name32(abi.CtlStart, long, nil), unix.ENODEV},
		{"del of no node", del("none").frame(1), unix.ENODEV},
		{"del with bytes behind the name", name32(abi.CtlDelNode, "vol0\x00x", nil), unix.ENODEV},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newFake("vol0")
			serve(t, p)
			c := dial(t)
			c.seq = 1
			c.send(tt.b)
			if errno := c.accept(); errno != tt.want {
				t.Errorf("%v, want %v", errno, tt.want)
			}
			if calls := p.taken(); len(calls) != 0 {
				t.Errorf("the plane did %+v", calls)
			}
		})
	}
}

// TestPlanesErrno: what the Plane says is what the tool gets, as an errno.
func TestPlanesErrno(t *testing.T) {
	p := newFake("vol0")
	serve(t, p)
	c := dial(t)
	for _, tt := range []struct {
		err  error
		want unix.Errno
	}{
		{abi.Blame(abi.AttrNodeName, fmt.Errorf("in use by a mount: %w", unix.EBUSY)), unix.EBUSY},
		{unix.EADDRINUSE, unix.EADDRINUSE},
		{errors.New("no errno at all"), unix.EIO},
	} {
		for _, r := range []request{del("vol0"), start("vol0"), addExport("new", "/dev/sdb", here), addRemote("new", here), crypto("vol0", both)} {
			p.mu.Lock()
			p.fails = tt.err
			p.mu.Unlock()
			if errno := c.do(r); errno != tt.want {
				t.Errorf("command %d: %v, want %v", r.ctl.Cmd, errno, tt.want)
			}
		}
	}
	if calls := p.taken(); len(calls) != 0 {
		t.Errorf("the plane did %+v", calls)
	}
}

// golden reads a file of abi/testdata: hex digits with comments.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("../../abi/testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOriginalFrames sends the original's worked examples and wants its bytes.
func TestOriginalFrames(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIP: the golden bytes of host order are those of a little-endian host")
	}
	p := newFake()
	serve(t, p)
	c := dial(t)
	ack := golden(t, "original/10.8-ack")
	enodev := slices.Concat(ack[:0x24], []byte{0xed, 0xff, 0xff, 0xff}, ack[0x28:])
	added := bytes.Clone(ack)
	added[8], added[24] = 0, 0 // ADD_REMOTE has seq 0
	for _, tt := range []struct {
		frame string
		want  []byte
	}{
		{"10.8-start", enodev},
		{"10.8-add-remote", added},
		{"10.8-start", ack},
	} {
		c.send(golden(t, "original/"+tt.frame))
		if got := c.recv(); !bytes.Equal(got, tt.want) {
			t.Errorf("%s:\n% x\nwant\n% x", tt.frame, got, tt.want)
		}
	}
	want := abi.Node{Name: "disk0", Addrs: []abi.Addr{here}, Attach: abi.AttachNbd, Flags: abi.NodeFlagSole,
		Knobs: abi.Knobs{MaxPages: new(uint32(32)), FailAfter: new(uint32(50000))}}
	if calls := p.taken(); len(calls) != 2 || !reflect.DeepEqual(calls[0].node, want) || calls[1].method != "Start" {
		t.Errorf("the plane did %+v", calls)
	}
}

// TestEcho: the answer repeats what a tool finds its request by, and no more.
func TestEcho(t *testing.T) {
	serve(t, newFake("vol0"))
	c := dial(t)
	b := start("vol0").frame(0xfffffffe)
	host.PutUint16(b[4:], 0x1234) // type, flags, sequence and port of the nlmsghdr count for nothing
	host.PutUint16(b[6:], 0xffff)
	host.PutUint32(b[8:], 77)
	host.PutUint32(b[28:], math.MaxUint32) // ack
	host.PutUint16(b[34:], 0xabcd)         // flags
	c.send(b)
	want := host.AppendUint32(nil, 52)
	want = host.AppendUint16(want, unix.NLMSG_DONE)
	want = host.AppendUint16(want, 0)
	for _, n := range []uint32{0xfffffffe, 0, abi.CnIdx, abi.CnVal, 0xfffffffe, 0} {
		want = host.AppendUint32(want, n)
	}
	want = host.AppendUint16(host.AppendUint16(want, 16), 0xabcd)
	want = append(want, make([]byte, 16)...)
	if got := c.recv(); !bytes.Equal(got, want) {
		t.Errorf("% x\nwant\n% x", got, want)
	}
}

// TestNotAnswered: what is not answered does no harm and delays nobody.
func TestNotAnswered(t *testing.T) {
	p := newFake("vol0")
	serve(t, p)
	whole := start("vol0").frame(1)
	patched := func(at int, v uint32) []byte {
		b := bytes.Clone(whole)
		host.PutUint32(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"one byte":                   whole[:1],
		"half a header":              whole[:15],
		"no cn_msg":                  whole[:16],
		"half a cn_msg":              whole[:35],
		"cut":                        whole[:99],
		"nlmsg_len 0":                patched(0, 0),
		"nlmsg_len 15":               patched(0, 15),
		"nlmsg_len 35":               patched(0, 35),
		"nlmsg_len beyond":           patched(0, 101),
		"nlmsg_len 2^32-1":           patched(0, math.MaxUint32),
		"another user's idx":         patched(16, abi.CnIdx+1),
		"another user's val":         patched(20, abi.CnVal+1),
		"another user's, and lying":  append(patched(16, 1)[:32], 255, 255, 0, 0),
		"60000 bytes, lying of more": append(patched(0, 60001), make([]byte, 60000-100)...),
	} {
		c := dial(t)
		c.seq = 6
		c.send(b)
		if errno := c.do(start("none")); errno != unix.ENODEV {
			t.Errorf("%s: then %v", name, errno)
		}
	}
	if calls := p.taken(); len(calls) != 0 {
		t.Errorf("the plane did %+v", calls)
	}
}

// TestFirstMessageOnly: what follows the first message of a datagram is ignored.
func TestFirstMessageOnly(t *testing.T) {
	p := newFake("vol0")
	serve(t, p)
	c := dial(t)
	c.seq = 1
	c.send(slices.Concat(start("vol0").frame(1), del("vol0").frame(2), make([]byte, 30000)))
	if errno := c.accept(); errno != 0 {
		t.Errorf("%v", errno)
	}
	if errno := c.do(start("vol0")); errno != 0 { // the next answer is that of the next request
		t.Errorf("%v", errno)
	}
	if calls := p.taken(); len(calls) != 2 || calls[0].method != "Start" || calls[1].method != "Start" {
		t.Errorf("the plane did %+v", calls)
	}
}

// TestGroup: a request may come by the group; its answer goes to its sender and
// to nobody else.
func TestGroup(t *testing.T) {
	serve(t, newFake("vol0"))
	c, member := dial(t), dial(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	// The tool's own mask is one off; it is a member by the socket option.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << abi.CnIdx}); err != nil {
		t.Fatal(err)
	}
	err = unix.Sendto(fd, start("vol0").frame(9), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (abi.CnIdx - 1)})
	if err != nil && err != unix.ECONNREFUSED { // the kernel itself does not listen in every namespace
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, b, 0)
	if err != nil || n != 52 || from.(*unix.SockaddrNetlink).Pid != abi.Port || from.(*unix.SockaddrNetlink).Groups != 0 {
		t.Fatalf("%d bytes from %+v, %v", n, from, err)
	}
	// Members heard the request, which is why nobody should send keys this way, but no answer.
	for _, m := range []*tool{c, member} {
		g, err := m.Recv(make([]byte, 100))
		if err != nil || g.Port == abi.Port {
			t.Fatalf("a member heard port %#x, %v", g.Port, err)
		}
		if errno := m.do(start("vol0")); errno != 0 {
			t.Error(errno)
		}
	}
}

// TestManyTools: each gets its own answers, in order.
func TestManyTools(t *testing.T) {
	serve(t, newFake("vol0"))
	var all sync.WaitGroup
	for range 8 {
		c := dial(t)
		all.Go(func() {
			for i := range 200 {
				name, want := "vol0", unix.Errno(0)
				if i%2 == 1 {
					name, want = "none", unix.ENODEV
				}
				if errno := c.do(start(name)); errno != want {
					t.Errorf("%v, want %v", errno, want)
				}
			}
		})
	}
	all.Wait()
}

// TestDeafTool: one that does not read its answers stops nobody.
func TestDeafTool(t *testing.T) {
	p := newFake("vol0")
	serve(t, p)
	deaf, c := dial(t), dial(t)
	raw := start("vol0").frame(1)
	for range 20_000 { // many times what fits its buffer
		deaf.send(raw)
	}
	if errno := c.do(start("vol0")); errno != 0 {
		t.Error(errno)
	}
	deaf.seq = 1
	if errno := deaf.accept(); errno != 0 {
		t.Error(errno)
	}
}

// asNobody calls f as another user, who keeps the capabilities if keep.
func asNobody(t *testing.T, keep bool, f func()) {
	t.Helper()
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		const noSetuidFixup = 1 << 2
		if keep {
			if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
				t.Error(err)
				return
			}
		}
		// Of this thread alone: unix.Setresuid would be of all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Error(errno)
			return
		}
		f()
	})
	done.Wait()
}

// TestNotRoot: the kernel lets nobody without CAP_NET_ADMIN send, and the door
// takes nothing from others than root.
func TestNotRoot(t *testing.T) {
	p := newFake("vol0")
	serve(t, p)
	c := dial(t)
	c.seq = 1
	asNobody(t, false, func() {
		if err := c.Send(abi.Port, start("vol0").frame(1)); err != unix.EPERM {
			t.Errorf("sent without a capability: %v", err)
		}
	})
	for _, b := range [][]byte{start("vol0").frame(1), framed(1, nil), framed(1, make([]byte, 60000))} {
		asNobody(t, true, func() {
			if err := c.Send(abi.Port, b); err != nil {
				t.Error(err)
			}
		})
		if errno := c.accept(); errno != unix.EPERM {
			t.Errorf("%d bytes of another user: %v", len(b), errno)
		}
	}
	if calls := p.taken(); len(calls) != 0 {
		t.Errorf("the plane did %+v", calls)
	}
}

func TestPortIsTaken(t *testing.T) {
	serve(t, newFake())
	want := fmt.Sprintf(" (pid %d)", os.Getpid())
	if _, err := Listen(); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestClose: the request in work is answered; nothing is served before Serve or
// after Close; closing again does nothing.
func TestClose(t *testing.T) {
	sock, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	p := newFake("vol0")
	p.slow, p.entered = make(chan struct{}), make(chan struct{})
	d := New(p, sock, zerolog.Nop())
	served := make(chan error, 1)
	go func() { served <- d.Serve() }()
	c := dial(t)
	c.seq = 1
	c.send(start("vol0").frame(1))
	<-p.entered
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	close(p.slow)
	if err := errors.Join(<-closed, <-served, d.Close()); err != nil {
		t.Error(err)
	}
	if errno := c.accept(); errno != 0 {
		t.Error(errno)
	}
	if err := c.Send(abi.Port, start("vol0").frame(1)); err != unix.ECONNREFUSED {
		t.Errorf("sent to a closed door: %v", err)
	}

	if sock, err = Listen(); err != nil {
		t.Fatal(err)
	}
	d = New(p, sock, zerolog.Nop())
	if err := errors.Join(d.Close(), d.Serve()); err != nil {
		t.Error(err)
	}
}

// TestBrokenSocket: Serve says why it is deaf.
func TestBrokenSocket(t *testing.T) {
	sock, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	if err := sock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := New(newFake(), sock, zerolog.Nop()).Serve(); err == nil {
		t.Error("a closed socket was served")
	}
}

// TestRefusalIsLogged: the sentence that has no room in the answer.
func TestRefusalIsLogged(t *testing.T) {
	var out bytes.Buffer
	d := New(newFake(), &pipe{}, zerolog.New(&out))
	d.receive(genl.Datagram{Data: start("vol0\n").frame(1), Size: 100, Port: 9, Cred: &unix.Ucred{}})
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `start \"vol0\\n\": there is no such node`) {
		t.Errorf("%q", s)
	}
}

// TestLeavesNoKey: after a request, granted or refused, its keys are nowhere.
func TestLeavesNoKey(t *testing.T) {
	key := bytes.Repeat([]byte("K"), 32)
	k := abi.CryptoCtl{Cipher: "cbc(aes)", CipherKey: key, Hash: "hmac(sha1)", HashKey: key}
	for name, r := range map[string]request{
		"granted":    crypto("vol0", k),
		"refused":    crypto("none", k),
		"half of it": crypto("vol0", k).cut(80 + 40),
	} {
		var out bytes.Buffer
		p, conn := newFake("vol0"), newPipe()
		d := New(p, conn, zerolog.New(&out))
		served := make(chan error, 1)
		go func() { served <- d.Serve() }()
		conn.in <- datagram(r.frame(1))
		answer := <-conn.out
		if err := errors.Join(d.Close(), <-served); err != nil {
			t.Error(err)
		}
		for where, b := range map[string][]byte{"buffer": conn.buf, "answer": answer, "log": out.Bytes(), "plane": slices.Concat(p.keys...)} {
			if bytes.Contains(b, []byte("KKKK")) {
				t.Errorf("%s: the key is left in the %s", name, where)
			}
		}
	}
}
