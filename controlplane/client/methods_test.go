package client

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// golden reads a message of abi/testdata.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("../../abi/testdata/genl-" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMethodsSendGoldenBytes: each method sends the frozen bytes of its
// operation and takes the frozen bytes of the answer.
func TestMethodsSendGoldenBytes(t *testing.T) {
	if native.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIP: the golden bytes of host order are those of a little-endian host")
	}
	ownNetNS(t)
	decoded := func(name string, m abi.Message) {
		if err := abi.Unmarshal(golden(t, name)[attrsAt:], m); err != nil {
			t.Fatal(err)
		}
	}
	var add, export, set, got abi.Node
	var crypto abi.Crypto
	var rules abi.NodeRules
	var stats abi.NodeStats
	var sys abi.Sys
	decoded("add-remote", &add)
	decoded("add-export", &export)
	decoded("set", &set)
	decoded("crypto", &crypto)
	decoded("security", &rules)
	decoded("get-reply", &got)
	decoded("stats-reply", &stats)
	decoded("sys-reply", &sys)
	requests := make(chan []byte, 1)
	replies := map[uint8]string{abi.CmdGet: "get-reply", abi.CmdStats: "stats-reply", abi.CmdSys: "sys-reply", abi.CmdSecurityGet: "security-get-row"}
	listen(t, func(r request) [][]byte {
		if r.typ == unix.GENL_ID_CTRL {
			return nil
		}
		requests <- append([]byte{r.cmd, 1, 0, 0}, r.attrs...)
		if name := replies[r.cmd]; name != "" {
			row := r.message(r.typ, 0, r.seq, golden(t, name)[16:]...)
			if r.cmd != abi.CmdSecurityGet {
				return [][]byte{row}
			}
			row = r.message(r.typ, unix.NLM_F_MULTI, r.seq, golden(t, name)[16:]...)
			return [][]byte{append(row, row...), r.message(unix.NLMSG_DONE, unix.NLM_F_MULTI, r.seq, 0, 0, 0, 0)}
		}
		return [][]byte{r.ack(0)}
	})
	c, ctx := dial(t, time.Second), t.Context()
	check := func(want, have any, err error) error {
		if err == nil && !reflect.DeepEqual(want, have) {
			t.Errorf("got %+v, want %+v", have, want)
		}
		return err
	}
	twice := []*abi.NodeRules{{Name: "vol0", Rules: append(rules.Rules, rules.Rules...)}}
	for _, tt := range []struct {
		name string
		call func() error
	}{
		{"del-node", func() error { return c.Del(ctx, "vol0", true) }},
		{"add-remote", func() error { return c.AddRemote(ctx, &add) }},
		{"add-export", func() error { return c.AddExport(ctx, &export) }},
		{"crypto", func() error { return c.Crypto(ctx, &crypto) }},
		{"security", func() error { return c.AddRule(ctx, "vol0", rules.Rules[0]) }},
		{"start", func() error { return c.Start(ctx, "vol0") }},
		{"set", func() error { return c.Set(ctx, &set) }},
		{"security-del", func() error { return c.DelRule(ctx, "vol0", rules.Rules[0]) }},
		{"get", func() error { n, err := c.Get(ctx, "vol0"); return check(&got, n, err) }},
		{"security-get", func() error { r, err := c.Rules(ctx, "vol0"); return check(twice, r, err) }},
		{"stats", func() error { s, err := c.Stats(ctx, "vol0"); return check(&stats.Counters, s, err) }},
		{"sys", func() error { s, err := c.Sys(ctx); return check(&sys, s, err) }},
	} {
		if err := tt.call(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if sent, want := <-requests, golden(t, tt.name)[16:]; !bytes.Equal(sent, want) {
			t.Errorf("%s: sent\n% x, want\n% x", tt.name, sent, want)
		}
	}
	if err := c.Start(ctx, strings.Repeat("x", 1<<16)); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a name of 64 KiB: got %v, want EMSGSIZE", err)
	}
}

// TestWatch: the state first, then events, and the state again after a loss.
func TestWatch(t *testing.T) {
	ownNetNS(t)
	subscriber := make(chan request, 1)
	d := listen(t, func(r request) [][]byte {
		switch {
		case r.typ == unix.GENL_ID_CTRL:
			return nil
		case r.cmd == abi.CmdSubscribe:
			select {
			case subscriber <- r:
			default: // asked again
			}
			return [][]byte{r.ack(0)}
		case r.cmd == abi.CmdSys:
			return [][]byte{r.answer(&abi.Sys{PID: 1, Uptime: 5})}
		}
		node := r.message(r.typ, unix.NLM_F_MULTI, r.seq, r.answer(&abi.Node{Name: "vol0"})[16:]...)
		return [][]byte{append(node, r.message(unix.NLMSG_DONE, unix.NLM_F_MULTI, r.seq, 0, 0, 0, 0)...)}
	})
	w, err := dial(t, time.Second).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.ProbeEvery(time.Millisecond)
	r := <-subscriber
	r.cmd, r.seq = abi.CmdEvent, 0
	for _, e := range []abi.Event{{Seq: 1, Kind: abi.EventKindAdd}, {Seq: 4, Lost: 2, Kind: abi.EventKindDel}, {Seq: 5, Lost: 1}} {
		d.send(r.port, r.answer(&e))
	}
	for i, want := range []Update{
		{Nodes: []*abi.Node{{}}},
		{Event: abi.Event{Kind: abi.EventKindAdd}},
		{Nodes: []*abi.Node{{}}, Lost: 2},
		{Event: abi.Event{Kind: abi.EventKindDel}},
		{Nodes: []*abi.Node{{}}, Lost: 1},
	} {
		u, err := w.Next(t.Context())
		if err != nil || len(u.Nodes) != len(want.Nodes) || u.Lost != want.Lost || u.Event.Kind != want.Event.Kind {
			t.Errorf("update %d: %v, %+v, want %+v", i, err, u, want)
		}
	}
}
