package main

import (
	"encoding/json"
	"strings"
	"testing"

	"dst/abi"
)

// someEvents are one of each kind, then the daemon goes away.
func someEvents(t *testing.T) *fakeDaemon {
	d := exampleNodes()
	peer := mustAddr(t, "tcp:10.0.0.9:40112")
	for i, e := range []abi.Event{
		{Kind: abi.EventKindAdd, Name: "new", State: abi.StateConfigured},
		{Kind: abi.EventKindStart, Name: "new", State: abi.StateConnecting},
		{Kind: abi.EventKindState, Name: "disk0", State: abi.StateEstablished, Peer: peer},
		{Kind: abi.EventKindChange, Name: "vol0", State: abi.StateServing},
		{Kind: abi.EventKindSession, Name: "vol0", Peer: peer, Reason: "welcomed read-write"},
		{Kind: abi.EventKindRefuse, Name: "vol0", Peer: peer, Reason: "no rule names it"},
		{Kind: abi.EventKindError, Name: "vol0", Reason: "write at 4096: no space\x1b]0;left", Lost: 12},
		{Kind: abi.EventKindDel, Name: "new", Reason: "removed by hand"},
	} {
		e.Seq, e.Time = uint64(i+1), 1_795_342_625_000+uint64(i)
		d.events <- e
	}
	close(d.events)
	return d
}

func TestMonitor(t *testing.T) {
	for name, command := range map[string]string{"monitor": "monitor", "monitor-timestamps": "-t -d monitor", "monitor-json": "-j -p monitor"} {
		d := someEvents(t)
		got := dstctl(t, d, command)
		if got.code != exitNoDaemon || !strings.HasPrefix(got.err, "Error: no dstd answers") {
			t.Errorf("%s: %+v", command, got)
		}
		golden(t, name+".golden", got.out)
		if name != "monitor-json" {
			continue
		}
		for line := range strings.Lines(got.out) {
			var v struct {
				Schema int
				Event  string
				TS     string
				Seq    *uint64
			}
			if err := json.Unmarshal([]byte(line), &v); err != nil || v.Schema != 1 || v.Event == "" || len(v.TS) != 24 || v.Seq == nil {
				t.Errorf("%v: %s", err, line)
			}
		}
	}
}
