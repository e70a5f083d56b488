package main

import (
	"time"

	"dst/abi"
)

type statsView struct {
	Schema int             `json:"schema"`
	Stats  []nodeStatsView `json:"stats"`
}

type nodeStatsView struct {
	Name string `json:"name"`
	countersView
}

// countersView counts from the moment that the node was added.
type countersView struct {
	Reads          uint64 `json:"reads"`
	Writes         uint64 `json:"writes"`
	Flushes        uint64 `json:"flushes"`
	Discards       uint64 `json:"discards"`
	Zeroes         uint64 `json:"zeroes"`
	Errors         uint64 `json:"errors"`
	ReadBytes      uint64 `json:"read_bytes"`
	WrittenBytes   uint64 `json:"written_bytes"`
	MemoryWaits    uint64 `json:"memory_waits"`
	Connects       uint64 `json:"connects"`
	Breaks         uint64 `json:"breaks"`
	Resent         uint64 `json:"resent"`
	Refused        uint64 `json:"refused"`
	DigestErrors   uint64 `json:"digest_errors"`
	ProtocolErrors uint64 `json:"protocol_errors"`
	Replayed       uint64 `json:"replayed"`
	AuthErrors     uint64 `json:"auth_errors"`
}

func viewCounters(c *abi.Counters) countersView {
	return countersView{Reads: c.Reads, Writes: c.Writes, Flushes: c.Flushes, Discards: c.Discards, Zeroes: c.Zeroes,
		Errors: c.Errors, ReadBytes: c.ReadBytes, WrittenBytes: c.WrittenBytes, MemoryWaits: c.MemoryWaits,
		Connects: c.Connects, Breaks: c.Breaks, Resent: c.Resent, Refused: c.Refused,
		DigestErrors: c.DigestErrors, ProtocolErrors: c.ProtocolErrors, Replayed: c.Replayed, AuthErrors: c.AuthErrors}
}

type rulesView struct {
	Schema int        `json:"schema"`
	Rules  []ruleView `json:"rules"`
}

type sysView struct {
	Schema int        `json:"schema"`
	Sys    daemonView `json:"sys"`
}

// daemonView is the daemon itself; memory in bytes.
type daemonView struct {
	Version     string           `json:"version"`
	PID         uint32           `json:"pid"`
	Uptime      uint64           `json:"uptime_ms"`
	RunDir      string           `json:"run_dir"`
	StateDir    string           `json:"state_dir"`
	DevDir      string           `json:"dev_dir"`
	Nodes       uint32           `json:"nodes"`
	Sessions    uint32           `json:"sessions"`
	Subscribers uint32           `json:"subscribers"`
	Budget      uint64           `json:"budget"`
	BudgetUsed  uint64           `json:"budget_used"`
	Heap        uint64           `json:"heap"`
	Protections []protectionView `json:"protections"`
}

type protectionView struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Reason string `json:"reason,omitempty"`
}

func viewSys(s *abi.Sys) daemonView {
	v := daemonView{Version: s.Version, PID: s.PID, Uptime: s.Uptime, RunDir: s.RunDir, StateDir: s.StateDir, DevDir: s.DevDir,
		Nodes: s.Nodes, Sessions: s.Sessions, Subscribers: s.Subscribers, Budget: s.Budget, BudgetUsed: s.BudgetUsed,
		Heap: s.Heap, Protections: []protectionView{}}
	for _, p := range s.Protections {
		v.Protections = append(v.Protections, protectionView(p))
	}
	return v
}

// eventView is one line of monitor: an event of the daemon, or exists, sync
// and resync, which are dstctl's own.
type eventView struct {
	Schema int    `json:"schema"`
	Event  string `json:"event"`
	Time   string `json:"ts"`  // RFC 3339, UTC
	Seq    uint64 `json:"seq"` // 0 for dstctl's own
	Name   string `json:"name,omitempty"`
	Kind   string `json:"kind,omitempty"` // exists
	State  string `json:"state,omitempty"`
	Peer   string `json:"peer,omitempty"`
	Reason string `json:"reason,omitempty"`
	Lost   uint64 `json:"lost,omitempty"` // resync: events that were lost
}

// stamp is a moment as monitor writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func viewEvent(e abi.Event) eventView {
	v := eventView{Schema: schema, Event: e.Kind.String(), Time: stamp(time.UnixMilli(int64(e.Time))), Seq: e.Seq, Name: e.Name, Reason: e.Reason}
	switch e.Kind {
	case abi.EventKindAdd, abi.EventKindStart, abi.EventKindChange, abi.EventKindState:
		v.State = e.State.String()
	}
	if !e.Peer.IsZero() {
		v.Peer = e.Peer.String()
	}
	return v
}

// flagWord says which flag is which word of the grammar, in the order shown.
var flagWord = []struct {
	flag abi.NodeFlag
	word string
}{
	{abi.NodeFlagStarted, "started"},
	{abi.NodeFlagReadOnly, "read-only"},
	{abi.NodeFlagShared, "shared"},
	{abi.NodeFlagWritethrough, "writethrough"},
	{abi.NodeFlagDirect, "direct"},
	{abi.NodeFlagBuffered, "buffered"},
	{abi.NodeFlagNoPartscan, "no-partscan"},
	{abi.NodeFlagSole, "sole"},
	{abi.NodeFlagSteal, "steal"},
	{abi.NodeFlagRequireCrypto, "require-crypto"},
}

func flagWords(flags abi.NodeFlag) []string {
	words := []string{}
	for _, f := range flagWord {
		if flags&f.flag != 0 {
			words = append(words, f.word)
		}
	}
	return words
}
