package main

import (
	"encoding/json"
	"slices"
	"strconv"

	"dst/abi"
)

// What is shown, as JSON and as text alike: the text is made of these values,
// so that it never tells something else. Bytes are numbers, times have the
// suffix _ms. Fields are added, never renamed (schema 1).

const schema = 1

type nodesView struct {
	Schema int        `json:"schema"`
	Nodes  []nodeView `json:"nodes"`
}

// nodeView is one node.
type nodeView struct {
	Name     string        `json:"name"`
	Kind     string        `json:"kind"`
	Flags    []string      `json:"flags"`
	Size     uint64        `json:"size"`
	State    string        `json:"state"`
	StateAge uint64        `json:"state_age_ms"`
	Reason   string        `json:"reason,omitempty"`
	Device   string        `json:"device,omitempty"`
	Listen   []string      `json:"listen,omitempty"`
	Peers    []string      `json:"peers,omitempty"`
	Export   string        `json:"export,omitempty"`
	Attach   string        `json:"attach,omitempty"`
	Socket   string        `json:"socket,omitempty"`
	Kernel   string        `json:"kernel_device,omitempty"` // /dev/nbdN
	Link     string        `json:"link,omitempty"`          // /dev/dst/NAME
	Users    []string      `json:"users,omitempty"`         // who has the kernel's device
	Allowed  string        `json:"permission,omitempty"`
	Clients  *int          `json:"clients,omitempty"` // exports
	Crypto   string        `json:"crypto,omitempty"`  // algorithms of its keys
	Warnings []string      `json:"warnings,omitempty"`
	Details  *detailsView  `json:"details,omitempty"`  // -d
	Counters *countersView `json:"counters,omitempty"` // -s
}

// detailsView is what -d adds.
type detailsView struct {
	Settings  settings      `json:"settings"`
	Peer      string        `json:"peer,omitempty"`
	Epoch     uint64        `json:"epoch"`
	ClientID  string        `json:"client_id,omitempty"`
	Verifier  string        `json:"verifier,omitempty"`
	StoreID   string        `json:"store_id,omitempty"`
	BlockMin  uint32        `json:"block_min"`
	MaxSize   uint32        `json:"max_size"`
	InFlight  uint32        `json:"in_flight"`
	Oldest    uint64        `json:"oldest_ms"`
	Wait      string        `json:"wait"`
	Unflushed uint64        `json:"unflushed"`
	LogBytes  uint64        `json:"log_bytes"`
	Sessions  []sessionView `json:"sessions"`
	Rules     []ruleView    `json:"rules"`
	Keys      []keyView     `json:"keys"`
	History   []changeView  `json:"history"`
}

// settings are knobs by name; in JSON one object, in this order.
type settings []settingView

// settingView is one knob. Value is a number (bytes, or milliseconds where the
// name ends in _ms) or a string.
type settingView struct {
	name   string
	Value  any    `json:"value"`
	Origin string `json:"origin"` // default or set
}

// MarshalJSON writes the settings as an object.
func (all settings) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for i, s := range all {
		one, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(strconv.AppendQuote(b, s.name), ':'), one...)
	}
	return append(b, '}'), nil
}

type sessionView struct {
	Peer     string `json:"peer"`
	ClientID string `json:"client_id"`
	Epoch    uint64 `json:"epoch"`
	Allowed  string `json:"permission"`
	Age      uint64 `json:"age_ms"`
	InFlight uint32 `json:"in_flight"`
	Workers  uint32 `json:"workers"`
	Draining bool   `json:"draining"`
	Key      string `json:"key,omitempty"` // id of the key that it proved to have
}

type ruleView struct {
	Node    string `json:"name,omitempty"` // security show
	Who     string `json:"who"`
	Allowed string `json:"permission"`
	Key     string `json:"key,omitempty"` // id of the key that it is tied to
}

type changeView struct {
	State  string `json:"state"`
	Age    uint64 `json:"age_ms"`
	Reason string `json:"reason,omitempty"`
}

// viewNode is what options o show of n; c may be nil.
func viewNode(n *abi.Node, c *abi.Counters, o options) nodeView {
	v := nodeView{Name: n.Name, Kind: n.Kind.String(), Flags: flagWords(n.Flags), Size: n.Size,
		Device: n.Device, Export: n.Export, Socket: n.Socket}
	if n.Kind == abi.KindExport {
		v.Listen = addrWords(n.Addrs)
		v.Clients = new(0)
	} else {
		v.Peers = addrWords(n.Addrs)
		v.Attach = n.Attach.String()
	}
	if s := n.Status; s != nil {
		v.State, v.StateAge, v.Reason, v.Warnings = s.State.String(), s.StateAge, s.Reason, s.Warnings
		v.Kernel, v.Link, v.Users, v.Crypto = s.Device, s.Link, s.Users, protection(s.Keys)
		if n.Kind == abi.KindExport {
			v.Clients = new(len(s.Sessions))
		} else if s.Perm != 0 {
			v.Allowed = s.Perm.String()
		}
		if o.details {
			v.Details = viewDetails(n)
		}
	}
	if c != nil {
		v.Counters = new(viewCounters(c))
	}
	return v
}

func viewDetails(n *abi.Node) *detailsView {
	s := n.Status
	d := &detailsView{Settings: viewSettings(n), Epoch: s.Epoch, BlockMin: s.BlockMin, MaxSize: s.MaxSize,
		InFlight: s.InFlight, Oldest: s.Oldest, Wait: waitWord(s.Wait), Unflushed: s.Unflushed, LogBytes: s.LogBytes,
		Sessions: []sessionView{}, Rules: viewRules("", s.Rules), Keys: viewKeys("", n), History: []changeView{}}
	if !s.Peer.IsZero() {
		d.Peer = s.Peer.String()
	}
	if s.ClientID != (abi.ID{}) {
		d.ClientID = s.ClientID.String()
	}
	if s.Verifier != (abi.Verifier{}) {
		d.Verifier = s.Verifier.String()
	}
	if s.StoreID != (abi.ID{}) {
		d.StoreID = s.StoreID.String()
	}
	for _, c := range s.Sessions {
		d.Sessions = append(d.Sessions, sessionView{Peer: c.Peer.String(), ClientID: c.ClientID.String(), Epoch: c.Epoch,
			Allowed: c.Perm.String(), Age: c.Age, InFlight: c.InFlight, Workers: c.Workers, Draining: c.Draining, Key: keyIDText(c.Key)})
	}
	for _, t := range s.Transitions {
		d.History = append(d.History, changeView{t.State.String(), t.Age, t.Reason})
	}
	return d
}

// viewSettings are the knobs that the daemon told, in the order of the table.
func viewSettings(n *abi.Node) settings {
	k, all := &n.Knobs, settings{}
	add := func(name string, attr uint16, value any) {
		origin := "set"
		if slices.Contains(n.Default, attr) {
			origin = "default"
		}
		all = append(all, settingView{name, value, origin})
	}
	small := func(name string, attr uint16, value *uint32) {
		if value != nil {
			add(name, attr, *value)
		}
	}
	small("max_pages", abi.AttrNodeMaxPages, k.MaxPages)
	small("depth", abi.AttrNodeDepth, k.Depth)
	if k.Arena != nil {
		add("arena", abi.AttrNodeArena, *k.Arena)
	}
	small("keepalive_ms", abi.AttrNodeKeepalive, k.Keepalive)
	small("request_timeout_ms", abi.AttrNodeRequestTimeout, k.RequestTimeout)
	small("fail_after_ms", abi.AttrNodeFailAfter, k.FailAfter)
	small("log_age_ms", abi.AttrNodeLogAge, k.LogAge)
	small("workers", abi.AttrNodeWorkers, k.Workers)
	small("crypto_threads", abi.AttrNodeCryptoThreads, k.CryptoThreads)
	if n.Hash != "" {
		add("hash", abi.AttrNodeHash, n.Hash)
	}
	return all
}

func viewRules(node string, rules []abi.Rule) []ruleView {
	all := []ruleView{}
	for _, r := range rules {
		all = append(all, ruleView{node, r.Who(), r.Perm.String(), keyIDText(r.Key)})
	}
	return all
}

func addrWords(addrs []abi.Addr) []string {
	words := []string{}
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return words
}
