package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
)

var update = flag.Bool("update", false, "write golden files again")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// fakeDaemon is a daemon in memory: it keeps what it is told, and every call.
type fakeDaemon struct {
	calls   []string
	nodes   map[string]*abi.Node
	order   []string
	crypto  *abi.Crypto
	made    []string         // files of keys
	deleted abi.Rule         // the last one
	fail    map[string]error // by call, or by call and name
	events  chan abi.Event   // closed: the daemon went away
	get     func(n *abi.Node)
}

func newFake() *fakeDaemon {
	return &fakeDaemon{nodes: map[string]*abi.Node{}, fail: map[string]error{}, events: make(chan abi.Event, 100)}
}

func (d *fakeDaemon) call(what, name string) error {
	d.calls = append(d.calls, strings.TrimSpace(what+" "+name))
	if err := d.fail[what+" "+name]; err != nil {
		return err
	}
	return d.fail[what]
}

func (d *fakeDaemon) add(what string, n *abi.Node) error {
	if err := d.call(what, n.Name); err != nil {
		return err
	}
	if d.nodes[n.Name] != nil {
		return refuse(unix.EEXIST, fmt.Sprintf("there is a node %q already: choose another name", n.Name), abi.AttrNodeName)
	}
	kept := *n
	if kept.Status == nil {
		kept.Status = &abi.Status{}
	}
	d.nodes[n.Name], d.order = &kept, append(d.order, n.Name)
	return nil
}

func (d *fakeDaemon) AddRemote(_ context.Context, n *abi.Node) error { return d.add("add-remote", n) }
func (d *fakeDaemon) AddExport(_ context.Context, n *abi.Node) error { return d.add("add-export", n) }

func (d *fakeDaemon) find(what, name string) (*abi.Node, error) {
	if err := d.call(what, name); err != nil {
		return nil, err
	}
	n := d.nodes[name]
	if n == nil {
		return nil, refuse(unix.ENODEV, fmt.Sprintf("there is no node %q: see dstctl show", name), abi.AttrNodeName)
	}
	return n, nil
}

func (d *fakeDaemon) Del(_ context.Context, name string, force bool) error {
	_, err := d.find("del", name)
	if err == nil {
		delete(d.nodes, name)
		d.order = slices.DeleteFunc(d.order, func(s string) bool { return s == name })
		if force {
			d.calls = append(d.calls, "force")
		}
	}
	return err
}

func (d *fakeDaemon) Start(_ context.Context, name string) error {
	_, err := d.find("start", name)
	return err
}

func (d *fakeDaemon) Steal(_ context.Context, name string) error {
	_, err := d.find("steal", name)
	return err
}

func (d *fakeDaemon) Set(_ context.Context, n *abi.Node) error {
	_, err := d.find("set", n.Name)
	if err == nil {
		d.nodes[n.Name] = n
	}
	return err
}

func (d *fakeDaemon) Crypto(_ context.Context, c *abi.Crypto) error {
	d.crypto = c
	return d.call("crypto", c.Name)
}

func (d *fakeDaemon) AddRule(_ context.Context, name string, r abi.Rule) error {
	if err := r.Check(); err != nil {
		return err
	}
	n, err := d.find("security", name)
	if err == nil {
		n.Status.Rules = append(n.Status.Rules, r)
	}
	return err
}

func (d *fakeDaemon) DelRule(_ context.Context, name string, r abi.Rule) error {
	d.deleted = r
	_, err := d.find("security-del", name)
	return err
}

func (d *fakeDaemon) Rules(_ context.Context, name string) (all []*abi.NodeRules, err error) {
	err = d.call("security-get", name)
	for _, one := range d.order {
		if n := d.nodes[one]; n.Kind == abi.KindExport && (name == "" || name == one) {
			all = append(all, &abi.NodeRules{Name: one, Rules: n.Status.Rules})
		}
	}
	return all, err
}

func (d *fakeDaemon) Get(_ context.Context, name string) (*abi.Node, error) {
	if n := d.nodes[name]; n != nil && d.get != nil {
		d.get(n)
	}
	return d.find("get", name)
}

func (d *fakeDaemon) List(context.Context) (all []*abi.Node, err error) {
	err = d.call("list", "")
	for _, name := range d.order {
		if d.get != nil {
			d.get(d.nodes[name])
		}
		all = append(all, d.nodes[name])
	}
	return all, err
}

var fakeCounters = abi.Counters{Reads: 120, Writes: 30, Flushes: 4, ReadBytes: 491520, WrittenBytes: 122880,
	Errors: 1, Connects: 2, Breaks: 1, Resent: 3, MemoryWaits: 12345678}

func (d *fakeDaemon) Stats(_ context.Context, name string) (*abi.Counters, error) {
	_, err := d.find("stats", name)
	return &fakeCounters, err
}

func (d *fakeDaemon) ListStats(context.Context) (all []*abi.NodeStats, err error) {
	for _, name := range d.order {
		all = append(all, &abi.NodeStats{Name: name, Counters: fakeCounters})
	}
	return all, d.call("stats", "")
}

func (d *fakeDaemon) Sys(context.Context) (*abi.Sys, error) {
	return &abi.Sys{Version: "0.1.0", PID: 4711, Uptime: 11_520_000, RunDir: "/run/dst", StateDir: "/var/lib/dst", DevDir: "/dev/dst",
		Nodes: 2, Sessions: 1, Subscribers: 1, Budget: 2 << 30, BudgetUsed: 4 << 20, Heap: 9_300_000,
		Protections: []abi.Protection{{Name: "io-flusher", Active: true},
			{Name: "mlock", Reason: "CAP_IPC_LOCK is missing: start dstd with it"}}}, d.call("sys", "")
}

func (d *fakeDaemon) Close() error { return nil }

func (d *fakeDaemon) Subscribe(context.Context) (events, error) {
	return &fakeEvents{d.events}, d.call("subscribe", "")
}

func (d *fakeDaemon) Watch(context.Context) (updates, error) {
	return &fakeWatch{d: d, list: true}, d.call("watch", "")
}

type fakeEvents struct{ ch chan abi.Event }

func (e *fakeEvents) Next(ctx context.Context) (abi.Event, error) {
	select {
	case ev, ok := <-e.ch:
		if !ok {
			return abi.Event{}, client.ErrNoDaemon
		}
		return ev, nil
	case <-ctx.Done():
		return abi.Event{}, ctx.Err()
	}
}

func (e *fakeEvents) Close() error { return nil }

// fakeWatch lists the nodes first, and again where an event tells a loss.
type fakeWatch struct {
	d     *fakeDaemon
	list  bool
	lost  uint64
	event *abi.Event
}

func (w *fakeWatch) Next(ctx context.Context) (client.Update, error) {
	if w.list {
		w.list = false
		nodes, err := w.d.List(ctx)
		return client.Update{Nodes: append([]*abi.Node{}, nodes...), Lost: w.lost}, err
	}
	if w.event != nil {
		e := *w.event
		w.event = nil
		return client.Update{Event: e}, nil
	}
	e, err := (&fakeEvents{w.d.events}).Next(ctx)
	if err == nil && e.Lost > 0 {
		w.list, w.lost, w.event = true, e.Lost, &e
		return w.Next(ctx)
	}
	return client.Update{Event: e}, err
}

func (w *fakeWatch) Close() error { return nil }

// refuse is what the daemon answers.
func refuse(errno unix.Errno, msg string, attr uint16) error {
	return &client.Error{Errno: errno, Msg: msg, Attr: []uint16{attr}}
}

// fakeNames knows one host, which has two addresses, and one interface.
var fakeNames = names{
	host: func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "store1" {
			return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
		}
		return nil, errors.New("the network is down")
	},
	iface: func(name string) (int, error) {
		if name == "eth7" {
			return 7, nil
		}
		return 0, errors.New("no")
	},
}

// hostile tells whether text could move the cursor of a terminal.
func hostile(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\a\x1b\u009b\u202e")
}

// result is what one run did.
type result struct {
	code     int
	out, err string
}

// dstctl runs a command line, cut at spaces, against d; nil = nobody may be called.
func dstctl(t *testing.T, d *fakeDaemon, command string, stdin ...string) result {
	t.Helper()
	return runWords(t, d, strings.Fields(command), false, strings.Join(stdin, ""))
}

func runWords(t *testing.T, d *fakeDaemon, words []string, terminal bool, stdin string) result {
	t.Helper()
	if d == nil {
		return runAs(t, nil, words, terminal, stdin)
	}
	return runAs(t, d, words, terminal, stdin)
}

// runOn is dstctl against any daemon.
func runOn(t *testing.T, d api, command string) result {
	t.Helper()
	return runAs(t, d, strings.Fields(command), false, "")
}

// silent is a daemon that does not answer START.
type silent struct{ *fakeDaemon }

func (silent) Start(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func runAs(t *testing.T, d api, words []string, terminal bool, stdin string) result {
	t.Helper()
	fake, _ := d.(*fakeDaemon)
	var out, wrong bytes.Buffer
	code := run(t.Context(), world{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &wrong, terminal: terminal, names: fakeNames,
		dial: func(context.Context) (api, error) {
			if d == nil {
				t.Errorf("%q called the daemon", words)
				return nil, client.ErrNoDaemon
			}
			return d, nil
		},
		open: func(path string) (io.ReadCloser, error) {
			if path == "missing" {
				return nil, os.ErrNotExist
			}
			return io.NopCloser(strings.NewReader(stdin)), nil
		},
		now: func() time.Time { return time.UnixMilli(1_795_342_625_123).UTC() },
		makeKey: func(path string) error {
			if fake != nil {
				fake.made = append(fake.made, path)
			}
			if path == "/there" {
				return fmt.Errorf("key file %s exists: choose another name: %w", path, unix.EEXIST)
			}
			return nil
		},
	}, words)
	return result{code, out.String(), wrong.String()}
}

// exampleNodes are an export that serves and a remote whose link is broken.
func exampleNodes() *fakeDaemon {
	d := newFake()
	addr := func(s string) abi.Addr {
		a, err := abi.ParseAddr(s, nil)
		if err != nil {
			panic(err)
		}
		return a
	}
	d.nodes["vol0"] = &abi.Node{Name: "vol0", Kind: abi.KindExport, Device: "/srv/vol0.img", Size: 10 << 30,
		Addrs: []abi.Addr{addr("tcp:0.0.0.0:9876"), addr("unix:/run/dst/vol0")}, Flags: abi.NodeFlagStarted | abi.NodeFlagBuffered, Hash: "crc32c",
		Knobs:   abi.Knobs{MaxPages: new(uint32(256)), Depth: new(uint32(64)), Arena: new(uint64(64 << 20)), Keepalive: new(uint32(1000)), Workers: new(uint32(16))},
		Default: []uint16{abi.AttrNodeMaxPages, abi.AttrNodeArena, abi.AttrNodeKeepalive, abi.AttrNodeWorkers, abi.AttrNodeHash},
		Status: &abi.Status{State: abi.StateServing, StateAge: 11_520_000, Verifier: abi.Verifier{1, 2}, StoreID: abi.ID{3, 4},
			BlockMin: 512, MaxSize: 1 << 20, InFlight: 3, Oldest: 12,
			Sessions:    []abi.Session{{Peer: addr("tcp:10.0.0.2:40112"), ClientID: abi.ID{5}, Epoch: 2, Perm: abi.PermRW, Age: 300_000, InFlight: 3, Workers: 2, Draining: true}},
			Rules:       []abi.Rule{{Kind: abi.RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Perm: abi.PermRW}, {Kind: abi.RuleKindUnix, ID: new(uint32(1000)), Perm: abi.PermRead}, {Kind: abi.RuleKindAny}},
			Warnings:    []string{"the store is on a file system without extended attributes: its identity is kept in /var/lib/dst"},
			Transitions: []abi.Transition{{State: abi.StateConfigured, Age: 11_530_000}, {State: abi.StateServing, Age: 11_520_000}}}}
	d.nodes["disk0"] = &abi.Node{Name: "disk0", Kind: abi.KindRemote, Addrs: []abi.Addr{addr("tcp:[fd00::1]:9876")}, Export: "vol0",
		Attach: abi.AttachSocket, Socket: "/run/dst/disk0.sock", Flags: abi.NodeFlagStarted, Hash: "crc32c", Size: 1_000_000_000,
		Knobs: abi.Knobs{MaxPages: new(uint32(256)), Depth: new(uint32(128)), Arena: new(uint64(64 << 20)), Keepalive: new(uint32(1000)),
			RequestTimeout: new(uint32(0)), FailAfter: new(uint32(90_000)), LogAge: new(uint32(5000))},
		Default: []uint16{abi.AttrNodeMaxPages, abi.AttrNodeDepth, abi.AttrNodeRequestTimeout},
		Status: &abi.Status{State: abi.StatePause, StateAge: 420, Reason: "tcp:[fd00::1]:9876 refused the connection\x1b[2J: is dstd running there?",
			Epoch: 7, ClientID: abi.ID{9}, StoreID: abi.ID{3, 4}, Perm: abi.PermRW, BlockMin: 512, MaxSize: 1 << 20, Unflushed: 5, Peer: addr("tcp:[fd00::1]:9876"),
			Transitions: []abi.Transition{{State: abi.StateBroken, Age: 12_345, Reason: "no sign of life for 3s"}}}}
	d.order = []string{"vol0", "disk0"}
	return d
}
