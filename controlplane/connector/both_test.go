package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane"
	"dst/controlplane/client"
	"dst/controlplane/genl"
	"dst/dataplane"
)

// step is one command, as a tool of the original sends it and as dstctl does.
type step struct {
	name string
	old  request
	now  func(context.Context, *client.Client) error
	want [2]unix.Errno // at either door
}

// Each of these is one command in both languages.
func asExport(name, device string, a abi.Addr, size uint64) step {
	return step{
		old: addExport(name, device, a).with(func(c *abi.Ctl) { c.Size, c.MaxPages = size, 4096 }),
		now: func(ctx context.Context, c *client.Client) error {
			return c.AddExport(ctx, &abi.Node{Name: name, Device: device, Addrs: []abi.Addr{a}, Size: size, Knobs: abi.Knobs{MaxPages: new(uint32(1024))}})
		},
	}
}

func asRemote(name string, a abi.Addr, size uint64) step {
	return step{
		old: addRemote(name, a).with(func(c *abi.Ctl) { c.Size, c.ScanTimeout, c.MaxRetries = size, 2000, 3 }),
		now: func(ctx context.Context, c *client.Client) error {
			return c.AddRemote(ctx, &abi.Node{Name: name, Addrs: []abi.Addr{a}, Size: size, Attach: abi.AttachNbd, Flags: abi.NodeFlagSole,
				Knobs: abi.Knobs{FailAfter: new(uint32(6000))}})
		},
	}
}

func asRule(name string, a abi.Addr, r abi.Rule) step {
	return step{
		old: secure(name, r.Perm, a),
		now: func(ctx context.Context, c *client.Client) error { return c.AddRule(ctx, name, r) },
	}
}

func asCrypto(name string, k abi.CryptoCtl) step {
	return step{
		old: crypto(name, k),
		now: func(ctx context.Context, c *client.Client) error {
			c2 := &abi.Crypto{Name: name, Cipher: k.Cipher, Hash: k.Hash, CipherKey: bytes.Clone(k.CipherKey), HashKey: bytes.Clone(k.HashKey)}
			if k.Threads > 0 {
				c2.Threads = new(uint32(k.Threads))
			}
			return c.Crypto(ctx, c2)
		},
	}
}

func asStart(name string) step {
	return step{old: start(name), now: func(ctx context.Context, c *client.Client) error { return c.Start(ctx, name) }}
}

func asDel(name string) step {
	return step{old: del(name), now: func(ctx context.Context, c *client.Client) error { return c.Del(ctx, name, false) }}
}

// gets is s, with the errno that it must get at either door.
func (s step) gets(name string, errno unix.Errno) step {
	s.name, s.want = name, [2]unix.Errno{errno, errno}
	return s
}

// differs is s where the original refused what is possible today.
func (s step) differs(name string, old unix.Errno) step {
	s.name, s.want = name, [2]unix.Errno{old, 0}
	return s
}

func inetRule(s string, perm abi.Perm) abi.Rule {
	p := netip.MustParsePrefix(s)
	r := abi.Rule{Kind: abi.RuleKindInet6, Prefix: p, Perm: perm}
	if p.Addr().Is4() {
		r.Kind = abi.RuleKindInet
	}
	return r
}

// Keys as key gen makes them.
var key1, key2 = bytes.Repeat([]byte{0x80, 1, 2, 3}, 8), bytes.Repeat([]byte{0x81, 4, 5, 6}, 8)

// dir is where the daemons' files are, in the mount namespace of these tests:
// the original's device names have at most 31 bytes.
const dir = "/mnt"

// scenarios are the one table of cases. In dir are the files "disk" and
// "other", of 1 MiB each, and "link", a symbolic link to a file.
func scenarios() map[string][]step {
	disk, listen := filepath.Join(dir, "disk"), tcp("0.0.0.0:9876")
	cid := uint32(3)
	export := asExport("vol0", disk, listen, 0)
	return map[string][]step{
		"life of an export": {
			export.gets("add", 0),
			asStart("vol0").gets("start without a rule", unix.EINVAL),
			asRule("vol0", bare("10.0.0.7:0"), inetRule("10.0.0.7/32", abi.PermRW)).gets("IPv4 rw", 0),
			asRule("vol0", bare("[2001:db8::7]:0"), inetRule("2001:db8::7/128", abi.PermRead)).gets("IPv6 ro", 0),
			asRule("vol0", bare("[::ffff:10.0.0.8]:0"), inetRule("10.0.0.8/32", abi.PermRW)).gets("v4-mapped", 0),
			asRule("vol0", bare("10.0.0.7:5"), inetRule("10.0.0.7/32", abi.PermRead)).gets("the same again", 0),
			asRule("vol0", bare("10.0.0.9:0"), inetRule("10.0.0.9/32", 0)).gets("deny", 0),
			asRule("vol0", raw(unix.AF_UNIX, make([]byte, 108)...), abi.Rule{Kind: abi.RuleKindUnix, Perm: abi.PermRead}).gets("unix", 0),
			asRule("vol0", abi.VsockAddr(cid, 0), abi.Rule{Kind: abi.RuleKindVsock, ID: &cid, Perm: abi.PermRW}).gets("vsock", 0),
			asRule("vol0", bare("10.0.0.9:0"), inetRule("10.0.0.9/32", abi.PermWrite)).gets("write without read", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Hash: "crc32c"}).gets("crc32c", 0),
			asStart("vol0").gets("start", 0),
			asStart("vol0").gets("start again", 0),
			asCrypto("vol0", abi.CryptoCtl{Hash: "crc32c"}).differs("crypto when started", unix.EEXIST),
			asRule("vol0", bare("10.0.0.10:0"), inetRule("10.0.0.10/32", abi.PermRW)).gets("a rule when started", 0),
		},
		"the end of an export": {
			export.gets("add", 0),
			asDel("vol0").gets("del", 0),
			asDel("vol0").gets("del again", unix.ENODEV),
			export.gets("add again", 0),
		},
		"names": {
			export.gets("add", 0),
			asExport("vol0", filepath.Join(dir, "other"), tcp("0.0.0.0:9877"), 0).gets("taken", unix.EEXIST),
			asRemote("vol0", here, 0).gets("taken, by another kind", unix.EEXIST),
			asExport("a/b", disk, listen, 0).gets("slash", unix.EINVAL),
			asExport(".", disk, listen, 0).gets("dot", unix.EINVAL),
			asExport("", disk, listen, 0).gets("none", unix.EINVAL),
			asStart("none").gets("start", unix.ENODEV),
			asDel("none").gets("del", unix.ENODEV),
			asCrypto("none", abi.CryptoCtl{Hash: "crc32c"}).gets("crypto", unix.ENODEV),
			asRule("none", bare("10.0.0.7:0"), inetRule("10.0.0.7/32", abi.PermRW)).gets("rule", unix.ENODEV),
		},
		"devices": {
			asExport("vol0", filepath.Join(dir, "none"), listen, 0).gets("not there", unix.ENOENT),
			asExport("vol0", dir, listen, 0).gets("a directory", unix.ENOTBLK),
			asExport("vol0", "/dev/null", listen, 0).gets("a character device", unix.ENOTBLK),
			asExport("vol0", filepath.Join(dir, "link"), listen, 0).gets("a link", unix.ELOOP),
			asExport("vol0", "disk", listen, 0).gets("a relative path", unix.EINVAL),
			asExport("vol0", "", listen, 0).gets("no path", unix.EINVAL),
			asExport("vol0", disk, listen, 1<<20+512).gets("more than there is", unix.ERANGE),
			asExport("vol0", disk, listen, 1<<20-1).gets("half a sector", unix.EINVAL),
			asExport("vol0", disk, listen, 1<<63).gets("2^63 bytes", unix.EINVAL),
			asExport("vol0", disk, listen, 1<<19).gets("half of it", 0),
			asExport("vol1", disk, tcp("0.0.0.0:9877"), 0).gets("of somebody else", unix.EBUSY),
		},
		"addresses": {
			asExport("vol0", disk, tcp("192.0.2.1:9876"), 0).gets("of nobody here", unix.EADDRNOTAVAIL),
			asExport("vol0", disk, tcp("0.0.0.0:9875"), 0).gets("in use", unix.EADDRINUSE),
		},
		"crypto": {
			export.gets("add", 0),
			asCrypto("vol0", abi.CryptoCtl{Hash: "md5"}).gets("unknown", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{}).gets("nothing", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{HashKey: aes}).gets("a key for nothing", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "cbc(aes)", CipherKey: key1}).gets("a cipher alone", unix.EOPNOTSUPP),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "ecb(aes)", CipherKey: key1, Hash: "hmac(sha256)", HashKey: key2}).gets("a weak cipher", unix.EOPNOTSUPP),
			asCrypto("vol0", abi.CryptoCtl{Hash: "hmac(sha1)", HashKey: key1}).gets("an old hash", unix.EOPNOTSUPP),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "blowfish", CipherKey: key1}).gets("an unknown cipher", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: key1[:15]}).gets("a short key", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: []byte("correct horse battery staple")}).gets("a passphrase", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: key1, Hash: "hmac(sha256)", HashKey: key2}).gets("a hash too many", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Hash: "hmac(sha256)"}).gets("a keyed hash without a key", unix.EINVAL),
			asCrypto("vol0", abi.CryptoCtl{Hash: "none", Threads: 3}).gets("none", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: key1}).gets("gcm", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: key1}).gets("gcm again", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "rfc7539(chacha20,poly1305)", CipherKey: key1, Threads: 2}).gets("chacha20", 0),
			asCrypto("vol0", abi.CryptoCtl{Hash: "hmac(sha512)", HashKey: key1}).gets("a keyed hash", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "cbc(aes)", CipherKey: key1, Hash: "hmac(sha256)", HashKey: key2}).gets("cbc, key 1 for it", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "cbc(aes)", CipherKey: key2, Hash: "hmac(sha256)", HashKey: key1}).gets("cbc, key 2 for it", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "cbc(aes)", CipherKey: key2[:16], Hash: "hmac(sha256)", HashKey: append(key2[16:32:32], key1...)}).gets("the same bytes, cut elsewhere", 0),
			asCrypto("vol0", abi.CryptoCtl{Hash: "crc32c"}).gets("crc32c", 0),
		},
		"remotes": {
			asRemote("vol0", here, 0).gets("add", 0),
			asRemote("vol1", tcp("[2001:db8::7]:1025"), 1<<30).gets("add by IPv6, with a size", 0),
			asRemote("vol2", here, 511).gets("half a sector", unix.EINVAL),
			asRule("vol0", bare("10.0.0.7:0"), inetRule("10.0.0.7/32", abi.PermRW)).gets("a rule", unix.EOPNOTSUPP),
			asCrypto("vol0", abi.CryptoCtl{Hash: "crc32c"}).gets("crc32c", 0),
			asCrypto("vol0", abi.CryptoCtl{Cipher: "gcm(aes)", CipherKey: key1}).gets("gcm", 0),
			asDel("vol1").gets("del", 0),
		},
	}
}

// doors are a daemon's, both on one Plane, and a caller at each.
type doors struct {
	plane *dataplane.Plane
	old   *tool
	now   *client.Client
}

// daemon starts a Plane below dir with both doors; end ends it.
func daemon(t *testing.T) (d doors, end func()) {
	t.Helper()
	plane, err := dataplane.New(dataplane.Config{Version: "test", RunDir: dir + "/run", StateDir: dir + "/state", DevDir: dir + "/dev",
		Budget: 64 << 20, Log: zerolog.Nop(), Notify: func(abi.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	sock, err := genl.Listen(abi.Port)
	if err != nil {
		t.Fatal(err)
	}
	door, err := controlplane.New(plane, sock)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- door.Serve() }()
	serve(t, plane)
	c, err := client.Dial(client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return doors{plane, dial(t), c}, func() {
		if err := errors.Join(c.Close(), door.Close(), <-served); err != nil {
			t.Error(err)
		}
		plane.Close()
	}
}

// state is all nodes as they are, but for what time and chance put into them.
func (d doors) state(t *testing.T) string {
	t.Helper()
	var all []*abi.Node
	for _, name := range d.plane.Names() {
		n, err := d.plane.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		s := n.Status
		s.StateAge, s.ClientID, s.Verifier, s.StoreID = 0, abi.ID{}, abi.Verifier{}, abi.ID{}
		for i := range s.Transitions {
			s.Transitions[i].Age = 0
		}
		all = append(all, n)
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBothDoors runs every case through either door of a daemon of its own and
// wants the same errno and the same state after each step.
func TestBothDoors(t *testing.T) {
	for name, steps := range scenarios() {
		t.Run(name, func(t *testing.T) {
			var states [2][]string
			for door := range states {
				t.Run([]string{"connector", "genetlink"}[door], func(t *testing.T) {
					states[door] = runAt(t, door, steps)
				})
			}
			for i, s := range steps {
				if i < len(states[0]) && i < len(states[1]) && states[0][i] != states[1][i] {
					t.Errorf("after %q the connector left\n%s\ngenetlink\n%s", s.name, states[0][i], states[1][i])
				}
			}
		})
	}
}

// runAt runs steps at one door of a new daemon on a new tmpfs at dir, and
// returns the state after each of them. A wrong errno is a failure, and so is a
// refusal that changed something.
func runAt(t *testing.T, door int, steps []step) (states []string) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	err := errors.Join(os.WriteFile(dir+"/disk", make([]byte, 1<<20), 0o600), os.WriteFile(dir+"/other", make([]byte, 1<<20), 0o600),
		os.Symlink("disk", dir+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	busy := occupy(t, tcp("0.0.0.0:9875"))
	defer func() { _ = unix.Close(busy) }()
	d, end := daemon(t)
	defer end()
	before := d.state(t)
	for _, s := range steps {
		var errno unix.Errno
		if door == 0 {
			errno = d.old.do(s.old)
		} else if err := s.now(t.Context(), d.now); err != nil && !errors.As(err, &errno) {
			t.Fatalf("%s: %v", s.name, err)
		}
		if errno != s.want[door] {
			t.Errorf("%s: %v, want %v", s.name, errno, s.want[door])
		}
		after := d.state(t)
		if errno != 0 && after != before {
			t.Errorf("%s was refused and changed\n%s\nto\n%s", s.name, before, after)
		}
		states, before = append(states, after), after
	}
	return states
}

// occupy listens at an IPv4 address with a socket of its own.
func occupy(t *testing.T, a abi.Addr) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ap, _ := a.AddrPort()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: int(ap.Port())}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	return fd
}
