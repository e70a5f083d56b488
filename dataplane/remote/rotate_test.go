package remote

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/export"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

// realPair is an export of a file and a node on it, over TCP, both in clear.
func realPair(t *testing.T) (*export.Node, *Node) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "image")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := export.NewPorts(zerolog.Nop())
	t.Cleanup(ports.Close)
	far, err := export.New(export.Config{Name: "vol0", Device: file, Flags: abi.NodeFlagBuffered, Digest: crc, StateDir: dir,
		Listen: []abi.Addr{abi.NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("127.0.0.1:0"))}},
		export.Env{Budget: mempool.NewBudget(1 << 30), Ports: ports, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close(true) })
	if err := errors.Join(far.AddRule(abi.Rule{Kind: abi.RuleKindAny, Perm: abi.PermRW}), far.Start()); err != nil {
		t.Fatal(err)
	}
	c := Config{Name: "vol0", Export: "vol0", Peers: far.Addrs(), MaxSize: 1 << 20, Depth: 16, Keepalive: time.Second, LogAge: time.Hour,
		Digest: crc, Page: make([]byte, SavedSize), ClientID: abi.ID{9}}
	c.Memory = openMemory(t, &c)
	near, err := New(c, Env{Log: zerolog.Nop(), Notify: func(abi.Event) {}, Dial: DialSocket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); _ = c.Memory.Close() })
	near.Start()
	return far, near
}

// TestKeysChangeUnderLoad: from clear to a key, to the next one while both are
// accepted, and back, at either end first: no request fails, none is lost, and what
// was sealed for another kind of link is sealed anew.
func TestKeysChangeUnderLoad(t *testing.T) {
	far, near := realPair(t)
	a, b := gcmKey(t, 1), keyOf(t, "", "hmac(sha256)", 2)
	var done atomic.Int64
	stop := make(chan struct{})
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			u := &user{node: near, done: make(chan *trans.Trans, 1)}
			for n := byte(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				at, data := uint64(i)<<18+uint64(n%8)<<13, pattern(n+byte(i)<<6, 8192)
				if errno, _ := u.do(trans.Write, at, data); errno != 0 {
					t.Errorf("WRITE: %v", errno)
					return
				}
				if errno, got := u.do(trans.Read, at, make([]byte, 8192)); errno != 0 || !bytes.Equal(got, data) {
					t.Errorf("READ: %v", errno)
					return
				}
				done.Add(1)
			}
		})
	}
	goesOn := func(what string) {
		t.Helper()
		from := done.Load()
		for end := time.Now().Add(20 * time.Second); done.Load() < from+50; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: it does not go on: %+v", what, near.Status())
			}
		}
	}
	accept := func(keys ...*crypt.Key) {
		t.Helper()
		if err := far.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
	}
	prove := func(k *crypt.Key) {
		t.Helper()
		if err := near.SetKey(k); err != nil {
			t.Fatal(err)
		}
	}
	goesOn("in clear")
	accept(a)
	prove(a)
	goesOn("with a key")
	breaks := near.Counters().Breaks
	accept(a, b)
	goesOn("with two to choose from")
	prove(a)
	if n := near.Counters().Breaks; n != breaks {
		t.Errorf("another key that is accepted, or the same again, broke the link %d times", n-breaks)
	}
	prove(b)
	goesOn("with the next key")
	accept(b)
	a.Wipe()
	goesOn("without the first")
	prove(nil)
	accept()
	goesOn("in clear again")
	close(stop)
	users.Wait()
	if c := near.Counters(); c.ProtocolErrors+c.DigestErrors+c.AuthErrors+c.Errors+far.Counters().ProtocolErrors != 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestRealPairOverSecureChannels: requests of all sizes, to a real export over TCP.
func TestRealPairOverSecureChannels(t *testing.T) {
	far, near := realPair(t)
	u := &user{node: near, done: make(chan *trans.Trans, 1)}
	for i, suite := range suites {
		k := keyOf(t, suite.cipher, suite.hash, byte(i))
		if err := errors.Join(far.SetKeys([]*crypt.Key{k}), near.SetKey(k)); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{512, 4096, 32 << 10, 36 << 10, 64 << 10, 128 << 10, 1 << 20} {
			data := make([]byte, size)
			for at := range data {
				data[at] = byte(at>>9 ^ at ^ i ^ size)
			}
			if errno, _ := u.do(trans.Write, 0, data); errno != 0 {
				t.Fatalf("%s: WRITE of %d bytes: %v", suite.name, size, errno)
			}
			if errno, got := u.do(trans.Read, 0, make([]byte, size)); errno != 0 || !bytes.Equal(got, data) {
				t.Fatalf("%s: READ of %d bytes: %v", suite.name, size, errno)
			}
		}
		if errno, _ := u.do(trans.Flush, 0, nil); errno != 0 {
			t.Fatal(errno)
		}
	}
	if c := near.Counters(); c.ProtocolErrors+c.DigestErrors+c.AuthErrors+c.Errors+far.Counters().ProtocolErrors != 0 {
		t.Errorf("counted %+v", c)
	}
}
