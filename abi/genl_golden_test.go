package abi

import (
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// spec is what these tests read of dst.yaml.
type spec struct {
	Sets       []attrSet `yaml:"attribute-sets"`
	Operations struct {
		List []struct {
			Name  string
			Value uint8
			Set   string `yaml:"attribute-set"`
		}
	}
}

type attrSet struct {
	Name  string
	Attrs []struct {
		Name, Type string
		Nested     string `yaml:"nested-attributes"`
	} `yaml:"attributes"`
}

func readSpec(t *testing.T) (s spec) {
	t.Helper()
	text, err := os.ReadFile("dst.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(s.Operations.List); i++ {
		if op := &s.Operations.List[i]; op.Value == 0 {
			op.Value = s.Operations.List[i-1].Value + 1
		}
	}
	return s
}

// parts names the attributes b of a set, those of nests too.
func (s *spec) parts(t *testing.T, set, indent string, b []byte) (ps []part) {
	t.Helper()
	i := slices.IndexFunc(s.Sets, func(a attrSet) bool { return a.Name == set })
	for len(b) > 0 {
		n, typ := int(host.Uint16(b)), host.Uint16(b[2:])
		nested := typ&unix.NLA_F_NESTED != 0
		typ &^= unix.NLA_F_NESTED
		if typ == 0 || int(typ) > len(s.Sets[i].Attrs) {
			t.Fatalf("%s has no attribute %d", set, typ)
		}
		a := s.Sets[i].Attrs[typ-1]
		if nested != (a.Type == "nest") {
			t.Errorf("%s of %s: NLA_F_NESTED is %v", a.Name, set, nested)
		}
		ps = append(ps, cut(&b, 4, "%s%s, %d bytes", indent, a.Name, n-4))
		value := b[:n-4]
		switch {
		case nested:
			ps = append(ps, s.parts(t, a.Nested, indent+"  ", value)...)
			cut(&b, n-4, "")
		case a.Type == "string":
			ps = append(ps, cut(&b, n-4, "%s%q", indent, value[:n-5]))
		case n > 4:
			ps = append(ps, cut(&b, n-4, ""))
		}
		if pad := min((4-n%4)%4, len(b)); pad > 0 {
			ps = append(ps, cut(&b, pad, "%spadding", indent))
		}
	}
	return ps
}

// genlSample is one message of the control family.
type genlSample struct {
	cmd     uint8
	reply   bool
	flags   uint16
	m       Message
	comment string
}

func genlSamples() map[string]genlSample {
	const (
		do   = unix.NLM_F_REQUEST | unix.NLM_F_ACK
		dump = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	)
	listen := NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("0.0.0.0:9876"))
	peer := NetAddr(unix.IPPROTO_TCP, netip.MustParseAddrPort("10.0.0.1:9876"))
	name := &Node{Name: "vol0"}
	rule := Rule{Kind: RuleKindInet, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Perm: PermRW}
	rules := &NodeRules{"vol0", []Rule{rule}}
	keyed := rule
	keyed.Key = KeyID{1, 2, 3, 4, 5, 6, 7, 8}
	remote := Node{Name: "vol0", Addrs: []Addr{peer, UnixAddr("/run/peer")}, Export: "disk", Size: 1 << 30, Attach: AttachSocket, Socket: "/run/dst/vol0.sock",
		Flags: NodeFlagReadOnly | NodeFlagStarted, Hash: "crc32c", Knobs: Knobs{MaxPages: new(uint32(256)), Depth: new(uint32(128)), Arena: new(uint64(64 << 20)),
			Keepalive: new(uint32(1000)), RequestTimeout: new(uint32(0)), FailAfter: new(uint32(0)), LogAge: new(uint32(5000))}}
	export := Node{Name: "vol0", Device: "/srv/vol0.img", Addrs: []Addr{listen}, Size: 1 << 30, Flags: NodeFlagWritethrough, Hash: "crc32c",
		Knobs: Knobs{Workers: new(uint32(16))}}
	guarded := stateOfKeyed(listen, peer, keyed)
	stateOf := remote
	stateOf.Kind, stateOf.Default = KindRemote, []uint16{AttrNodeDepth, AttrNodeHash}
	stateOf.Status = &Status{State: StateEstablished, StateAge: 5000, Reason: "connected", Epoch: 3, ClientID: id16(0x10), Verifier: Verifier(id16(0x30)),
		StoreID: id16(0x40), Perm: PermRW, BlockMin: 512, MaxSize: 1 << 20, InFlight: 2, Oldest: 7, Unflushed: 4, Peer: peer,
		Sessions: []Session{{Peer: peer, ClientID: id16(0x10), Epoch: 3, Perm: PermRW, Age: 5000, InFlight: 2, Workers: 4, Draining: true}},
		Rules:    []Rule{rule, {Kind: RuleKindUnix, ID: new(uint32(1000)), Perm: PermRead}}, Warnings: []string{"integrity is not promised"},
		Transitions: []Transition{{StateBroken, 6000, "connection reset by peer"}}}
	var counters Counters
	n := 0
	fill(reflect.ValueOf(&counters).Elem(), &n)
	return map[string]genlSample{
		"del-node":         {CmdDelNode, false, do, &Del{"vol0", DelFlagForce}, "DEL_NODE, force"},
		"add-remote":       {CmdAddRemote, false, do, &remote, "ADD_REMOTE"},
		"add-export":       {CmdAddExport, false, do, &export, "ADD_EXPORT"},
		"crypto":           {CmdCrypto, false, do, &Crypto{Name: "vol0", Cipher: "gcm(aes)", CipherKeyFile: "/etc/dst/vol0.key", Hash: "crc32c", HashKeyFile: "/etc/dst/hash.key", CipherKey: []byte{1, 2, 3}, HashKey: []byte{4}, Threads: new(uint32(2))}, "CRYPTO"},
		"crypto-add":       {CmdCrypto, false, do, &Crypto{Name: "vol0", Op: CryptoOpAdd, Flags: CryptoFlagAllowLegacy, Cipher: "cbc(aes)", CipherKeyFile: "/etc/dst/1.key", Hash: "hmac(sha1)", HashKeyFile: "/etc/dst/2.key"}, "CRYPTO: one more key"},
		"crypto-del":       {CmdCrypto, false, do, &Crypto{Name: "vol0", Op: CryptoOpDel, KeyID: keyed.Key}, "CRYPTO: a key less"},
		"security-key":     {CmdSecurity, false, do, &NodeRules{"vol0", []Rule{keyed}}, "SECURITY: 10.0.0.0/8 may read and write with that key"},
		"security":         {CmdSecurity, false, do, rules, "SECURITY: 10.0.0.0/8 may read and write"},
		"start":            {CmdStart, false, do, name, "START"},
		"get":              {CmdGet, false, unix.NLM_F_REQUEST, name, "GET of one node"},
		"get-reply":        {CmdGet, true, 0, &stateOf, "its answer"},
		"get-reply-keys":   {CmdGet, true, 0, guarded, "an export that has a key"},
		"get-dump":         {CmdGet, false, dump, &Node{}, "GET of all nodes"},
		"set":              {CmdSet, false, do, &Node{Name: "vol0", Flags: 0, Mask: NodeFlagReadOnly, Knobs: Knobs{Keepalive: new(uint32(500)), FailAfter: new(uint32(0))}}, "SET: not read-only any more, keepalive 500 ms"},
		"security-del":     {CmdSecurityDel, false, do, rules, "SECURITY_DEL"},
		"security-get":     {CmdSecurityGet, false, dump, name, "SECURITY_GET of one export"},
		"security-get-row": {CmdSecurityGet, true, unix.NLM_F_MULTI, rules, "a row of its answer"},
		"stats":            {CmdStats, false, unix.NLM_F_REQUEST, name, "STATS of one node"},
		"stats-reply":      {CmdStats, true, 0, &NodeStats{"vol0", counters}, "its answer"},
		"sys":              {CmdSys, false, unix.NLM_F_REQUEST, &Sys{}, "SYS"},
		"sys-reply": {CmdSys, true, 0, &Sys{Version: "0.1.0", PID: 42, Uptime: 1000, RunDir: "/run/dst", StateDir: "/var/lib/dst", DevDir: "/dev/dst", Nodes: 1,
			Sessions: 2, Subscribers: 3, Budget: 1 << 30, BudgetUsed: 1 << 22, Heap: 1 << 20, Protections: []Protection{{"locked", true, ""}, {"oom", false, "needs CAP_SYS_RESOURCE"}}}, "its answer"},
		"subscribe":   {CmdSubscribe, false, do, &Event{}, "SUBSCRIBE"},
		"unsubscribe": {CmdUnsubscribe, false, do, &Event{}, "UNSUBSCRIBE"},
		"event":       {CmdEvent, true, 0, &Event{7, 2, EventKindState, 1 << 40, "vol0", StateBroken, "no route to host", peer}, "EVENT, two were lost before it"},
	}
}

// stateOfKeyed is an export with a key, a client that proved it and a rule for it.
func stateOfKeyed(listen, peer Addr, rule Rule) *Node {
	return &Node{Name: "vol0", Kind: KindExport, Device: "/srv/vol0.img", Addrs: []Addr{listen}, Flags: NodeFlagStarted | NodeFlagRequireCrypto,
		Knobs: Knobs{CryptoThreads: new(uint32(2))},
		Status: &Status{State: StateServing, Sessions: []Session{{Peer: peer, ClientID: id16(0x10), Epoch: 1, Perm: PermRW, Key: rule.Key}}, Rules: []Rule{rule},
			Keys: []Key{{ID: rule.Key, Cipher: "gcm(aes)", Sessions: 1}, {ID: KeyID{9}, Cipher: "cbc(aes)", Hash: "hmac(sha256)"}}}}
}

// TestGoldenGenl holds a message of every operation of dst.yaml.
func TestGoldenGenl(t *testing.T) {
	hostOrder(t)
	spec := readSpec(t)
	seen := map[uint8]bool{}
	for name, s := range genlSamples() {
		seen[s.cmd] = true
		b, err := Marshal(s.m)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(s.m).Elem()).Interface().(Message)
		if err := Unmarshal(b, got); err != nil || !reflect.DeepEqual(got, s.m) {
			t.Errorf("%s: %v, came back as %+v", name, err, got)
		}
		h := host.AppendUint32(nil, uint32(20+len(b)))
		h = host.AppendUint16(h, FamilyID)
		h = host.AppendUint16(h, s.flags)
		h = host.AppendUint32(h, 1)
		port := uint32(0)
		if s.reply {
			port = 1234
		}
		h = host.AppendUint32(h, port)
		op := spec.Operations.List[s.cmd-1]
		h = append(h, s.cmd, FamilyVersion, 0, 0)
		head := []part{cut(&h, 16, "nlmsghdr"), cut(&h, 4, "genlmsghdr: %s, version %d", op.Name, FamilyVersion)}
		golden(t, "genl-"+name, s.comment+"; little-endian host", append(head, spec.parts(t, op.Set, "", b)...))
	}
	for _, op := range spec.Operations.List {
		if !seen[op.Value] {
			t.Errorf("no golden message of %s", op.Name)
		}
	}
}

// TestNodeAttrsNamed: the numbers that Default lists are those of the spec.
func TestNodeAttrsNamed(t *testing.T) {
	set := readSpec(t).Sets[0]
	for n, want := range map[int]string{AttrNodeName: "name", AttrNodeDepth: "depth", AttrNodeWorkers: "workers", AttrNodeDelFlags: "del-flags", AttrNodeUser: "user", AttrNodeLogBytes: "log-bytes", AttrNodeWait: "wait", AttrNodeKey: "key", AttrNodeCryptoThreads: "crypto-threads"} {
		if got := set.Attrs[n-1].Name; got != want {
			t.Errorf("%s: attribute %d is %s, want %s", set.Name, n, got, want)
		}
	}
	if len(set.Attrs) != AttrNodeCryptoThreads {
		t.Errorf("%d attributes of a node, the last one is %d", len(set.Attrs), AttrNodeCryptoThreads)
	}
}
