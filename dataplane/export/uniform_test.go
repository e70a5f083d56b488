package export

import (
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// TestN15ClosedBeforeItIsTold: how long it takes to tell the administrators of a
// refusal depends on what is here, so that a client is gone before.
func TestN15ClosedBeforeItIsTold(t *testing.T) {
	_, disk := memDisk(1 << 20)
	w := &world{t: t, ports: NewPorts(zerolog.Nop()), budget: mempool.NewBudget(1 << 30)}
	env, held := w.env(disk), make(chan struct{})
	env.Notify = func(e abi.Event) {
		if e.Kind == abi.EventKindRefuse {
			<-held
		}
	}
	k, other := gcmKey(t, 1), gcmKey(t, 2)
	var err error
	if w.Node, err = New(Config{Name: "vol0", Listen: []abi.Addr{loopback()}, Keys: []*crypt.Key{k, other}}, env); err != nil {
		t.Fatal(err)
	}
	defer w.end()
	if err := errors.Join(w.AddRule(abi.Rule{Kind: abi.RuleKindAny, Perm: abi.PermRW, Key: k.ID()}), w.Start()); err != nil {
		t.Fatal(err)
	}
	elsewhere := helloOf(1, 1, abi.PermRW)
	elsewhere.Export = "vol1"
	late := time.AfterFunc(5*time.Second, func() {
		t.Error("somebody is told before")
		close(held)
	})
	defer func() {
		if late.Stop() {
			close(held)
		}
	}()
	for name, try := range map[string]struct {
		k *crypt.Key
		h abi.Hello
	}{"unknown key": {gcmKey(t, 3), helloOf(1, 1, abi.PermRW)}, "unknown export": {k, elsewhere}, "a key that no rule allows": {other, helloOf(1, 1, abi.PermRW)}} {
		if _, err := w.with(try.k, try.h); !ended(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestN15KeyGoneInTheMidst: a key that is taken away when its client has shown it
// in the handshake, and not yet said what it wants, is worth nothing any more.
func TestN15KeyGoneInTheMidst(t *testing.T) {
	_, disk := memDisk(1 << 20)
	k, other := gcmKey(t, 1), gcmKey(t, 2)
	w := keyed(t, Config{}, disk, k, other)
	c := w.dial()
	if err := c.prove(k); err != nil {
		t.Fatal(err)
	}
	if err := w.SetKeys([]*crypt.Key{other}); err != nil {
		t.Fatal(err)
	}
	k.Wipe()
	c.hello = helloOf(1, 1, abi.PermRW)
	c.hello.Digest = "none"
	b := c.hello.Append(nil)
	if _, err := c.st.Write(frame(crypt.DigestCRC32C, abi.Header{Cmd: abi.MsgHello, Size: uint32(4 + len(b))}, b)); err != nil && !ended(err) {
		t.Fatal(err)
	}
	if err := c.answer(); !ended(err) {
		t.Errorf("it is told: %v", err)
	}
	if h := w.holder(); h != nil {
		t.Errorf("%v has the place", h.ID)
	}
	want(t, "FLUSH with the key that stays", w.served(other, helloOf(2, 1, abi.PermRW)).flush(), 0)
}
