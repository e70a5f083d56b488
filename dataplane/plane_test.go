package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/nbd"
)

// world is the directories of one host, on a tmpfs of its own, and what its
// daemon tells.
type world struct {
	t       *testing.T
	dir     string
	changed chan struct{}

	mu     sync.Mutex
	events []abi.Event
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatalf("the tests of the plane mount their own tmpfs and need root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("something still uses %s: %v", dir, err)
		}
	})
	return &world{t: t, dir: dir, changed: make(chan struct{}, 1)}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// file makes a file of size bytes.
func (w *world) file(name string, size int64) string {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Truncate(w.path(name), size); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

func (w *world) notify(e abi.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// plane starts a daemon's plane; Close is the caller's.
func (w *world) plane() *Plane {
	w.t.Helper()
	p, err := New(Config{Version: "test", RunDir: w.path("run"), StateDir: w.path("state"), DevDir: w.path("dev"),
		Budget: 256 << 20, Log: zerolog.Nop(), Notify: w.notify})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// await waits until a node is in a state; events wake it.
func (w *world) await(p *Plane, name string, state abi.State) *abi.Node {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		n, err := p.Get(name)
		if err != nil {
			w.t.Fatal(err)
		}
		if n.Status.State == state {
			return n
		}
		select {
		case <-w.changed:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			w.t.Fatalf("%s is %v (%s), want %v", name, n.Status.State, n.Status.Reason, state)
		}
	}
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t *testing.T) abi.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return abi.NetAddr(unix.IPPROTO_TCP, l.Addr().(*net.TCPAddr).AddrPort())
}

var loopback = abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("127.0.0.0/8"), Perm: abi.PermRW}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair exports a file of 4 MiB as vol0 and attaches it as disk0.
func (w *world) pair(p *Plane) abi.Addr {
	w.t.Helper()
	at := freeAddr(w.t)
	ok(w.t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 4<<20), Addrs: []abi.Addr{at}}))
	ok(w.t, p.AddRule("vol0", loopback))
	ok(w.t, p.Start("vol0"))
	ok(w.t, p.AddRemote(&abi.Node{Name: "disk0", Export: "vol0", Addrs: []abi.Addr{at}, Attach: abi.AttachSocket,
		Socket: w.path("disk0.sock"), Flags: abi.NodeFlagStarted}))
	w.await(p, "disk0", abi.StateEstablished)
	return at
}

func TestExportAndRemoteEndToEnd(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	w.pair(p)
	c := dialNBD(t, w.path("disk0.sock"))
	want := bytes.Repeat([]byte("dst "), 1024)
	ok(t, c.write(8192, want))
	ok(t, c.flush())
	got, err := c.read(8192, len(want))
	ok(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("other bytes came back")
	}
	b, err := os.ReadFile(w.path("vol0.img"))
	ok(t, err)
	if !bytes.Equal(b[8192:8192+len(want)], want) {
		t.Fatal("the file has other bytes")
	}
	var f *abi.Fault
	if err := p.Del("disk0", false); !errors.Is(err, unix.EBUSY) || !errors.As(err, &f) || f.Attr != abi.AttrNodeName || !strings.Contains(err.Error(), "1 NBD client") {
		t.Fatalf("a remote in use was removed: %v", err)
	}
	if err := p.Del("vol0", false); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("an export in use was removed: %v", err)
	}
	ok(t, p.Del("vol0", true))
	ok(t, p.Del("disk0", true))
	if names := p.Names(); len(names) != 0 {
		t.Fatalf("left: %q", names)
	}
	if _, err := os.Stat(w.path("disk0.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket is still there: %v", err)
	}
	if used := p.Sys().BudgetUsed; used != 0 {
		t.Fatalf("%d bytes of payload memory are still in use", used)
	}
}

func TestRestartBringsNodesBack(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	before, err := p.Get("disk0")
	ok(t, err)
	c := dialNBD(t, w.path("disk0.sock"))
	ok(t, c.write(0, bytes.Repeat([]byte{'x'}, 4096)))
	ok(t, c.flush())
	if _, err := New(Config{RunDir: w.path("run"), StateDir: w.path("state"), DevDir: w.path("dev")}); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a second daemon took the run directory: %v", err)
	}
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	after := w.await(p, "disk0", abi.StateEstablished)
	if after.Status.ClientID != before.Status.ClientID || after.Status.Epoch <= before.Status.Epoch {
		t.Fatalf("client %v epoch %d became %v epoch %d", before.Status.ClientID, before.Status.Epoch, after.Status.ClientID, after.Status.Epoch)
	}
	if after.Status.StoreID != before.Status.StoreID || after.Status.Verifier == before.Status.Verifier {
		t.Fatal("the store must be the same, its life another")
	}
	vol, err := p.Get("vol0")
	ok(t, err)
	if len(vol.Status.Rules) != 1 || vol.Status.Rules[0] != loopback || vol.Status.State != abi.StateServing {
		t.Fatalf("%+v", vol.Status)
	}
	got, err := dialNBD(t, w.path("disk0.sock")).read(0, 4096)
	ok(t, err)
	if got[0] != 'x' {
		t.Fatal("the data is gone")
	}
}

func TestAnotherBootIsForgotten(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	ok(t, p.AddRemote(&abi.Node{Name: "a", Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachNone}))
	p.Close()
	ok(t, os.WriteFile(w.path("run/boot"), []byte("another boot\n"), 0o600))
	p = w.plane()
	defer p.Close()
	p.Restore()
	if names := p.Names(); len(names) != 0 {
		t.Fatalf("%q came back from another boot", names)
	}
}

// TestRefusedRequestsChangeNothing is the table of bad input: errno, a word of
// the sentence, and nothing left behind.
// noDriver is a host without the kernel's NBD driver.
func noDriver(zerolog.Logger) (*nbd.Driver, error) {
	return nil, fmt.Errorf("no driver: run modprobe nbd: %w", unix.EOPNOTSUPP)
}

func TestRefusedRequestsChangeNothing(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	p.openDriver = noDriver
	file := w.file("f", 1<<20)
	taken, at := freeAddr(t), freeAddr(t)
	ok(t, p.AddExport(&abi.Node{Name: "there", Device: w.file("g", 1<<20), Addrs: []abi.Addr{taken}}))
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer foreign.Close()
	foreignAddr := abi.NetAddr(unix.IPPROTO_TCP, foreign.Addr().(*net.TCPAddr).AddrPort())
	ok(t, os.WriteFile(w.path("plain"), nil, 0o600))
	export := func(change func(n *abi.Node)) func() error {
		return func() error {
			n := &abi.Node{Name: "new", Device: file, Addrs: []abi.Addr{at}}
			change(n)
			return p.AddExport(n)
		}
	}
	remote := func(change func(n *abi.Node)) func() error {
		return func() error {
			n := &abi.Node{Name: "new", Addrs: []abi.Addr{at}, Attach: abi.AttachNone}
			change(n)
			return p.AddRemote(n)
		}
	}
	number := func(n uint32) *uint32 { return &n }
	for _, c := range []struct {
		name  string
		do    func() error
		errno unix.Errno
		says  string
	}{
		{"duplicate name", export(func(n *abi.Node) { n.Name = "there" }), unix.EEXIST, "exists"},
		{"empty name", export(func(n *abi.Node) { n.Name = "" }), unix.EINVAL, "name"},
		{"bad name", export(func(n *abi.Node) { n.Name = "../x" }), unix.EINVAL, "name"},
		{"long name", export(func(n *abi.Node) { n.Name = strings.Repeat("n", 32) }), unix.EINVAL, "name"},
		{"missing device", export(func(n *abi.Node) { n.Device = w.path("none") }), unix.ENOENT, "none"},
		{"relative device", export(func(n *abi.Node) { n.Device = "f" }), unix.EINVAL, "absolute"},
		{"directory", export(func(n *abi.Node) { n.Device = w.dir }), 0, ""},
		{"device in use", export(func(n *abi.Node) { n.Device = w.path("g") }), unix.EBUSY, ""},
		{"size beyond device", export(func(n *abi.Node) { n.Size = 2 << 20 }), 0, ""},
		{"empty file", export(func(n *abi.Node) { n.Device = w.file("empty", 0) }), 0, ""},
		{"no address", export(func(n *abi.Node) { n.Addrs = nil }), unix.EDESTADDRREQ, "address"},
		{"address in use", export(func(n *abi.Node) { n.Addrs = []abi.Addr{foreignAddr} }), unix.EADDRINUSE, ""},
		{"address of nobody", export(func(n *abi.Node) {
			n.Addrs = []abi.Addr{abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("192.0.2.1:99"))}
		}), unix.EADDRNOTAVAIL, ""},
		{"short address", export(func(n *abi.Node) { n.Addrs = []abi.Addr{{Type: 1, Sockaddr: "\x02\x00x"}} }), unix.EINVAL, "bytes"},
		{"started without a rule", export(func(n *abi.Node) { n.Flags = abi.NodeFlagStarted }), unix.EINVAL, "rule"},
		{"unknown digest", export(func(n *abi.Node) { n.Hash = "md5" }), unix.EINVAL, "md5"},
		{"contradiction", export(func(n *abi.Node) { n.Flags = abi.NodeFlagDirect | abi.NodeFlagBuffered }), unix.EINVAL, "exclude"},
		{"log-age", remote(func(n *abi.Node) { n.Knobs.LogAge = number(5) }), unix.ERANGE, "log-age"},
		{"log-age of an export", func() error {
			return p.Set(&abi.Node{Name: "there", Knobs: abi.Knobs{LogAge: number(5000)}})
		}, unix.EINVAL, "remotes"},
		{"knob out of range", remote(func(n *abi.Node) { n.Knobs.Depth = number(0) }), unix.ERANGE, "depth"},
		{"no peer", remote(func(n *abi.Node) { n.Addrs = nil }), unix.EDESTADDRREQ, "peer"},
		{"no kernel driver", remote(func(n *abi.Node) { n.Attach, n.Flags = 0, abi.NodeFlagStarted }), unix.EOPNOTSUPP, "modprobe"},
		{"partscan of a socket", remote(func(n *abi.Node) { n.Flags = abi.NodeFlagNoPartscan }), unix.EINVAL, "partscan"},
		{"name of the sole export", remote(func(n *abi.Node) { n.Flags, n.Export = abi.NodeFlagSole, "e" }), unix.EINVAL, "sole"},
		{"size and flag together", func() error {
			return p.Set(&abi.Node{Name: "there", Size: 4096, Mask: abi.NodeFlagReadOnly})
		}, unix.EINVAL, "own"},
		{"half a sector", func() error { return p.Set(&abi.Node{Name: "there", Size: 4097}) }, unix.EINVAL, "sectors"},
		{"more than there is", func() error { return p.Set(&abi.Node{Name: "there", Size: 1 << 30}) }, unix.ERANGE, "1048576"},
		{"socket without directory", remote(func(n *abi.Node) { n.Attach, n.Socket = abi.AttachSocket, w.path("no/s") }), unix.ENOENT, "directory"},
		{"socket is a file", remote(func(n *abi.Node) { n.Attach, n.Socket = abi.AttachSocket, w.path("plain") }), unix.EEXIST, "something else"},
		{"relative socket", remote(func(n *abi.Node) { n.Attach, n.Socket = abi.AttachSocket, "s" }), unix.EINVAL, "absolute"},
		{"flag of exports", remote(func(n *abi.Node) { n.Flags = abi.NodeFlagShared }), unix.EINVAL, "shared"},
		{"start of nobody", func() error { return p.Start("nobody") }, unix.ENODEV, "nobody"},
		{"start without a rule", func() error { return p.Start("there") }, unix.EINVAL, "rule"},
		{"del of nobody", func() error { return p.Del("nobody", true) }, unix.ENODEV, "nobody"},
		{"rule of nobody", func() error { return p.AddRule("nobody", loopback) }, unix.ENODEV, "nobody"},
		{"rule that is not there", func() error { return p.DelRule("there", loopback) }, 0, ""},
		{"key file", func() error { return p.Crypto(&abi.Crypto{Name: "there", Cipher: "gcm(aes)", CipherKeyFile: "/k"}) }, unix.ENOENT, "/k"},
		{"set of a remote's knob", func() error {
			return p.Set(&abi.Node{Name: "there", Knobs: abi.Knobs{FailAfter: number(1)}})
		}, unix.EINVAL, "remotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, err := p.Get("there")
			ok(t, err)
			err = c.do()
			var errno unix.Errno
			if !errors.As(err, &errno) || c.errno != 0 && errno != c.errno || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("errno %v: %v", errno, err)
			}
			t.Log(err)
			if names := p.Names(); !slices.Equal(names, []string{"there"}) {
				t.Fatalf("now there are %q", names)
			}
			if _, err := os.Stat(w.path("run/nodes/new")); err == nil {
				t.Fatal("the run directory remembers a node that was refused")
			}
			after, err := p.Get("there")
			ok(t, err)
			if after.Status.State != before.Status.State || len(after.Status.Rules) != len(before.Status.Rules) || after.Hash != before.Hash {
				t.Fatalf("changed: %+v", after)
			}
		})
	}
	// what was refused did not keep the address or the file
	ok(t, p.AddExport(&abi.Node{Name: "new", Device: file, Addrs: []abi.Addr{at}}))
}

func TestSocketPathsAreClaimed(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	n := abi.Node{Name: "a", Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachSocket, Socket: w.path("s")}
	ok(t, p.AddRemote(&n))
	b := n
	b.Name = "b"
	if err := p.AddRemote(&b); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatal(err)
	}
	ok(t, p.Del("a", false))
	ok(t, p.AddRemote(&b))
}

// TestReadOnlyCanBeTakenBack: what set has made read-only can be made writable
// again, by a later daemon, too; what was added so can not.
func TestReadOnlyCanBeTakenBack(t *testing.T) {
	w := newWorld(t)
	turn := func(p *Plane, on abi.NodeFlag) error {
		return p.Set(&abi.Node{Name: "vol0", Mask: abi.NodeFlagReadOnly, Flags: on})
	}
	p := w.plane()
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 1<<20), Addrs: []abi.Addr{freeAddr(t)}}))
	ok(t, turn(p, abi.NodeFlagReadOnly))
	for range 2 { // each daemon remembers it anew
		p.Close()
		p = w.plane()
		p.Restore()
		n, err := p.Get("vol0")
		ok(t, err)
		if n.Flags&abi.NodeFlagReadOnly == 0 || n.Status.Perm != abi.PermRead || n.Mask != 0 {
			t.Fatalf("after a restart: %+v, %v", n, n.Status.Perm)
		}
	}
	ok(t, turn(p, 0))
	p.Close()
	p = w.plane()
	p.Restore()
	defer func() { p.Close() }()
	if n, err := p.Get("vol0"); err != nil || n.Status.Perm != abi.PermRW {
		t.Fatalf("%+v, %v", n, err)
	}
	// One that was added read-only was never opened for writing.
	ok(t, p.Del("vol0", false))
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.path("vol0.img"), Addrs: []abi.Addr{freeAddr(t)}, Flags: abi.NodeFlagReadOnly}))
	ok(t, turn(p, abi.NodeFlagReadOnly))
	p.Close()
	p = w.plane()
	p.Restore()
	if err := turn(p, 0); !errors.Is(err, unix.EROFS) {
		t.Fatal(err)
	}
}

func TestSetIsRememberedAndShown(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	number := func(n uint32) *uint32 { return &n }
	ok(t, p.Set(&abi.Node{Name: "disk0", Knobs: abi.Knobs{Keepalive: number(500), FailAfter: number(60000)}}))
	ok(t, p.Set(&abi.Node{Name: "vol0", Knobs: abi.Knobs{Workers: number(3)}, Mask: abi.NodeFlagReadOnly, Flags: abi.NodeFlagReadOnly}))
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	disk, err := p.Get("disk0")
	ok(t, err)
	vol, err := p.Get("vol0")
	ok(t, err)
	if *disk.Knobs.Keepalive != 500 || *disk.Knobs.FailAfter != 60000 || *vol.Knobs.Workers != 3 || vol.Flags&abi.NodeFlagReadOnly == 0 {
		t.Fatalf("%+v %+v", disk.Knobs, vol.Knobs)
	}
	if !slices.Contains(disk.Default, abi.AttrNodeDepth) || slices.Contains(disk.Default, abi.AttrNodeKeepalive) {
		t.Fatalf("defaults %v", disk.Default)
	}
}

// TestSizesFollow: a larger file reaches the users of a remote, a limit is
// remembered, and what is in use does not become smaller.
func TestSizesFollow(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	size := func(name string, want uint64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; {
			n, err := p.Get(name)
			ok(t, err)
			if n.Size == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s has %d bytes, want %d", name, n.Size, want)
			}
			select {
			case <-w.changed:
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	size("disk0", 4<<20)
	ok(t, os.Truncate(w.path("vol0.img"), 8<<20))
	ok(t, p.Set(&abi.Node{Name: "vol0", Size: abi.SizeAll}))
	size("vol0", 8<<20)
	size("disk0", 8<<20)
	c := dialNBD(t, w.path("disk0.sock"))
	ok(t, c.write(8<<20-512, make([]byte, 512)))
	ok(t, c.flush())
	if err := p.Set(&abi.Node{Name: "disk0", Size: 1 << 20}); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a device in use became smaller: %v", err)
	}
	if err := p.Set(&abi.Node{Name: "vol0", Size: 1 << 20}); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("an export became smaller under its client: %v", err)
	}
	c.Close()
	for end := time.Now().Add(20 * time.Second); p.Set(&abi.Node{Name: "disk0", Size: 1 << 20}) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the client does not leave")
		}
	}
	size("disk0", 1<<20)
	p.Close()
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.await(p, "disk0", abi.StateEstablished)
	size("disk0", 1<<20)
	size("vol0", 8<<20)
	ok(t, p.Set(&abi.Node{Name: "disk0", Size: abi.SizeAll}))
	size("disk0", 8<<20)
}

// TestStealTakesThePlace: a second client is refused while the first lives; with
// steal it is served, and the first can not go on.
func TestStealTakesThePlace(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	at := w.pair(p)
	ok(t, p.AddRemote(&abi.Node{Name: "disk1", Export: "vol0", Addrs: []abi.Addr{at}, Attach: abi.AttachNone, Flags: abi.NodeFlagStarted}))
	for {
		n, err := p.Get("disk1")
		ok(t, err)
		if strings.Contains(n.Status.Reason, "refused") {
			break
		}
		<-w.changed
	}
	if err := p.Steal("vol0"); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("an export stole: %v", err)
	}
	ok(t, p.Steal("disk1"))
	w.await(p, "disk1", abi.StateEstablished)
	for { // the first is refused as long as the second lives
		n, err := p.Get("disk0")
		ok(t, err)
		if strings.Contains(n.Status.Reason, "writes there") {
			break
		}
		<-w.changed
	}
	ok(t, p.Del("disk1", false))
	if n := w.await(p, "disk0", abi.StateFailed); !strings.Contains(n.Status.Reason, "another client") {
		t.Fatal(n.Status.Reason)
	}
}

// nbdConn is the smallest NBD client: one request at a time.
type nbdConn struct{ net.Conn }

func dialNBD(t *testing.T, path string) *nbdConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	ok(t, err)
	t.Cleanup(func() { c.Close() })
	ok(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	hello := make([]byte, 18)
	_, err = io.ReadFull(c, hello)
	ok(t, err)
	// client flags, then NBD_OPT_EXPORT_NAME with the default name
	_, err = c.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"))
	ok(t, err)
	_, err = io.ReadFull(c, make([]byte, 10))
	ok(t, err)
	return &nbdConn{c}
}

func (c *nbdConn) request(cmd byte, off uint64, length int, data []byte, reply []byte) error {
	b := []byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, cmd, 1, 2, 3, 4, 5, 6, 7, 8}
	for i := 56; i >= 0; i -= 8 {
		b = append(b, byte(off>>i))
	}
	b = append(b, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
	if _, err := c.Write(append(b, data...)); err != nil {
		return err
	}
	head := make([]byte, 16)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if e := head[7]; e != 0 {
		return unix.Errno(e)
	}
	_, err := io.ReadFull(c, reply)
	return err
}

func (c *nbdConn) write(off uint64, data []byte) error {
	return c.request(1, off, len(data), data, nil)
}

func (c *nbdConn) flush() error { return c.request(3, 0, 0, nil, nil) }

func (c *nbdConn) read(off uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	return b, c.request(0, off, n, nil, b)
}
