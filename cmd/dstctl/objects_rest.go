package main

import (
	"math"

	"dst/abi"
)

func startObject() *object {
	return &object{name: "start", doc: "start a node", verbs: []*verb{
		{doc: "Start a node.", run: runStart,
			more: "An export accepts clients from now on. A remote calls its peer: the command waits until requests can flow " +
				"(-wait, 10s by default), and ends with exit status 5 and the reason when they cannot yet; the remote keeps trying. " +
				"An export has one read-write client; while that one lives others are refused. With steal this one takes its place, and that one can not go on: " +
				"it is refused, and fails when it is let in again, because somebody else may have written.",
			args: []*arg{argName,
				{word: "steal", attr: abi.AttrNodeFlags, doc: "take the read-write place from a client that lives (a remote)", put: putFlag(abi.NodeFlagSteal)}},
			example: []string{"start vol0", "-wait 1m start disk0", "start disk0 steal"}},
	}}
}

func delObject() *object {
	return &object{name: "del", doc: "remove a node", verbs: []*verb{
		{also: []string{"delete"}, doc: "Remove a node.", run: runDel,
			more: "A node in use is refused, naming who uses it: an export with a read-write client, a remote that is mounted, held or open. What a remote has acknowledged and the peer may not have on its disk is flushed first; if that cannot be, it is refused, too.",
			args: []*arg{argName,
				{word: "force", attr: abi.AttrNodeDelFlags, doc: "although it is in use or something would be lost; requests under way fail", put: putForce}},
			example: []string{"del vol0", "del disk0 force"}},
	}}
}

func showObject() *object {
	return &object{name: "show", doc: "show nodes: what they are and how they are", verbs: []*verb{
		{also: []string{"list", "lst"}, doc: "Show a node, or all.", run: runShow,
			more: "-s adds the counters, -d settings, sessions, rules and history, -br makes a table.",
			args: []*arg{argSome}, example: []string{"show", "-d show vol0", "-j -p show vol0", "-br show"}},
	}}
}

func statsObject() *object {
	return &object{name: "stats", doc: "show counters", verbs: []*verb{
		{doc: "Show the counters of a node, or of all.", run: runStats,
			more: "Counters grow from zero while a node lives.",
			args: []*arg{argSome}, example: []string{"stats vol0", "-h stats"}},
	}}
}

func sysObject() *object {
	return &object{name: "sys", doc: "the daemon itself", verbs: []*verb{
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show the daemon, and which protections took effect.", run: runSys,
			example: []string{"sys show"}},
		{name: "shutdown", doc: "Let no I/O of this host wait for long, because it goes down.", run: runShutdown,
			more: "Remotes whose peer is gone fail after TIME, those that already wait for longer at once, so that file systems can be unmounted. " +
				"What is connected is not touched. The unit dstd-shutdown.service does this when the host goes down.",
			args:    []*arg{{word: "after", kind: kindTime, min: 1, max: math.MaxUint32, doc: "how long requests may wait for a peer from now on (default 10s)", put: putTime(func(r *request) **uint32 { return &r.node.Knobs.FailAfter })}},
			example: []string{"sys shutdown", "sys shutdown after 1s"}},
	}}
}

func monitorObject() *object {
	return &object{name: "monitor", doc: "show what happens, as it happens", verbs: []*verb{
		{doc: "Show what happens, as it happens, until it is interrupted.", run: runMonitor, endless: true,
			more: "First a line \"exists\" for each node, then \"sync\", then one line for each event. " +
				"When events were lost because they were not read in time, \"resync\" says how many and the nodes are listed again, up to the next \"sync\". " +
				"With -j each line is one JSON object with event, ts and seq.",
			example: []string{"monitor", "-t monitor", "-j monitor"}},
	}}
}

func helpObject() *object {
	word := func(name string, need bool) *arg {
		return &arg{kind: &kind{name: name}, doc: "whose help", need: need, put: func(*parser, *arg, string) error { return nil }}
	}
	return &object{name: "help", doc: "print help; also as the last word of OBJECT and OBJECT COMMAND", verbs: []*verb{
		{doc: "Print help.", run: runHelp, args: []*arg{word("OBJECT", false), word("COMMAND", false)},
			example: []string{"help", "export help", "export add help"}},
	}}
}
