package dataplane

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// keyFile makes a file of a key.
func (w *world) keyFile(name string) string {
	w.t.Helper()
	ok(w.t, crypt.MakeKeyFile(w.path(name)))
	return w.path(name)
}

// keyed is a node's keys, its clients' keys and its warnings, as show tells them.
func (w *world) keyed(p *Plane, name string) (ids, clients []abi.KeyID) {
	w.t.Helper()
	n, err := p.Get(name)
	ok(w.t, err)
	for _, k := range n.Status.Keys {
		ids = append(ids, k.ID)
	}
	for _, s := range n.Status.Sessions {
		clients = append(clients, s.Key)
	}
	return ids, clients
}

func (w *world) set(p *Plane, name, file string) {
	w.t.Helper()
	ok(w.t, p.Crypto(&abi.Crypto{Name: name, CipherKeyFile: file}))
}

// TestKeysChangeLive: a pair that is served in clear gets a key, exchanges it
// for another without an error, and loses the first.
func TestKeysChangeLive(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	w.pair(p)
	c := dialNBD(t, w.path("disk0.sock"))
	one, two := w.keyFile("one"), w.keyFile("two")
	w.set(p, "vol0", one)
	if n := w.await(p, "disk0", abi.StatePause); n.Status.Reason == "" {
		t.Fatal("a plain remote is not told why")
	}
	w.set(p, "disk0", one)
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, c.write(0, bytes.Repeat([]byte{'1'}, 4096)))
	ids, clients := w.keyed(p, "vol0")
	if mine, _ := w.keyed(p, "disk0"); len(ids) != 1 || !slices.Equal(ids, clients) || !slices.Equal(ids, mine) {
		t.Fatalf("%v, %v, %v", ids, clients, mine)
	}
	ok(t, p.Crypto(&abi.Crypto{Name: "vol0", Op: abi.CryptoOpAdd, CipherKeyFile: two}))
	if err := p.Crypto(&abi.Crypto{Name: "vol0", Op: abi.CryptoOpAdd, CipherKeyFile: one}); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("the same key again: %v", err)
	}
	w.set(p, "disk0", two)
	ok(t, c.write(4096, bytes.Repeat([]byte{'2'}, 4096)))
	now, clients := w.keyed(p, "vol0")
	if len(now) != 2 || now[0] != ids[0] || len(clients) != 1 || clients[0] != now[1] {
		t.Fatalf("%v, %v", now, clients)
	}
	ok(t, p.Crypto(&abi.Crypto{Name: "vol0", Op: abi.CryptoOpDel, KeyID: now[0]}))
	if err := p.Crypto(&abi.Crypto{Name: "vol0", Op: abi.CryptoOpDel, KeyID: now[1]}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "in clear") {
		t.Fatalf("the last key: %v", err)
	}
	w.set(p, "vol0", two) // the very same: nobody is cut
	if got, err := c.read(0, 8192); err != nil || got[0] != '1' || got[8191] != '2' {
		t.Fatal(err)
	}
	counters, err := p.Stats("disk0")
	ok(t, err)
	if counters.Errors != 0 || counters.Connects != 3 {
		t.Fatalf("%+v", counters)
	}
	ok(t, p.Crypto(&abi.Crypto{Name: "vol0", Hash: "crc32c"}))
	ok(t, p.Crypto(&abi.Crypto{Name: "disk0", Hash: "crc32c"}))
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, c.write(0, make([]byte, 4096)))
	if ids, clients := w.keyed(p, "vol0"); len(ids) != 0 || len(clients) != 1 || clients[0] != (abi.KeyID{}) {
		t.Fatalf("%v, %v", ids, clients)
	}
}

// TestKeysOutliveTheDaemon: the next daemon serves with the very same keys, with
// their files gone; one that cannot read what is remembered does not serve.
func TestKeysOutliveTheDaemon(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	one, two := w.keyFile("one"), w.keyFile("two")
	w.set(p, "vol0", one)
	ok(t, p.Crypto(&abi.Crypto{Name: "vol0", Op: abi.CryptoOpAdd, Cipher: "cbc(aes)", CipherKeyFile: one, Hash: "hmac(sha256)", HashKeyFile: two}))
	ok(t, p.Crypto(&abi.Crypto{Name: "disk0", Cipher: "cbc(aes)", CipherKeyFile: one, Hash: "hmac(sha256)", HashKeyFile: two, Threads: new(uint32(3))}))
	w.await(p, "disk0", abi.StateEstablished)
	before, _ := w.keyed(p, "vol0")
	p.Close()
	ok(t, os.Remove(one))
	ok(t, os.Remove(two))

	p = w.plane()
	p.Restore()
	w.await(p, "disk0", abi.StateEstablished)
	if after, clients := w.keyed(p, "vol0"); !slices.Equal(before, after) || len(clients) != 1 || clients[0] != after[1] {
		t.Fatalf("%v became %v, %v", before, after, clients)
	}
	n, err := p.Get("disk0")
	ok(t, err)
	if *n.Knobs.CryptoThreads != 3 || n.Hash != "" || len(n.Status.Warnings) != 1 || !strings.Contains(n.Status.Warnings[0], "slower") {
		t.Fatalf("%+v, %q", n, n.Status.Warnings)
	}
	p.Close()

	kept := w.path("run/nodes/vol0/keys")
	ok(t, os.Rename(kept, w.path("away")))
	p = w.plane()
	p.Restore()
	w.lost(p, "vol0", "keys")
	p.Close()
	b, err := os.ReadFile(w.path("away"))
	ok(t, err)
	b[10] ^= 1
	ok(t, os.WriteFile(kept, b, 0o600))
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.lost(p, "vol0", "damaged")
	if ids, _ := w.keyed(p, "vol0"); !slices.Equal(ids, before) {
		t.Errorf("a lost node shows the keys %v", ids)
	}
	b[10] ^= 1
	ok(t, os.WriteFile(kept, b, 0o600))
	ok(t, p.Start("vol0"))
	w.await(p, "disk0", abi.StateEstablished)
}

// TestNoKeysAreSaidSo: a node that had keys comes back in clear only if somebody
// has said so, and not because its file is empty; half a change leaves no key behind.
func TestNoKeysAreSaidSo(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	w.pair(p)
	one := w.keyFile("one")
	w.set(p, "vol0", one)
	w.set(p, "disk0", one)
	p.Close()
	kept, config := w.path("run/nodes/vol0/keys"), w.path("run/nodes/vol0/config")
	keys, err := os.ReadFile(kept)
	ok(t, err)
	before, err := os.ReadFile(config)
	ok(t, err)

	ok(t, os.Truncate(kept, 0))
	p = w.plane()
	p.Restore()
	w.lost(p, "vol0", "damaged")
	ok(t, os.WriteFile(kept, keys, 0o600))
	ok(t, os.WriteFile(kept+".new", keys, 0o600)) // what a daemon leaves that dies in the midst
	ok(t, p.Start("vol0"))
	if _, err := os.Stat(kept + ".new"); !os.IsNotExist(err) {
		t.Errorf("half a change is left: %v", err)
	}
	ok(t, p.Crypto(&abi.Crypto{Name: "vol0", Hash: "crc32c"}))
	ok(t, p.Crypto(&abi.Crypto{Name: "disk0", Hash: "crc32c"}))
	w.await(p, "disk0", abi.StateEstablished)
	p.Close()

	ok(t, os.WriteFile(config, before, 0o600)) // it died before it remembered the rest
	p = w.plane()
	defer p.Close()
	p.Restore()
	w.await(p, "disk0", abi.StateEstablished)
	if ids, _ := w.keyed(p, "vol0"); len(ids) != 0 {
		t.Errorf("keys %v", ids)
	}
}

// lost wants that a node could not be restored, for a reason with that word.
func (w *world) lost(p *Plane, name, word string) {
	w.t.Helper()
	n, err := p.Get(name)
	ok(w.t, err)
	if n.Status.State != abi.StateFailed || !strings.Contains(n.Status.Reason, word) {
		w.t.Fatalf("%v: %s", n.Status.State, n.Status.Reason)
	}
}

// TestKeysAreOverwritten: what was in the run directory is not left in its pages,
// and only the file of keys ever has any.
func TestKeysAreOverwritten(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	w.pair(p)
	file := w.keyFile("one")
	secret, err := os.ReadFile(file)
	ok(t, err)
	w.set(p, "vol0", file)
	path := w.path("run/nodes/vol0/keys")
	first, err := os.Open(path)
	ok(t, err)
	defer first.Close()
	kept, err := os.ReadFile(path)
	ok(t, err)
	info, err := first.Stat()
	ok(t, err)
	if len(kept) == 0 || info.Mode() != 0o600 {
		t.Fatalf("%d bytes, %v", len(kept), info.Mode())
	}
	w.set(p, "vol0", w.keyFile("two"))
	second, err := os.Open(path)
	ok(t, err)
	defer second.Close()
	psk := kept[8:24] // of the secret, whatever stands around it
	ok(t, filepath.WalkDir(w.path("run"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		for _, s := range [][]byte{psk, secret, []byte(hex.EncodeToString(secret))} {
			if bytes.Contains(b, s) {
				t.Errorf("%s has the key", name)
			}
		}
		return err
	}))
	ok(t, p.Del("disk0", true))
	ok(t, p.Del("vol0", true))
	for _, f := range []*os.File{first, second} {
		b := make([]byte, len(kept))
		if n, err := f.ReadAt(b, 0); n != len(b) || !bytes.Equal(b, make([]byte, n)) {
			t.Errorf("%d bytes are left, %v", n, err)
		}
	}
	if _, err := os.Stat(w.path("run/nodes/vol0")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestKeysNeedRoom: keys that the next daemon would not know are not put in force.
func TestKeysNeedRoom(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	w.pair(p)
	one, two := w.keyFile("one"), w.keyFile("two")
	w.set(p, "vol0", one)
	w.await(p, "disk0", abi.StatePause) // the link in clear has been seen to end
	w.set(p, "disk0", one)
	w.await(p, "disk0", abi.StateEstablished)
	before, err := os.ReadFile(w.path("run/nodes/vol0/keys"))
	ok(t, err)
	was, err := p.Stats("disk0")
	ok(t, err)
	var fs unix.Statfs_t
	ok(t, unix.Statfs(w.dir, &fs))
	full := (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	ok(t, unix.Mount("", w.dir, "", unix.MS_REMOUNT, "size="+strconv.FormatUint(full, 10)))
	err = p.Crypto(&abi.Crypto{Name: "vol0", CipherKeyFile: two})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "room") {
		t.Fatal(err)
	}
	w.await(p, "disk0", abi.StateEstablished)
	after, err := os.ReadFile(w.path("run/nodes/vol0/keys"))
	ok(t, err)
	if now, err := p.Stats("disk0"); err != nil || now.Connects != was.Connects || !bytes.Equal(before, after) {
		t.Fatalf("%+v, %v", now, err)
	}
}

// TestRequireCrypto: such an export is never served in clear.
func TestRequireCrypto(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	at := freeAddr(t)
	ok(t, p.AddExport(&abi.Node{Name: "vol0", Device: w.file("vol0.img", 4<<20), Addrs: []abi.Addr{at}, Flags: abi.NodeFlagRequireCrypto}))
	ok(t, p.AddRule("vol0", loopback))
	clear := &abi.Crypto{Name: "vol0", Hash: "crc32c"}
	var f *abi.Fault
	if err := p.Crypto(clear); !errors.Is(err, unix.EACCES) || !errors.As(err, &f) || f.Attr != abi.AttrCryptoHash {
		t.Fatalf("in clear: %v", err)
	}
	if err := p.Start("vol0"); !errors.Is(err, unix.EACCES) {
		t.Fatalf("started without a key: %v", err)
	}
	w.set(p, "vol0", w.keyFile("one"))
	ok(t, p.Start("vol0"))
	if err := p.Crypto(clear); !errors.Is(err, unix.EACCES) {
		t.Fatalf("back to clear: %v", err)
	}
	if n, err := p.Get("vol0"); err != nil || n.Flags&abi.NodeFlagRequireCrypto == 0 {
		t.Fatalf("%+v, %v", n, err)
	}
}

// TestSharedAddress: exports at one address all have keys or none has; a request
// that would change that for one leaves everything as it was.
func TestSharedAddress(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	at := w.pair(p)
	ok(t, p.AddExport(&abi.Node{Name: "vol1", Device: w.file("vol1.img", 4<<20), Addrs: []abi.Addr{at}}))
	ok(t, p.AddRule("vol1", loopback))
	ok(t, p.Start("vol1"))
	one := w.keyFile("one")
	var f *abi.Fault
	err := p.Crypto(&abi.Crypto{Name: "vol0", CipherKeyFile: one})
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "vol1") || !errors.As(err, &f) || f.Attr != abi.AttrCryptoName {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(w.path("run/nodes/*/keys*"))
	ok(t, err)
	if ids, _ := w.keyed(p, "vol0"); len(ids) != 0 || len(kept) != 0 {
		t.Fatalf("%v, %q", ids, kept)
	}
	w.await(p, "disk0", abi.StateEstablished)
	ok(t, p.Del("vol1", false))
	w.set(p, "vol0", one)
	ok(t, p.AddExport(&abi.Node{Name: "vol1", Device: w.path("vol1.img"), Addrs: []abi.Addr{at}}))
	ok(t, p.AddRule("vol1", loopback))
	if err := p.Start("vol1"); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "vol0") {
		t.Fatalf("in clear beside one with a key: %v", err)
	}
	w.set(p, "vol1", one)
	ok(t, p.Start("vol1"))
}

// TestWrongKey: both ends say so.
func TestWrongKey(t *testing.T) {
	w := newWorld(t)
	p := w.plane()
	defer p.Close()
	w.pair(p)
	w.set(p, "vol0", w.keyFile("one"))
	w.set(p, "disk0", w.keyFile("two"))
	n := w.await(p, "disk0", abi.StatePause)
	for !strings.Contains(n.Status.Reason, "refused the key") {
		<-w.changed
		n = w.await(p, "disk0", abi.StatePause)
	}
	c, err := p.Stats("vol0")
	ok(t, err)
	if c.AuthErrors == 0 {
		t.Fatalf("%+v", c)
	}
	told := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.events, func(e abi.Event) bool { return e.Kind == abi.EventKindRefuse && e.Name == "vol0" })
	}
	for deadline := time.After(20 * time.Second); !told(); { // it tells when the client is gone
		select {
		case <-w.changed:
		case <-deadline:
			t.Fatal("the export told nobody")
		}
	}
}
