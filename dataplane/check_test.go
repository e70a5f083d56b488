package dataplane

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestRefusalsBlameTheirAttribute: whatever door asks, the caller learns which
// of its words was wrong.
func TestRefusalsBlameTheirAttribute(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	p.openDriver = noDriver
	at, taken := freeAddr(t), w.path("taken.sock")
	ok(t, os.WriteFile(taken, nil, 0o600))
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("g", 1<<20), Addrs: []abi.Addr{at}}))
	ok(t, p.AddRemote(&abi.Node{Name: "disk0", Addrs: []abi.Addr{at}, Attach: abi.AttachSocket, Socket: w.path("s")}))
	file := w.file("f", 1<<20)
	exp := func(change func(n *abi.Node)) error {
		n := &abi.Node{Name: "new", Device: file, Addrs: []abi.Addr{freeAddr(t)}}
		change(n)
		return p.AddExport(n)
	}
	add := func(change func(n *abi.Node)) error {
		n := &abi.Node{Name: "new", Addrs: []abi.Addr{at}, Attach: abi.AttachSocket, Socket: w.path("new.sock")}
		change(n)
		return p.AddRemote(n)
	}
	set := func(name string, n abi.Node) error { n.Name = name; return p.Set(&n) }
	crypto := func(c abi.Crypto) error { c.Name = "vol0"; return p.Crypto(&c) }
	good := w.keyFile("good")
	key, one := []byte{1}, new(uint32(1))
	for _, c := range []struct {
		name  string
		err   error
		errno unix.Errno
		attr  uint16 // 0: none is to blame
		nth   int
	}{
		{"bad name", add(func(n *abi.Node) { n.Name = "a/b" }), unix.EINVAL, abi.AttrNodeName, 0},
		{"duplicate name", add(func(n *abi.Node) { n.Name = "vol0" }), unix.EEXIST, abi.AttrNodeName, 0},
		{"bad address", add(func(n *abi.Node) { n.Addrs = append(n.Addrs, abi.Addr{Sockaddr: "\x02\x00"}) }), unix.EINVAL, abi.AttrNodeAddress, 1},
		{"address twice", add(func(n *abi.Node) { n.Addrs = append(n.Addrs, n.Addrs[0]) }), unix.EINVAL, abi.AttrNodeAddress, 1},
		{"bad export name", add(func(n *abi.Node) { n.Export = "-" }), unix.EINVAL, abi.AttrNodeExport, 0},
		{"attach socket without path", add(func(n *abi.Node) { n.Socket = "" }), unix.EINVAL, abi.AttrNodeAttach, 0},
		{"kernel device", add(func(n *abi.Node) { n.Attach, n.Socket, n.Flags = abi.AttachNbd, "", abi.NodeFlagStarted }), unix.EOPNOTSUPP, abi.AttrNodeAttach, 0},
		{"path without attach", add(func(n *abi.Node) { n.Attach = abi.AttachNone }), unix.EINVAL, abi.AttrNodeSocket, 0},
		{"relative path", add(func(n *abi.Node) { n.Socket = "run/x" }), unix.EINVAL, abi.AttrNodeSocket, 0},
		{"path of a file", add(func(n *abi.Node) { n.Socket = taken }), unix.EEXIST, abi.AttrNodeSocket, 0},
		{"path of another node", add(func(n *abi.Node) { n.Socket = w.path("s") }), unix.EADDRINUSE, abi.AttrNodeSocket, 0},
		{"export's flag", add(func(n *abi.Node) { n.Flags = abi.NodeFlagShared }), unix.EINVAL, abi.AttrNodeFlags, 0},
		{"odd size", add(func(n *abi.Node) { n.Size = 1000 }), unix.EINVAL, abi.AttrNodeSize, 0},
		{"size 2^63", exp(func(n *abi.Node) { n.Size = 1 << 63 }), unix.EINVAL, abi.AttrNodeSize, 0},
		{"depth 0", add(func(n *abi.Node) { n.Knobs.Depth = new(uint32) }), unix.ERANGE, abi.AttrNodeDepth, 0},
		{"unknown hash", add(func(n *abi.Node) { n.Hash = "md5" }), unix.EINVAL, abi.AttrNodeHash, 0},
		{"relative device", exp(func(n *abi.Node) { n.Device = "x" }), unix.EINVAL, abi.AttrNodeDevice, 0},
		{"missing device", exp(func(n *abi.Node) { n.Device = w.path("no") }), unix.ENOENT, abi.AttrNodeDevice, 0},
		{"locked device", exp(func(n *abi.Node) { n.Device = w.path("g") }), unix.EBUSY, abi.AttrNodeDevice, 0},
		{"larger than the device", exp(func(n *abi.Node) { n.Size = 2 << 20 }), unix.ERANGE, abi.AttrNodeSize, 0},
		{"a peer that is everybody", add(func(n *abi.Node) {
			n.Addrs = append(n.Addrs, abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("[::]:99")))
		}), unix.EADDRNOTAVAIL, abi.AttrNodeAddress, 1},
		{"address of nobody", exp(func(n *abi.Node) {
			n.Addrs = append(n.Addrs, abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("192.0.2.1:99")))
		}), unix.EADDRNOTAVAIL, abi.AttrNodeAddress, 1},
		{"direct and buffered", exp(func(n *abi.Node) { n.Flags = abi.NodeFlagDirect | abi.NodeFlagBuffered }), unix.EINVAL, abi.AttrNodeFlags, 0},
		{"started without a rule", exp(func(n *abi.Node) { n.Flags = abi.NodeFlagStarted }), unix.EINVAL, abi.AttrNodeFlags, 0},
		{"start without a rule", p.Start("vol0"), unix.EINVAL, abi.AttrNodeName, 0},
		{"start of nobody", p.Start("none"), unix.ENODEV, abi.AttrNodeName, 0},
		{"nothing to set", set("vol0", abi.Node{}), unix.EINVAL, 0, 0},
		{"set shared", set("vol0", abi.Node{Mask: abi.NodeFlagShared}), unix.EINVAL, abi.AttrNodeFlagsMask, 0},
		{"flags without mask", set("vol0", abi.Node{Flags: abi.NodeFlagReadOnly}), unix.EINVAL, abi.AttrNodeFlags, 0},
		{"set crypto-threads", set("vol0", abi.Node{Knobs: abi.Knobs{CryptoThreads: one}}), unix.EINVAL, abi.AttrNodeCryptoThreads, 0},
		{"set log-age", set("disk0", abi.Node{Knobs: abi.Knobs{LogAge: one}}), unix.ERANGE, abi.AttrNodeLogAge, 0},
		{"a remote's workers", set("disk0", abi.Node{Knobs: abi.Knobs{Workers: one}}), unix.EINVAL, abi.AttrNodeWorkers, 0},
		{"a remote's flag", set("disk0", abi.Node{Mask: abi.NodeFlagReadOnly}), unix.EINVAL, abi.AttrNodeFlagsMask, 0},
		{"an export's fail-after", set("vol0", abi.Node{Knobs: abi.Knobs{FailAfter: one}}), unix.EINVAL, abi.AttrNodeFailAfter, 0},
		{"an export's request-timeout", set("vol0", abi.Node{Knobs: abi.Knobs{RequestTimeout: one}}), unix.EINVAL, abi.AttrNodeRequestTimeout, 0},
		{"rule of no kind", p.AddRule("vol0", abi.Rule{}), unix.EINVAL, abi.AttrNodeRule, 0},
		{"rule that is not there", p.DelRule("vol0", loopback), unix.ENOENT, abi.AttrNodeRule, 0},
		{"rule of a remote", p.AddRule("disk0", loopback), unix.EOPNOTSUPP, abi.AttrNodeName, 0},
		{"nothing for crypto", crypto(abi.Crypto{}), unix.EINVAL, 0, 0},
		{"unknown cipher", crypto(abi.Crypto{Cipher: "x", CipherKey: key}), unix.EINVAL, abi.AttrCryptoCipher, 0},
		{"unknown hash beside a cipher", crypto(abi.Crypto{Cipher: "cbc(aes)", CipherKey: key, Hash: "x", HashKey: key}), unix.EINVAL, abi.AttrCryptoHash, 0},
		{"hash without a key", crypto(abi.Crypto{Hash: "hmac(sha256)"}), unix.EINVAL, abi.AttrCryptoHash, 0},
		{"old hash", crypto(abi.Crypto{Hash: "hmac(sha1)", HashKey: key}), unix.EOPNOTSUPP, abi.AttrCryptoHash, 0},
		{"cipher alone", crypto(abi.Crypto{Cipher: "cbc(aes)", CipherKey: key}), unix.EOPNOTSUPP, abi.AttrCryptoCipher, 0},
		{"short key", crypto(abi.Crypto{CipherKey: key}), unix.EINVAL, abi.AttrCryptoCipherKey, 0},
		{"no key file", crypto(abi.Crypto{CipherKeyFile: w.path("no")}), unix.ENOENT, abi.AttrCryptoCipherKeyFile, 0},
		{"no second key file", crypto(abi.Crypto{Cipher: "cbc(aes)", Hash: "hmac(sha256)", CipherKeyFile: good, HashKeyFile: w.path("no")}), unix.ENOENT, abi.AttrCryptoHashKeyFile, 0},
		{"key file of all", crypto(abi.Crypto{CipherKeyFile: file}), unix.EINVAL, abi.AttrCryptoCipherKeyFile, 0},
		{"unknown op", crypto(abi.Crypto{Op: 9}), unix.EINVAL, abi.AttrCryptoOp, 0},
		{"unknown flag", crypto(abi.Crypto{Flags: 2, CipherKeyFile: good}), unix.EINVAL, abi.AttrCryptoFlags, 0},
		{"add nothing", crypto(abi.Crypto{Op: abi.CryptoOpAdd}), unix.EINVAL, 0, 0},
		{"add a digest", crypto(abi.Crypto{Op: abi.CryptoOpAdd, Hash: "crc32c"}), unix.EINVAL, 0, 0},
		{"add threads", crypto(abi.Crypto{Op: abi.CryptoOpAdd, CipherKeyFile: good, Threads: one}), unix.EINVAL, abi.AttrCryptoThreads, 0},
		{"add the first key", crypto(abi.Crypto{Op: abi.CryptoOpAdd, CipherKeyFile: good}), unix.EINVAL, 0, 0},
		{"set by id", crypto(abi.Crypto{CipherKeyFile: good, KeyID: abi.KeyID{1}}), unix.EINVAL, abi.AttrCryptoKeyID, 0},
		{"del nothing", crypto(abi.Crypto{Op: abi.CryptoOpDel}), unix.EINVAL, abi.AttrCryptoKeyID, 0},
		{"del by file", crypto(abi.Crypto{Op: abi.CryptoOpDel, KeyID: abi.KeyID{1}, CipherKeyFile: good}), unix.EINVAL, 0, 0},
		{"del of no key", crypto(abi.Crypto{Op: abi.CryptoOpDel, KeyID: abi.KeyID{1}}), unix.ENOENT, abi.AttrCryptoKeyID, 0},
		{"one more key for a remote", p.Crypto(&abi.Crypto{Name: "disk0", Op: abi.CryptoOpAdd, CipherKeyFile: good}), unix.EOPNOTSUPP, abi.AttrCryptoOp, 0},
		{"key of nobody", p.Crypto(&abi.Crypto{Name: "none", CipherKeyFile: good}), unix.ENODEV, abi.AttrNodeName, 0},
		{"threads beyond all", p.AddExport(&abi.Node{Name: "new", Device: file, Addrs: []abi.Addr{at}, Knobs: abi.Knobs{CryptoThreads: new(uint32(1025))}}), unix.ERANGE, abi.AttrNodeCryptoThreads, 0},
		{"cipher without key", crypto(abi.Crypto{Cipher: "gcm(aes)"}), unix.EINVAL, abi.AttrCryptoCipher, 0},
		{"key without cipher", crypto(abi.Crypto{CipherKey: key, Hash: "hmac(sha256)", HashKey: key}), unix.EINVAL, abi.AttrCryptoCipherKey, 0},
		{"file without hash", crypto(abi.Crypto{HashKeyFile: "/k"}), unix.EINVAL, abi.AttrCryptoHashKeyFile, 0},
		{"relative file", crypto(abi.Crypto{Hash: "x", HashKeyFile: "k"}), unix.EINVAL, abi.AttrCryptoHashKeyFile, 0},
		{"key twice", crypto(abi.Crypto{Cipher: "x", CipherKey: key, CipherKeyFile: "/k"}), unix.EINVAL, abi.AttrCryptoCipherKey, 0},
		{"unknown digest", crypto(abi.Crypto{Hash: "md5"}), unix.EINVAL, abi.AttrCryptoHash, 0},
	} {
		var f *abi.Fault
		blamed := errors.As(c.err, &f)
		if !errors.Is(c.err, c.errno) || blamed != (c.attr != 0) || blamed && (f.Attr != c.attr || f.Nth != c.nth) {
			t.Errorf("%s: %v (%+v), want %v blamed on %d, %d", c.name, c.err, f, c.errno, c.attr, c.nth)
		}
	}
}

// TestLostNodeKeepsItsPlace: what cannot be restored is shown and remembered,
// and comes back when the cause is gone.
func TestLostNodeKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	p.Close()
	ok(t, os.Rename(w.path("vol0.img"), w.path("away")))
	p = w.plane()
	p.Restore()
	n, err := p.Get("vol0")
	ok(t, err)
	if n.Status.State != abi.StateFailed || !strings.Contains(n.Status.Reason, "does not exist") || len(n.Status.Rules) != 1 {
		t.Fatalf("%+v", n.Status)
	}
	for what, err := range map[string]error{
		"add":   p.AddExport(&abi.Node{Name: "vol0", Device: w.file("other", 1<<20), Addrs: []abi.Addr{freeAddr(t)}}),
		"start": p.Start("vol0"),
		"set":   p.Set(&abi.Node{Name: "vol0", Knobs: abi.Knobs{Workers: new(uint32(1))}}),
		"rule":  p.DelRule("vol0", loopback),
	} {
		var f *abi.Fault
		if !errors.As(err, &f) || f.Attr != abi.AttrNodeName {
			t.Errorf("%s of a lost node: %v", what, err)
		}
	}
	p.Close()
	p = w.plane() // and is still remembered
	defer p.Close()
	ok(t, os.Rename(w.path("away"), w.path("vol0.img")))
	p.Restore()
	w.await(p, "vol0", abi.StateServing)
	w.await(p, "disk0", abi.StateEstablished)
}

func TestLostNodeStartsAgain(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	p.Close()
	ok(t, os.Rename(w.path("vol0.img"), w.path("away")))
	p = w.plane()
	defer p.Close()
	p.Restore()
	ok(t, os.Rename(w.path("away"), w.path("vol0.img")))
	ok(t, p.Start("vol0"))
	w.await(p, "vol0", abi.StateServing)
	w.await(p, "disk0", abi.StateEstablished)
}

// TestDamagedRunDirectory: a remote whose attachment was cut off must not pass
// for a new client, and a configuration that makes no sense is left out.
func TestDamagedRunDirectory(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	p.Close()
	ok(t, os.Truncate(w.path("run/nodes/disk0/page"), 0))
	ok(t, os.Truncate(w.path("run/nodes/vol0/config"), 21))
	ok(t, os.Mkdir(w.path("run/nodes/-"), 0o700))
	ok(t, os.WriteFile(w.path("run/nodes/-/config"), []byte("\x05\x00\x01"), 0o600))
	p = w.plane()
	defer p.Close()
	p.Restore()
	n, err := p.Get("disk0")
	ok(t, err)
	if n.Status.State != abi.StateFailed || !strings.Contains(n.Status.Reason, "damaged") || len(p.Names()) != 1 {
		t.Fatalf("%q: %+v", p.Names(), n.Status)
	}
	ok(t, p.Del("disk0", false))
	w.pair(p)
}

// TestFullRunDirectory: a node that cannot be remembered is not added, and who
// asked is told what to do.
func TestFullRunDirectory(t *testing.T) {
	w := newWorld(t)
	ok(t, os.Mkdir(w.path("run"), 0o700))
	ok(t, unix.Mount("tmpfs", w.path("run"), "tmpfs", 0, "mode=0700,size=64k"))
	defer func() { ok(t, unix.Unmount(w.path("run"), 0)) }()
	p := w.plane()
	defer p.Close()
	var err error
	added := 0
	for n := 0; err == nil && n < 100; n++ {
		name := "n" + strconv.Itoa(n)
		if err = p.AddRemote(&abi.Node{Name: name, Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachNone}); err == nil {
			added++
		} else if _, e := os.Stat(w.path("run/nodes/" + name)); !errors.Is(e, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, e)
		}
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "room") || len(p.Names()) != added || added == 0 {
		t.Fatalf("%d added: %v", added, err)
	}
}

// TestDirectoriesOfOthersAreRefused: who can exchange files there commands the daemon.
func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	ok(t, os.Mkdir(w.path("theirs"), 0o700))
	ok(t, os.Chown(w.path("theirs"), 65534, 65534))
	ok(t, os.Mkdir(w.path("wide"), 0o700))
	ok(t, os.Chmod(w.path("wide"), 0o770))
	ok(t, os.Symlink(w.path("wide"), w.path("link")))
	for _, name := range []string{"theirs", "wide", "link"} {
		for _, c := range []Config{
			{RunDir: w.path(name), StateDir: w.path("state"), DevDir: w.path("dev")},
			{RunDir: w.path("run"), StateDir: w.path(name), DevDir: w.path("dev")},
			{RunDir: w.path("run"), StateDir: w.path("state"), DevDir: w.path(name)},
		} {
			if _, err := New(c); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

// TestSlowAddHoldsUpNobody: while a store is being opened others get answers.
func TestSlowAddHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	p.mu.Lock()
	p.places["slow"] = new(place) // as reserve leaves it while it makes the node
	p.mu.Unlock()
	_, err := p.Get("slow")
	if !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
	if err := p.AddRemote(&abi.Node{Name: "slow", Addrs: []abi.Addr{freeAddr(t)}, Attach: abi.AttachNone}); !errors.Is(err, unix.EEXIST) {
		t.Error(err)
	}
	p.Sys()
}
