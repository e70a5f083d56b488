package controlplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
	"dst/controlplane/genl"
)

// TestTable: every operation of dst.yaml has its row, and no row is without one.
func TestTable(t *testing.T) {
	table := (&Door{}).table()
	for cmd, spec := range operations {
		row, ok := table[cmd]
		if !ok {
			t.Errorf("%s has no row", spec.name)
		}
		if (row.do != nil) != (spec.do != nil) || (row.dump != nil) != (spec.dump != nil) {
			t.Errorf("%s: the row has do %v, dump %v; dst.yaml has do %v, dump %v", spec.name, row.do != nil, row.dump != nil, spec.do != nil, spec.dump != nil)
		}
		if !spec.admin {
			t.Errorf("%s may be done by anybody", spec.name)
		}
	}
	for cmd := range table {
		if _, ok := operations[cmd]; !ok {
			t.Errorf("row %d is not in dst.yaml", cmd)
		}
	}
}

// ownNetNS gives the test's thread, for the rest of its life, a network
// namespace of its own.
func ownNetNS(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root for a network namespace of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// serve opens the door to p in the network namespace of the calling thread.
func serve(t *testing.T, p Plane) (d *Door, stop func()) {
	t.Helper()
	sock, err := genl.Listen(abi.Port)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = New(p, sock); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- d.Serve() }()
	return d, func() {
		if err := errors.Join(d.Close(), <-done); err != nil {
			t.Error(err)
		}
	}
}

// opened is a door to a fake plane and a client of it.
func opened(t *testing.T) (*fakePlane, *Door, *client.Client) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	ownNetNS(t)
	p := newFake()
	d, stop := serve(t, p)
	t.Cleanup(stop)
	return p, d, dial(t)
}

func dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func tcp(s string) abi.Addr { return abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort(s)) }

func export(name string) *abi.Node {
	return &abi.Node{Name: name, Device: "/srv/" + name, Addrs: []abi.Addr{tcp("0.0.0.0:9876")}}
}

func remote(name string) *abi.Node {
	return &abi.Node{Name: name, Addrs: []abi.Addr{tcp("10.0.0.1:9876")}, Attach: abi.AttachSocket, Socket: "/run/dst/" + name}
}

func TestEveryCommand(t *testing.T) {
	p, _, c := opened(t)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	vol0, vol1 := export("vol0"), remote("vol1")
	vol0.Knobs = abi.Knobs{Workers: new(uint32(4)), Arena: new(uint64(8 << 20))}
	vol1.Knobs = abi.Knobs{FailAfter: new(uint32(0))}
	must("add-export", c.AddExport(ctx, vol0))
	must("add-remote", c.AddRemote(ctx, vol1))
	rule := abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Perm: abi.PermRW}
	user := abi.Rule{Kind: abi.RuleKindUnix, ID: new(uint32(1000)), Perm: abi.PermRead}
	must("security", c.AddRule(ctx, "vol0", rule))
	must("security", c.AddRule(ctx, "vol0", user))
	must("start", c.Start(ctx, "vol0"))
	must("set", c.Set(ctx, &abi.Node{Name: "vol1", Flags: abi.NodeFlagReadOnly, Mask: abi.NodeFlagReadOnly, Knobs: abi.Knobs{Keepalive: new(uint32(500))}}))

	n, err := c.Get(ctx, "vol0")
	must("get", err)
	vol0.Kind, vol0.Status = abi.KindExport, &abi.Status{State: abi.StateServing, Rules: []abi.Rule{rule, user}}
	if !reflect.DeepEqual(n, vol0) {
		t.Errorf("get: %+v, want %+v", n, vol0)
	}
	all, err := c.List(ctx)
	must("dump", err)
	if len(all) != 2 || all[1].Flags != abi.NodeFlagReadOnly || *all[1].Knobs.Keepalive != 500 || *all[1].Knobs.FailAfter != 0 || all[1].Kind != abi.KindRemote {
		t.Errorf("dump: %+v", all)
	}
	must("security-del", c.DelRule(ctx, "vol0", rule))
	rules, err := c.Rules(ctx, "")
	must("security-get", err)
	if len(rules) != 1 || rules[0].Name != "vol0" || !reflect.DeepEqual(rules[0].Rules, []abi.Rule{user}) {
		t.Errorf("security-get: %+v", rules)
	}
	if rules, err = c.Rules(ctx, "vol0"); err != nil || len(rules) != 1 {
		t.Errorf("security-get of vol0: %v, %+v", err, rules)
	}
	counters, err := c.Stats(ctx, "vol1")
	must("stats", err)
	if counters.Reads != 7 || counters.WrittenBytes != 1<<40 {
		t.Errorf("stats: %+v", counters)
	}
	stats, err := c.ListStats(ctx)
	must("stats", err)
	if len(stats) != 2 || stats[1].Name != "vol1" {
		t.Errorf("stats: %+v", stats)
	}
	e, err := c.Subscribe(ctx)
	must("subscribe", err)
	sys, err := c.Sys(ctx)
	must("sys", err)
	if sys.Nodes != 2 || sys.Subscribers != 1 || sys.Version != "test" {
		t.Errorf("sys: %+v", sys)
	}
	must("close", e.Close())
	must("del-node", c.Del(ctx, "vol1", false))
	if err := c.Del(ctx, "vol0", false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("del-node of a started node: %v, want EBUSY", err)
	}
	must("del-node, force", c.Del(ctx, "vol0", true))
	if names := p.Names(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// TestCryptoLeavesNoKey: after the answer the plane's slices are erased, and the
// refusal says nothing of the key.
func TestCryptoLeavesNoKey(t *testing.T) {
	p, _, c := opened(t)
	if err := c.AddExport(t.Context(), export("vol0")); err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte("K"), 32)
	for _, cipher := range []string{"gcm(aes)", "rot13"} {
		err := c.Crypto(t.Context(), &abi.Crypto{Name: "vol0", Cipher: cipher, CipherKey: key, Hash: "hmac(sha1)", HashKey: key})
		if (err != nil) != (cipher == "rot13") {
			t.Errorf("%s: %v", cipher, err)
		}
		if err != nil && strings.Contains(err.Error(), "KK") {
			t.Errorf("the key is in the error: %v", err)
		}
	}
	if string(key) != strings.Repeat("K", 32) {
		t.Error("the caller's key was erased: it is the caller's")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.copies) != 4 {
		t.Fatalf("the plane got %d keys", len(p.copies))
	}
	for i := range p.keys {
		if !bytes.Equal(p.copies[i], key) {
			t.Errorf("key %d came as %q", i, p.copies[i])
		}
		if !bytes.Equal(p.keys[i], make([]byte, 32)) {
			t.Errorf("key %d is left: %q", i, p.keys[i])
		}
	}
}

func TestRefusals(t *testing.T) {
	p, _, c := opened(t)
	ctx := t.Context()
	if err := errors.Join(c.AddExport(ctx, export("vol0")), c.AddRemote(ctx, remote("vol1"))); err != nil {
		t.Fatal(err)
	}
	node := func(change func(n *abi.Node)) *abi.Node {
		n := remote("new")
		change(n)
		return n
	}
	add := func(change func(n *abi.Node)) error { return c.AddRemote(ctx, node(change)) }
	exp := func(change func(n *abi.Node)) error {
		n := export("new")
		change(n)
		return c.AddExport(ctx, n)
	}
	set := func(n abi.Node) error { n.Name = "vol1"; return c.Set(ctx, &n) }
	path := func(p ...uint16) []uint16 { return p }
	for _, tt := range []struct {
		name  string
		err   error
		errno unix.Errno
		attr  []uint16
		nth   int
	}{
		{"duplicate name", c.AddRemote(ctx, remote("vol0")), unix.EEXIST, path(abi.AttrNodeName), 0},
		{"no name", add(func(n *abi.Node) { n.Name = "" }), unix.EINVAL, nil, 0},
		{"bad name", add(func(n *abi.Node) { n.Name = "a/b" }), unix.EINVAL, path(abi.AttrNodeName), 0},
		{"name of 32", add(func(n *abi.Node) { n.Name = strings.Repeat("x", 32) }), unix.ERANGE, path(abi.AttrNodeName), 0},
		{"NUL in the name", add(func(n *abi.Node) { n.Name = "a\x00b" }), unix.EINVAL, path(abi.AttrNodeName), 0},
		{"no address", add(func(n *abi.Node) { n.Addrs = nil }), unix.EINVAL, nil, 0},
		{"sockaddr too long", add(func(n *abi.Node) { n.Addrs[0].Sockaddr = strings.Repeat("x", 131) }), unix.ERANGE, path(abi.AttrNodeAddress, abi.AttrAddressSockaddr), 0},
		{"path too long", add(func(n *abi.Node) { n.Socket = "/" + strings.Repeat("x", 107) }), unix.ERANGE, path(abi.AttrNodeSocket), 0},
		{"unknown attach", add(func(n *abi.Node) { n.Attach = 9 }), unix.EINVAL, path(abi.AttrNodeAttach), 0},
		{"unknown flag", add(func(n *abi.Node) { n.Flags = 1 << 20 }), unix.EINVAL, path(abi.AttrNodeFlags), 0},
		{"depth 0", add(func(n *abi.Node) { n.Knobs.Depth = new(uint32(0)) }), unix.ERANGE, path(abi.AttrNodeDepth), 0},
		{"a remote's device", add(func(n *abi.Node) { n.Device = "/dev/sda" }), unix.EINVAL, path(abi.AttrNodeDevice), 0},
		{"a remote's workers", add(func(n *abi.Node) { n.Knobs.Workers = new(uint32(1)) }), unix.EINVAL, path(abi.AttrNodeWorkers), 0},
		{"state in a request", add(func(n *abi.Node) { n.Status = &abi.Status{} }), unix.EINVAL, path(abi.AttrNodeState), 0},
		{"no device", exp(func(n *abi.Node) { n.Device = "" }), unix.EINVAL, nil, 0},
		{"address in use", exp(func(n *abi.Node) { n.Addrs = append(n.Addrs, abi.UnixAddr("/in/use")) }), unix.EADDRINUSE, path(abi.AttrNodeAddress), 1},
		{"unknown node", c.Start(ctx, "none"), unix.ENODEV, path(abi.AttrNodeName), 0},
		{"unknown node", c.Del(ctx, "none", true), unix.ENODEV, path(abi.AttrNodeName), 0},
		{"set depth", set(abi.Node{Knobs: abi.Knobs{Depth: new(uint32(1))}}), unix.EINVAL, path(abi.AttrNodeDepth), 0},
		{"no such rule", c.DelRule(ctx, "vol0", abi.Rule{Kind: abi.RuleKindAny}), unix.ENOENT, nil, 0},
		{"crypto of no node", c.Crypto(ctx, &abi.Crypto{Name: "none", Hash: "x"}), unix.ENODEV, path(abi.AttrCryptoName), 0},
		{"rules of a remote", errOf(c.Rules(ctx, "vol1")), unix.EINVAL, path(abi.AttrNodeName), 0},
		{"rules of no node", errOf(c.Rules(ctx, "none")), unix.ENODEV, path(abi.AttrNodeName), 0},
		{"get of no node", errOf(c.Get(ctx, "none")), unix.ENODEV, path(abi.AttrNodeName), 0},
		{"stats of no node", errOf(c.Stats(ctx, "none")), unix.ENODEV, path(abi.AttrNodeName), 0},
	} {
		var e *client.Error
		if !errors.As(tt.err, &e) || e.Errno != tt.errno || !slices.Equal(e.Attr, tt.attr) || e.Nth != tt.nth || e.Msg == "" || !errors.Is(tt.err, tt.errno) {
			t.Errorf("%s: got %#v, want %v at %v, %d", tt.name, tt.err, tt.errno, tt.attr, tt.nth)
		}
	}
	if names := p.Names(); !slices.Equal(names, []string{"vol0", "vol1"}) {
		t.Errorf("refused requests changed something: %v", names)
	}
}

func errOf(_ any, err error) error { return err }

// TestTwoRules: one rule a request; the second one is to blame.
func TestTwoRules(t *testing.T) {
	_, _, c := opened(t)
	if err := c.AddExport(t.Context(), export("vol0")); err != nil {
		t.Fatal(err)
	}
	any := abi.Rule{Kind: abi.RuleKindAny}
	b, err := abi.Marshal(&abi.NodeRules{Name: "vol0", Rules: []abi.Rule{any, any}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRaw(t)
	if errno, _ := r.ask(t, message(abi.FamilyID, unix.NLM_F_REQUEST|unix.NLM_F_ACK, abi.CmdSecurity, b)); errno != unix.EINVAL {
		t.Errorf("got %v, want EINVAL", errno)
	}
}

// TestManyNodes: a dump of 1000 rows of more than 1 KB is paced, none is missing.
func TestManyNodes(t *testing.T) {
	p, _, c := opened(t)
	p.mu.Lock()
	p.pad = strings.Repeat("why ", 256)
	p.mu.Unlock()
	const many = 1000
	for i := range many {
		if err := c.AddExport(t.Context(), export(fmt.Sprint("vol", i))); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	all, err := c.List(t.Context())
	if err != nil || len(all) != many {
		t.Fatalf("%d of %d nodes: %v", len(all), many, err)
	}
	for i, n := range all {
		if n.Name != fmt.Sprint("vol", i) || n.Status.Reason != p.pad {
			t.Fatalf("row %d is %q", i, n.Name)
		}
	}
	t.Logf("%d rows in %v", many, time.Since(start))
	if rules, err := c.Rules(t.Context(), ""); err != nil || len(rules) != many {
		t.Errorf("rules of %d exports: %v", len(rules), err)
	}
	if stats, err := c.ListStats(t.Context()); err != nil || len(stats) != many {
		t.Errorf("counters of %d nodes: %v", len(stats), err)
	}
}

// TestLargeNode: more sessions and rules than fit one message.
func TestLargeNode(t *testing.T) {
	p, _, c := opened(t)
	if err := c.AddExport(t.Context(), export("vol0")); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	s := p.nodes["vol0"].Status
	s.Warnings = []string{"first"}
	for i := range 1000 {
		peer := tcp(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256))
		s.Sessions = append(s.Sessions, abi.Session{Peer: peer, ClientID: abi.ID{byte(i)}, Epoch: 1, Perm: abi.PermRW, Age: 1, InFlight: 1, Workers: 1})
		ap, _ := peer.AddrPort()
		s.Rules = append(s.Rules, abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.PrefixFrom(ap.Addr(), 32), Perm: abi.PermRW})
	}
	p.mu.Unlock()
	n, err := c.Get(t.Context(), "vol0")
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Status.Sessions) != maxSessions || len(n.Status.Rules) != maxRules || len(n.Status.Warnings) != 3 {
		t.Errorf("%d sessions, %d rules, %q", len(n.Status.Sessions), len(n.Status.Rules), n.Status.Warnings)
	}
	if len(s.Warnings) != 1 {
		t.Errorf("the plane's own value was changed: %q", s.Warnings)
	}
	rules, err := c.Rules(t.Context(), "vol0")
	if err != nil || len(rules) != 1 || !reflect.DeepEqual(rules[0].Rules, s.Rules) {
		t.Errorf("%v: rules are missing", err)
	}
}

// raw is a netlink socket without any manners.
type raw struct {
	fd  int
	buf []byte
}

func newRaw(t *testing.T) *raw {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: abi.Port}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	return &raw{fd, make([]byte, 1<<17)}
}

func (r *raw) send(b []byte) error { return unix.Send(r.fd, b, unix.MSG_DONTWAIT) }

// ask sends b and returns the errno of the answer and its bytes.
func (r *raw) ask(t *testing.T, b []byte) (unix.Errno, []byte) {
	t.Helper()
	if err := r.send(b); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Read(r.fd, r.buf)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	got := bytes.Clone(r.buf[:n])
	if n < 36 || binary.NativeEndian.Uint16(got[4:]) != unix.NLMSG_ERROR {
		return 0, got
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(got[16:]))), got
}

// message is a generic-netlink message.
func message(typ, flags uint16, cmd uint8, attrs []byte) []byte {
	h := binary.NativeEndian
	b := h.AppendUint32(nil, uint32(20+len(attrs)))
	b = h.AppendUint16(b, typ)
	b = h.AppendUint16(b, flags)
	b = h.AppendUint32(b, 1)
	b = h.AppendUint32(b, 0)
	return append(append(b, cmd, abi.FamilyVersion, 0, 0), attrs...)
}

// attribute is one attribute whose header says what it is told to.
func attribute(typ, length uint16, value string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, length)
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestMalformed(t *testing.T) {
	p, _, c := opened(t)
	r := newRaw(t)
	const do, dump = unix.NLM_F_REQUEST | unix.NLM_F_ACK, unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	name := attribute(abi.AttrNodeName, 9, "vol0\x00")
	deep := attribute(abi.AttrAddressType, 8, "\x01\x00\x00\x00")
	for range 12 {
		deep = attribute(abi.AttrNodeAddress|netlink.Nested, uint16(4+len(deep)), string(deep))
	}
	secret := bytes.Repeat([]byte{0xa5}, 40)
	short := message(abi.FamilyID, do, abi.CmdStart, nil)[:unix.NLMSG_HDRLEN]
	binary.NativeEndian.PutUint32(short, unix.NLMSG_HDRLEN)
	for _, tt := range []struct {
		name  string
		b     []byte
		errno unix.Errno
	}{
		{"no generic header", short, unix.EINVAL},
		{"unknown family", message(abi.FamilyID+1, do, 1, name), unix.ENOENT},
		{"unknown command", message(abi.FamilyID, do, 200, name), unix.EOPNOTSUPP},
		{"event as a request", message(abi.FamilyID, do, abi.CmdEvent, nil), unix.EOPNOTSUPP},
		{"dump of start", message(abi.FamilyID, dump, abi.CmdStart, name), unix.EOPNOTSUPP},
		{"do of security-get", message(abi.FamilyID, do, abi.CmdSecurityGet, name), unix.EOPNOTSUPP},
		{"no attributes", message(abi.FamilyID, do, abi.CmdStart, nil), unix.EINVAL},
		{"given twice", message(abi.FamilyID, do, abi.CmdStart, append(bytes.Clone(name), name...)), unix.EINVAL},
		{"unknown attribute", message(abi.FamilyID, do, abi.CmdStart, append(bytes.Clone(name), attribute(99, 4, "")...)), unix.EINVAL},
		{"attribute 0", message(abi.FamilyID, do, abi.CmdStart, attribute(0, 4, "")), unix.EINVAL},
		{"length 0", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName, 0, "vol0\x00")), unix.EINVAL},
		{"length 3", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName, 3, "vol0\x00")), unix.EINVAL},
		{"length 65535", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName, 65535, "vol0\x00")), unix.EINVAL},
		{"no NUL", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName, 8, "vol0")), unix.EINVAL},
		{"two NULs", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName, 10, "vol0\x00\x00")), unix.EINVAL},
		{"nest without its flag", message(abi.FamilyID, do, abi.CmdSecurity, append(bytes.Clone(name), attribute(abi.AttrNodeRule, 4, "")...)), unix.EINVAL},
		{"nest flag on a string", message(abi.FamilyID, do, abi.CmdStart, attribute(abi.AttrNodeName|netlink.Nested, 9, "vol0\x00")), unix.EINVAL},
		{"nested too deep", message(abi.FamilyID, do, abi.CmdAddRemote, append(bytes.Clone(name), deep...)), unix.EINVAL},
		{"bytes left over", message(abi.FamilyID, do, abi.CmdStart, append(bytes.Clone(name), 1, 2)), unix.EINVAL},
		{"number of 2 bytes", message(abi.FamilyID, do, abi.CmdSet, append(bytes.Clone(name), attribute(abi.AttrNodeKeepalive, 6, "\x01\x00")...)), unix.EINVAL},
		{"key of 1025", message(abi.FamilyID, do, abi.CmdCrypto, append(bytes.Clone(name), attribute(abi.AttrCryptoCipherKey, 4+1025, strings.Repeat("k", 1025))...)), unix.ERANGE},
		{"key and no node", message(abi.FamilyID, do, abi.CmdCrypto, append(append(bytes.Clone(name), attribute(abi.AttrCryptoHash, 6, "x\x00")...), attribute(abi.AttrCryptoHashKey, 44, string(secret))...)), unix.ENODEV},
		{"65540 bytes", message(abi.FamilyID, do, abi.CmdStart, make([]byte, 65520)), unix.EMSGSIZE},
	} {
		errno, answer := r.ask(t, tt.b)
		if errno != tt.errno {
			t.Errorf("%s: got %v, want %v", tt.name, errno, tt.errno)
		}
		if bytes.Contains(answer, secret[:4]) {
			t.Errorf("%s: the answer repeats the key", tt.name)
		}
	}
	// What cannot be answered is dropped, and disturbs nobody.
	lying := message(abi.FamilyID, do, abi.CmdStart, name)
	for _, length := range []uint32{0, 1, 15, 1 << 31, 1<<32 - 1} {
		binary.NativeEndian.PutUint32(lying, length)
		if err := r.send(lying); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 16 {
		if err := r.send(lying[:n]); n > 0 && err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Sys(t.Context()); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if names := p.Names(); len(names) != 0 {
		t.Errorf("a malformed request was obeyed: %v", names)
	}
}

// asNobody runs f on a thread of uid 65534 in the test's network namespace.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends here: it is nobody's for good
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				err = errno
			}
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestNobodyIsRefused(t *testing.T) {
	_, d, c := opened(t)
	root := newRaw(t) // connected by root, used by nobody
	asNobody(t, func() {
		if _, err := client.Dial(client.Options{}); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "only root") {
			t.Errorf("Dial: got %v, want EPERM", err)
		}
		if _, err := c.Sys(context.Background()); !errors.Is(err, unix.EPERM) {
			t.Errorf("root's client: got %v, want EPERM", err)
		}
		before := d.Counts().Requests
		if errno, _ := root.ask(t, message(abi.FamilyID, unix.NLM_F_REQUEST|unix.NLM_F_ACK, abi.CmdStart, []byte("no attribute"))); errno != unix.EPERM {
			t.Errorf("root's socket: got %v, want EPERM", errno)
		}
		if d.Counts().Requests != before {
			t.Error("a request of nobody was taken")
		}
	})
	if _, err := c.Sys(t.Context()); err != nil {
		t.Errorf("root: %v", err)
	}
}
