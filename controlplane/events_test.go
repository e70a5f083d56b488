package controlplane

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
)

func TestEvents(t *testing.T) {
	_, d, c := opened(t)
	e, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	peer := tcp("10.0.0.1:9876")
	for i := range 3 {
		d.Notify(abi.Event{Kind: abi.EventKindState, Name: fmt.Sprint("vol", i), State: abi.StateBroken, Reason: "no route", Peer: peer, Seq: 99, Lost: 99})
	}
	for i := range 3 {
		ev, err := e.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.UnixMilli(int64(ev.Time))); age < 0 || age > time.Minute {
			t.Errorf("event %d is %v old", i, age)
		}
		ev.Time = 0
		if want := (abi.Event{Seq: uint64(i + 1), Kind: abi.EventKindState, Name: fmt.Sprint("vol", i), State: abi.StateBroken, Reason: "no route", Peer: peer}); ev != want {
			t.Errorf("got %+v, want %+v", ev, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	d.Notify(abi.Event{Kind: abi.EventKindAdd, Name: "a"})
	if ev, err := e.Next(t.Context()); err != nil || ev.Name != "a" || ev.Lost != 0 {
		t.Errorf("after a cancelled wait: %v, %+v", err, ev)
	}
}

func TestUnsubscribe(t *testing.T) {
	_, d, _ := opened(t)
	r := newRaw(t)
	do := func(cmd uint8) unix.Errno {
		errno, _ := r.ask(t, message(abi.FamilyID, unix.NLM_F_REQUEST|unix.NLM_F_ACK, cmd, nil))
		return errno
	}
	for _, tt := range []struct {
		cmd  uint8
		want unix.Errno
		n    int
	}{
		{abi.CmdUnsubscribe, unix.ENOENT, 0},
		{abi.CmdSubscribe, 0, 1},
		{abi.CmdSubscribe, 0, 1},
		{abi.CmdUnsubscribe, 0, 0},
		{abi.CmdUnsubscribe, unix.ENOENT, 0},
	} {
		if errno := do(tt.cmd); errno != tt.want || d.Counts().Subscribers != tt.n {
			t.Errorf("command %d: %v, %d subscribers; want %v, %d", tt.cmd, errno, d.Counts().Subscribers, tt.want, tt.n)
		}
	}
}

// TestWatchResynchronises: the picture that a Watch draws is right again after
// more events than its socket holds.
func TestWatchResynchronises(t *testing.T) {
	_, d, c := opened(t)
	ctx := t.Context()
	if err := c.AddExport(ctx, export("vol0")); err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	u, err := w.Next(ctx)
	if err != nil || len(u.Nodes) != 1 || u.Lost != 0 || u.Nodes[0].Name != "vol0" {
		t.Fatalf("first: %v, %+v", err, u)
	}
	d.Notify(abi.Event{Kind: abi.EventKindStart, Name: "vol0"})
	if u, err = w.Next(ctx); err != nil || u.Nodes != nil || u.Event.Kind != abi.EventKindStart {
		t.Fatalf("delta: %v, %+v", err, u)
	}
	const flood = 20000
	for range flood {
		d.Notify(abi.Event{Kind: abi.EventKindState, Name: "vol0", Reason: "again"})
	}
	if err := c.AddRemote(ctx, remote("vol1")); err != nil {
		t.Fatal(err)
	}
	for seen := 0; ; seen++ {
		if u, err = w.Next(ctx); err != nil {
			t.Fatal(err)
		}
		if u.Nodes != nil {
			if int(u.Lost)+seen > flood || u.Lost == 0 || len(u.Nodes) != 2 {
				t.Errorf("%d events, then %d lost of %d, then %d nodes", seen, u.Lost, flood, len(u.Nodes))
			}
			break
		}
	}
	d.Notify(abi.Event{Kind: abi.EventKindDel, Name: "vol0"})
	for u.Event.Kind != abi.EventKindDel {
		if u, err = w.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWatchAcrossRestart: a daemon that goes is told, and a new one too.
func TestWatchAcrossRestart(t *testing.T) {
	ownNetNS(t)
	p := newFake()
	_, stop := serve(t, p)
	c := dial(t)
	w, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.ProbeEvery(10 * time.Millisecond)
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := w.Next(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("without a daemon: got %v", err)
	}
	p = newFake()
	p.sys.PID++
	d, stop := serve(t, p)
	defer stop()
	if err := c.AddExport(t.Context(), export("vol9")); err != nil {
		t.Fatalf("the client of the old daemon: %v", err)
	}
	u, err := w.Next(t.Context())
	if err != nil || u.Lost == 0 || len(u.Nodes) != 1 || u.Nodes[0].Name != "vol9" {
		t.Fatalf("after a restart: %v, %+v", err, u)
	}
	d.Notify(abi.Event{Kind: abi.EventKindStart, Name: "vol9"})
	if u, err = w.Next(t.Context()); err != nil || u.Nodes != nil || u.Event.Name != "vol9" {
		t.Errorf("then: %v, %+v", err, u)
	}
}
