package genl

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// told is one event as its subscriber sees it.
type told struct {
	cmd       uint8
	name      string
	seq, lost uint64
}

// events returns what port was told since it last asked.
func (b *bench) told(port uint32) (all []told) {
	b.t.Helper()
	for _, m := range decode(b.t, b.conn.take(port)) {
		if m.typ != testID || m.header.seq != 0 || m.port != 0 || m.flag != 0 {
			b.t.Errorf("header of an event: %+v", m.header)
		}
		as := tlvs(b.t, m.attrs)
		e := told{cmd: m.cmd, seq: native.Uint64(as[aCount])}
		if n := as[aLost]; n != nil {
			e.lost = native.Uint64(n)
		}
		if s := as[aName]; s != nil {
			e.name = string(s[:len(s)-1])
		}
		all = append(all, e)
	}
	return all
}

func (b *bench) notify(name string) {
	b.Notify(cmdEvent, name, func(ae *netlink.AttributeEncoder) { ae.String(aName, name) })
}

// same fails the test if got is not exactly want.
func same(t *testing.T, got []told, want ...told) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("told %+v, want %+v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("event %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestEventsGoToThoseWhoWantThem(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		b.notify("before")
		onlyB := func(_ uint8, topic string) bool { return topic == "b" }
		if err := errors.Join(b.Subscribe(1, nil), b.Subscribe(2, onlyB)); err != nil {
			t.Fatal(err)
		}
		b.notify("a")
		b.notify("b")
		same(t, b.told(1), told{cmdEvent, "a", 1, 0}, told{cmdEvent, "b", 2, 0})
		same(t, b.told(2), told{cmdEvent, "b", 1, 0})
		if err := b.Subscribe(2, nil); err != nil { // changes the filter, not the count
			t.Fatal(err)
		}
		if !b.Unsubscribe(1) || b.Unsubscribe(1) {
			t.Error("Unsubscribe does not know who is subscribed")
		}
		b.notify("c")
		same(t, b.told(1))
		same(t, b.told(2), told{cmdEvent, "c", 2, 0})
		if n := b.Counts().Subscribers; n != 1 {
			t.Errorf("%d subscribers", n)
		}
	})
}

func TestLostEventsAreToldInTheNextEvent(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		if err := errors.Join(b.Subscribe(1, nil), b.Subscribe(2, nil)); err != nil {
			t.Fatal(err)
		}
		b.conn.accept(1, 1)
		for _, name := range []string{"a", "b", "c"} {
			b.notify(name)
		}
		b.conn.accept(1, -1)
		b.notify("d")
		b.notify("e")
		same(t, b.told(1), told{cmdEvent, "a", 1, 0}, told{cmdEvent, "d", 4, 2}, told{cmdEvent, "e", 5, 0})
		if n := len(b.told(2)); n != 5 {
			t.Errorf("one who reads got %d events of 5", n)
		}
		if n := b.Counts().Lost; n != 2 {
			t.Errorf("%d counted as lost", n)
		}
	})
}

func TestLossIsToldThoughNothingElseHappens(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		if err := b.Subscribe(1, nil); err != nil {
			t.Fatal(err)
		}
		b.conn.accept(1, 0)
		b.notify("a")
		b.notify("b")
		time.Sleep(10 * tellEvery)
		synctest.Wait()
		same(t, b.told(1))
		b.conn.accept(1, -1)
		time.Sleep(tellEvery)
		synctest.Wait()
		same(t, b.told(1), told{cmdLost, "", 2, 2})
		b.notify("c")
		same(t, b.told(1), told{cmdEvent, "c", 3, 0})
		if n := b.Counts().Lost; n != 2 {
			t.Errorf("%d counted as lost", n)
		}
		b.conn.accept(1, 0) // and Close ends the teller, which inBubble checks
		b.notify("d")
	})
}

func TestSubscriberWhoIsGoneIsForgotten(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		if err := b.Subscribe(1, nil); err != nil {
			t.Fatal(err)
		}
		b.conn.leave(1)
		b.notify("a")
		if n := b.Counts().Subscribers; n != 0 {
			t.Errorf("%d subscribers", n)
		}
	})
}

func TestTooManySubscribersAreRefused(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		for i := range uint32(maxSubscribers) {
			if err := b.Subscribe(1+i, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Subscribe(1000, nil); !errors.Is(err, unix.EUSERS) {
			t.Errorf("Subscribe: %v", err)
		}
		if err := b.Subscribe(1, nil); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

func TestEventThatCannotBeEncodedIsLost(t *testing.T) {
	inBubble(t, testFamily, func(t *testing.T, b *bench) {
		if err := b.Subscribe(1, nil); err != nil {
			t.Fatal(err)
		}
		b.Notify(cmdEvent, "", func(ae *netlink.AttributeEncoder) { ae.Bytes(aName, make([]byte, 1<<16)) })
		b.notify("a")
		same(t, b.told(1), told{cmdEvent, "a", 2, 1})
	})
}
