package export

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// tap is a stream whose written bytes are kept.
type tap struct {
	conn.Stream
	out bytes.Buffer
}

func (t *tap) Write(b []byte) (int, error) {
	t.out.Write(b)
	return t.Stream.Write(b)
}

// silence sends b and counts what the export says until it closes.
func (w *world) silence(b []byte) (got int) {
	w.t.Helper()
	c := w.dial()
	if _, err := c.st.Write(b); err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		w.t.Fatal(err)
	}
	answer, err := io.ReadAll(c.st)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		w.t.Fatalf("instead of a closed connection: %v", err)
	}
	_ = c.st.Close()
	return len(answer)
}

// keyed is a world with these keys and no others.
func keyed(t testing.TB, c Config, disk *Disk, keys ...*crypt.Key) *world {
	t.Helper()
	c.Keys = keys
	return newWorld(t, c, disk)
}

// with dials and greets with k.
func (w *world) with(k *crypt.Key, h abi.Hello) (*client, error) {
	w.t.Helper()
	c := w.dial()
	if err := c.prove(k); err != nil {
		return nil, err
	}
	h.Digest = "none"
	c.hello = h
	b := h.Append(nil)
	if _, err := c.st.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)); err != nil {
		return nil, err
	}
	return c, c.answer()
}

// served greets with k and must be welcomed.
func (w *world) served(k *crypt.Key, h abi.Hello) *client {
	w.t.Helper()
	c, err := w.with(k, h)
	if err != nil {
		w.t.Fatalf("a client with key %v: %v", k.ID(), err)
	}
	return c
}

// ended tells whether err is a connection that was closed without a word.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// refusal is the reason of the next event of a refused client.
func (w *world) refusal() string {
	w.t.Helper()
	for {
		select {
		case e := <-w.events:
			if e.Kind == abi.EventKindRefuse {
				return e.Reason
			}
		case <-time.After(10 * time.Second):
			w.t.Fatal("nobody is told of the refusal")
		}
	}
}

func TestKeysAreShown(t *testing.T) {
	_, disk := memDisk(1 << 20)
	a, b := gcmKey(t, 1), keyOf(t, "cbc(aes)", "hmac(sha256)", 2)
	w := keyed(t, Config{}, disk, a, b)
	w.served(a, helloOf(1, 1, abi.PermRW))
	w.served(b, helloOf(2, 1, abi.PermRead))
	w.served(b, helloOf(3, 1, abi.PermRead))
	st := w.Status()
	if !slices.Equal(st.Keys, []abi.Key{{ID: a.ID(), Cipher: "gcm(aes)", Sessions: 1}, {ID: b.ID(), Cipher: "cbc(aes)", Hash: "hmac(sha256)", Sessions: 2}}) {
		t.Errorf("%+v", st.Keys)
	}
	want(t, "key of a session", st.Sessions[0].Key, a.ID())
	want(t, "warnings", len(st.Warnings), 0)
	r := anyone(abi.PermRW)
	r.Key = gcmKey(t, 9).ID()
	if err := w.AddRule(r); err != nil {
		t.Fatal(err)
	}
	if warns := w.Status().Warnings; len(warns) != 1 || !strings.Contains(warns[0], r.Key.String()) {
		t.Errorf("a rule for a key that is not here: %q", warns)
	}
}

// TestRotation: keys come and go under living sessions.
func TestRotation(t *testing.T) {
	_, disk := memDisk(1 << 20)
	a, b := gcmKey(t, 1), gcmKey(t, 2)
	w := newWorld(t, Config{}, disk)
	plain := w.client(helloOf(9, 1, abi.PermRead))
	set := func(keys ...*crypt.Key) {
		t.Helper()
		if err := w.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
	}
	set(a)
	plain.gone()
	old := w.served(a, helloOf(1, 1, abi.PermRW))
	set(a, b)
	want(t, "FLUSH with the old key", old.flush(), 0)
	now := w.served(b, helloOf(2, 1, abi.PermRead))
	want(t, "FLUSH with the new key", now.flush(), 0)
	set(b)
	a.Wipe()
	old.gone()
	want(t, "FLUSH with the new key", now.flush(), 0)
	if _, err := w.with(gcmKey(t, 1), helloOf(1, 2, abi.PermRW)); !ended(err) {
		t.Errorf("with the old key: %v", err)
	}
	set()
	now.gone()
	want(t, "FLUSH in clear", w.client(helloOf(3, 1, abi.PermRW)).flush(), 0)
}

// TestOneAddressOneWay: exports that share an address have all keys, or none.
func TestOneAddressOneWay(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k, k2 := gcmKey(t, 1), gcmKey(t, 2)
	w := keyed(t, Config{}, disk, k)
	_, other := memDisk(2 << 20)
	second, err := New(Config{Name: "vol1", Listen: w.Addrs(), Digest: crypt.DigestCRC32C}, w.env(other))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close(true)
	if err := second.AddRule(anyone(abi.PermRW)); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "vol0") {
		t.Errorf("start without a key: %v", err)
	}
	if err := errors.Join(second.SetKeys([]*crypt.Key{k2}), second.Start()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{w.Node, second} {
		if err := n.SetKeys(nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("keys taken from one of two: %v", err)
		}
	}
	h := helloOf(1, 1, abi.PermRW)
	h.Export = "vol1"
	want(t, "size", w.served(k2, h).welcome.Size, 2<<20)
	want(t, "size", w.served(k, helloOf(1, 1, abi.PermRW)).welcome.Size, 1<<20)
	for what, try := range map[string]struct {
		k    *crypt.Key
		name string
	}{"the other's key": {k, "vol1"}, "no such export": {k, "vol2"}, "no name": {k, ""}} {
		h := helloOf(5, 1, abi.PermRW)
		h.Export = try.name
		if _, err := w.with(try.k, h); !ended(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := errors.Join(second.Close(true), w.SetKeys(nil)); err != nil {
		t.Error(err)
	}
}

func TestRequireCrypto(t *testing.T) {
	for _, c := range []Config{{RequireCrypto: true}, {Flags: abi.NodeFlagRequireCrypto}} {
		_, disk := memDisk(1 << 20)
		c.Name, c.Listen, c.Digest = "vol0", []abi.Addr{loopback()}, crypt.DigestCRC32C
		w := &world{t: t, ports: NewPorts(zerolog.Nop()), budget: mempool.NewBudget(1 << 30), events: make(chan abi.Event, 100)}
		n, err := New(c, w.env(disk))
		if err != nil {
			t.Fatal(err)
		}
		w.Node = n
		if err := n.AddRule(anyone(abi.PermRW)); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(); !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "crypto set") {
			t.Errorf("start without a key: %v", err)
		}
		k := gcmKey(t, 1)
		if err := errors.Join(n.SetKeys([]*crypt.Key{k}), n.Start()); err != nil {
			t.Fatal(err)
		}
		want(t, "FLUSH", w.served(k, helloOf(1, 1, abi.PermRW)).flush(), 0)
		if err := n.SetKeys(nil); err != nil {
			t.Fatal(err)
		}
		want(t, "bytes for a client in clear", w.silence(firstWords()), 0)
		want(t, "warnings", len(w.Status().Warnings), 1)
		w.end()
	}
}

// firstWords is the mark of a client in clear.
func firstWords() []byte {
	b := make([]byte, abi.HeaderSize)
	(&abi.Header{Cmd: abi.MsgCFG, Flags: abi.MarkHello, ID: 42}).Put(b)
	return b
}

// TestThreads: exports that share an address share its workers, and who wants most
// of them decides.
func TestThreads(t *testing.T) {
	_, disk := memDisk(1 << 20)
	_, other := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	second, err := New(Config{Name: "vol1", Listen: w.Addrs()}, w.env(other))
	if err != nil {
		t.Fatal(err)
	}
	pool, all := w.Node.ports[0].pool, max(1, runtime.GOMAXPROCS(0)-1)
	want(t, "at first", pool.Limit(), all)
	w.SetThreads(1)
	want(t, "one of them wants them all", pool.Limit(), all)
	second.SetThreads(3)
	want(t, "1 and 3", pool.Limit(), 3)
	if err := second.Close(false); err != nil {
		t.Fatal(err)
	}
	want(t, "1", pool.Limit(), 1)
}
