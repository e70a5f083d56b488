package main

import (
	"math"
	"slices"

	"dst/abi"
)

// objects is the grammar, in the order of help.
var objects []*object

func init() {
	objects = []*object{
		exportObject(), remoteObject(), securityObject(), cryptoObject(), keyObject(),
		startObject(), delObject(), showObject(), nodeObject(), statsObject(), sysObject(), monitorObject(), helpObject(),
	}
}

// the name of a node that is there, or shall be.
var (
	argName    = &arg{kind: kindName, need: true, attr: abi.AttrNodeName, doc: "the node", put: putNew}
	argSome    = &arg{kind: kindName, attr: abi.AttrNodeName, doc: "the node, all of them if not given", put: putNew}
	argStart   = &arg{word: "start", attr: abi.AttrNodeFlags, doc: "start at once", put: putFlag(abi.NodeFlagStarted)}
	argSize    = &arg{word: "size", kind: kindSize, attr: abi.AttrNodeSize, doc: "offer so many bytes, not more; all of the storage if not given", put: putSize}
	argResize  = &arg{word: "size", kind: kindSize, whole: "all", attr: abi.AttrNodeSize, put: putResize}
	argRO      = &arg{word: "read-only", attr: abi.AttrNodeFlags, put: putFlag(abi.NodeFlagReadOnly)}
	argPages   = &arg{word: "max-pages", kind: kindNumber, attr: abi.AttrNodeMaxPages, min: 1, max: 8192, doc: "largest request in pages of 4096 bytes (default 256)", put: putNumber(func(r *request) **uint32 { return &r.node.Knobs.MaxPages })}
	argDepth   = &arg{word: "depth", kind: kindNumber, attr: abi.AttrNodeDepth, min: 1, max: 4096, doc: "most requests in flight (default 128)", put: putNumber(func(r *request) **uint32 { return &r.node.Knobs.Depth })}
	argArena   = &arg{word: "arena", kind: kindSize, attr: abi.AttrNodeArena, doc: "most payload memory of a remote, or of one client of an export (default 64M)", put: putArena}
	argKeep    = &arg{word: "keepalive", kind: kindTime, attr: abi.AttrNodeKeepalive, min: 10, max: 3600_000, doc: "a sign of life so often; three missed break the link (default 1s)", put: putTime(func(r *request) **uint32 { return &r.node.Knobs.Keepalive })}
	argTimeout = &arg{word: "request-timeout", kind: kindTime, zero: "off", attr: abi.AttrNodeRequestTimeout, min: 1, max: math.MaxUint32, doc: "a request breaks the link if it is unanswered so long after it was sent (default off)", put: putTime(func(r *request) **uint32 { return &r.node.Knobs.RequestTimeout })}
	argFail    = &arg{word: "fail-after", kind: kindTime, zero: "never", attr: abi.AttrNodeFailAfter, min: 1, max: math.MaxUint32, doc: "how long requests wait for a peer that is gone, or comes back and answers nothing, before the device fails: for good, until the node is removed (default never)", put: putTime(func(r *request) **uint32 { return &r.node.Knobs.FailAfter })}
	argLogAge  = &arg{word: "log-age", kind: kindTime, attr: abi.AttrNodeLogAge, min: 10, max: math.MaxUint32, doc: "acknowledged writes that nobody flushes are flushed when they are so old (default 5s)", put: putTime(func(r *request) **uint32 { return &r.node.Knobs.LogAge })}
	argWorkers = &arg{word: "workers", kind: kindNumber, attr: abi.AttrNodeWorkers, min: 1, max: 1024, doc: "most workers of one client", put: putNumber(func(r *request) **uint32 { return &r.node.Knobs.Workers })}
	argHash    = &arg{word: "hash", kind: kindAlg, attr: abi.AttrNodeHash, doc: "digest of header and data of every frame (default crc32c); both ends must agree", put: putText(func(r *request) *string { return &r.node.Hash })}
)

// like is a with another sentence in help.
func like(a *arg, doc string) *arg {
	b := *a
	b.doc = doc
	return &b
}

// attrs are the attributes that the arguments of v become.
func (v *verb) attrs() (all []uint16) {
	for _, a := range v.args {
		if a.attr != 0 && !slices.Contains(all, a.attr) {
			all = append(all, a.attr)
		}
	}
	return all
}

func exportObject() *object {
	return &object{name: "export", doc: "nodes that offer local storage", verbs: []*verb{
		{name: "add", doc: "Offer a file or block device.", run: runAddExport,
			more: "The storage is opened and the addresses are listened on at once, so that mistakes show here. " +
				"Nobody is served before the export is started, and nobody is allowed before a rule of security says so. " +
				"Exports may share an address: a client names the one that it wants.",
			args: []*arg{
				argName,
				{word: "device", kind: kindPath, need: true, attr: abi.AttrNodeDevice, max: 4095, doc: "the file or block device", put: putPath(func(r *request) *string { return &r.node.Device })},
				{word: "listen", kind: kindAddrs, need: true, attr: abi.AttrNodeAddress, doc: "where clients call", put: putAddrs},
				argSize,
				{word: "shared", attr: abi.AttrNodeFlags, doc: "several read-write clients; each write is durable before its answer", put: putFlag(abi.NodeFlagShared)},
				{word: "writethrough", attr: abi.AttrNodeFlags, doc: "each write is durable before its answer", put: putFlag(abi.NodeFlagWritethrough)},
				like(argRO, "no client may write"),
				{word: "direct", group: "cache", attr: abi.AttrNodeFlags, doc: "past the page cache (the default for block devices)", put: putFlag(abi.NodeFlagDirect)},
				{word: "buffered", group: "cache", attr: abi.AttrNodeFlags, doc: "through the page cache (the default for files)", put: putFlag(abi.NodeFlagBuffered)},
				{word: "require-crypto", attr: abi.AttrNodeFlags, doc: "serve nobody until it has a key, and never in clear", put: putFlag(abi.NodeFlagRequireCrypto)},
				argPages, argDepth, argArena, argKeep, argWorkers, argHash,
				like(argStart, "start at once; refused while no rule allows anybody, as with every new export"),
			},
			example: []string{"export add vol0 device /srv/vol0.img listen tcp:0.0.0.0:9876"}},
		{name: "set", doc: "Change an export while it lives.", run: runSet, some: true,
			more: "Clients that are served keep what was agreed with them where it cannot change under way. A size changes in a command of its own.",
			args: []*arg{
				argName,
				{word: "read-only", attr: abi.AttrNodeFlags, doc: "whether no client may write", choice: []*arg{
					{word: "on", put: putSwitch(abi.NodeFlagReadOnly, abi.NodeFlagReadOnly)},
					{word: "off", put: putSwitch(abi.NodeFlagReadOnly, 0)},
				}},
				like(argResize, "offer so many bytes from now on, all of the storage with all; its file may have been made larger before. Not less than a client has been promised"),
				argKeep, argWorkers,
			},
			example: []string{"export set vol0 read-only on", "export set vol0 size all"}},
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show exports.", run: runShow,
			args: []*arg{argSome}},
	}}
}

func remoteObject() *object {
	return &object{name: "remote", doc: "nodes whose storage is elsewhere", verbs: []*verb{
		{name: "add", doc: "Attach an export of a peer.", run: runAddRemote,
			more: "Nobody is called before the remote is started. Then it calls until the peer answers, and calls again whenever the link breaks; " +
				"requests wait meanwhile. Of several addresses each must lead to the same storage; the next is tried when one does not answer.",
			args: []*arg{
				argName,
				{word: "peer", kind: kindAddrs, need: true, attr: abi.AttrNodeAddress, doc: "whom to call", put: putAddrs},
				{word: "export", kind: kindName, attr: abi.AttrNodeExport, doc: "the export's name at the peer; the remote's own if not given", put: putExport},
				{word: "attach", attr: abi.AttrNodeAttach, doc: "how it is offered on this host (default nbd): as the kernel's block device /dev/nbdN, which /dev/dst/NAME points to; to NBD clients at a Unix socket; or not at all", choice: []*arg{
					{word: "nbd", put: putAttach(abi.AttachNbd)},
					{word: "socket", kind: kindSocket, attr: abi.AttrNodeSocket, max: 107, put: putAttach(abi.AttachSocket)},
					{word: "none", put: putAttach(abi.AttachNone)},
				}},
				{word: "partscan", attr: abi.AttrNodeFlags, doc: "whether the kernel makes devices of the partitions that it finds (default on)", choice: []*arg{
					{word: "on", put: putSwitchFlag(abi.NodeFlagNoPartscan, false)},
					{word: "off", put: putSwitchFlag(abi.NodeFlagNoPartscan, true)},
				}},
				like(argRO, "ask the peer for read access only"),
				argSize, argPages, argDepth, argArena, argKeep, argTimeout, argFail, argLogAge, argHash, argStart,
			},
			example: []string{"remote add vol0 peer tcp:10.0.0.1:9876 start",
				"remote add disk0 peer tcp:10.0.0.1:9876 export vol0 attach socket /run/dst/disk0.sock start"}},
		{name: "set", doc: "Change a remote while it lives.", run: runSet, some: true,
			more: "To make a device larger, make its export larger: the device follows, unless a size was given to the remote. To make it smaller, first shrink " +
				"what is on it, then the remote, then the export.",
			args:    []*arg{argName, like(argResize, "the device has at most so many bytes from now on, as many as the peer offers with all"), argKeep, argTimeout, argFail, argLogAge},
			example: []string{"remote set disk0 fail-after 10m", "remote set disk0 size 10G"}},
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show remotes.", run: runShow,
			args: []*arg{argSome}},
	}}
}

func securityObject() *object {
	perm := &arg{attr: abi.AttrNodeRule, need: true, doc: "read only, read and write, or nothing", choice: []*arg{
		{word: "ro", put: putPerm(abi.PermRead)},
		{word: "rw", put: putPerm(abi.PermRW)},
		{word: "deny", put: putPerm(0)},
	}}
	old := *perm
	old.need, old.doc = false, "its permission, as it was added"
	who := &arg{kind: kindWho, need: true, attr: abi.AttrNodeRule, doc: "whom the rule names", put: putWho}
	key := &arg{word: "key", kind: kindKeyID, attr: abi.AttrNodeRule, doc: "only with the key of this id", put: putKeyID(func(r *request) *abi.KeyID { return &r.rule.Key })}
	return &object{name: "security", doc: "who may do what on an export", verbs: []*verb{
		{name: "add", doc: "Allow or deny somebody something, or change what was allowed.", run: runAddRule,
			more: "Without a rule nobody is allowed anything. The rule that names a client most closely decides. " +
				"Rules count at once, for clients that are served already too. " +
				"A rule with a key is for those of WHO that have proved it, and goes before the same rule without.",
			args:    []*arg{argName, who, perm, key},
			example: []string{"security add vol0 10.0.0.0/8 rw", "security add vol0 unix:1000 ro", "security add vol0 any rw key 5d0cbb2a1f6a9e34"}},
		{name: "del", also: []string{"delete"}, doc: "Remove a rule.", run: runDelRule,
			args:    []*arg{argName, who, &old, like(key, "as it was added")},
			example: []string{"security del vol0 10.0.0.0/8"}},
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show the rules of an export, or of all.", run: runRules,
			args: []*arg{argSome}},
	}}
}
