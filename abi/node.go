package abi

import (
	"net/netip"
)

// Node is a node of the control ABI: its configuration as ADD and SET carry
// it, and, in answers of GET, its state. In requests a zero number, an empty
// string and a nil pointer mean "not given": the default applies (ADD) or the
// value stays (SET).
type Node struct {
	Name    string
	Kind    Kind
	Device  string // export: path of the file or block device
	Size    uint64 // bytes; request: offer at most so many; SET: 0 = not given, SizeAll = all there is
	Addrs   []Addr // export: listen; remote: peers
	Export  string // remote: name at the peer
	Attach  Attach
	Socket  string // remote: path for AttachSocket
	Flags   NodeFlag
	Mask    NodeFlag // SET: which Flags are given
	Hash    string
	Knobs   Knobs
	Status  *Status  // answers of GET only
	Default []uint16 // answers of GET: Attr numbers of the values that are defaults
}

// SizeAll, as the Size of a SET, takes the limit away: all that there is.
const SizeAll = ^uint64(0)

// Knobs are the tunables of a node (DESIGN 5). Times are milliseconds, memory
// is bytes; nil is "not given".
type Knobs struct {
	MaxPages       *uint32
	Depth          *uint32
	Arena          *uint64
	Keepalive      *uint32
	RequestTimeout *uint32 // 0 = off
	FailAfter      *uint32 // 0 = never
	LogAge         *uint32
	Workers        *uint32
	CryptoThreads  *uint32 // 0 = one less than there are processors; CRYPTO sets it
}

// Status is what GET tells of a node besides its configuration.
type Status struct {
	State       State
	StateAge    uint64 // ms
	Reason      string
	Epoch       uint64
	ClientID    ID
	Verifier    Verifier
	StoreID     ID
	Perm        Perm
	BlockMin    uint32
	MaxSize     uint32
	InFlight    uint32
	Oldest      uint64 // ms
	Wait        Wait   // what the oldest request waits for
	Unflushed   uint64
	LogBytes    uint64 // remote: payload in the replay log
	Peer        Addr
	Device      string   // remote: the kernel's block device, /dev/nbdN
	Link        string   // remote: the link to it that bears the node's name
	Users       []string // remote: who has that device
	Sessions    []Session
	Rules       []Rule
	Keys        []Key
	Warnings    []string
	Transitions []Transition
}

// Session is one client of an export.
type Session struct {
	Peer     Addr
	ClientID ID
	Epoch    uint64
	Perm     Perm
	Age      uint64 // ms
	InFlight uint32
	Workers  uint32
	Draining bool
	Key      KeyID // that it proved to have; zero: none was asked for
}

// Transition is one change of a node's state.
type Transition struct {
	State  State
	Age    uint64 // ms ago
	Reason string
}

// Rule says what the peers that it names may do on an export.
type Rule struct {
	Kind   RuleKind
	Prefix netip.Prefix // RuleKindInet, RuleKindInet6
	ID     *uint32      // RuleKindUnix: uid, RuleKindVsock: CID; nil = all of them
	Perm   Perm
	Key    KeyID // only clients that have it; zero = with and without any
}

// Key is what may be shown of a key.
type Key struct {
	ID           KeyID
	Cipher, Hash string // Cipher "" = none, Hash "" = the cipher's own
	Sessions     uint32 // export: clients that are served with it
}

// Counters are what a node counted since it was added.
type Counters struct {
	Reads, Writes, Flushes, Discards, Zeroes  uint64
	ReadBytes, WrittenBytes                   uint64
	Errors, Connects, Breaks, Resent, Refused uint64
	DigestErrors, ProtocolErrors, MemoryWaits uint64
	Replayed, AuthErrors                      uint64
}

// Crypto is the CRYPTO request.
type Crypto struct {
	Name                       string
	Cipher, Hash               string
	CipherKeyFile, HashKeyFile string
	CipherKey, HashKey         []byte
	Threads                    *uint32
	Op                         CryptoOp // 0 = CryptoOpSet
	Flags                      CryptoFlag
	KeyID                      KeyID // CryptoOpDel
}

// Sys is what SYS tells of the daemon.
type Sys struct {
	Version                  string
	PID                      uint32
	Uptime                   uint64 // ms
	RunDir, StateDir, DevDir string
	Nodes, Sessions          uint32
	Subscribers              uint32
	Budget, BudgetUsed, Heap uint64 // bytes
	Protections              []Protection
}

// Protection is a protective setting of the daemon, and why it is not active.
type Protection struct {
	Name   string
	Active bool
	Reason string
}

// Event is something that happened to a node. Seq and Lost are the
// subscriber's own.
type Event struct {
	Seq, Lost uint64
	Kind      EventKind
	Time      uint64 // ms since 1970
	Name      string
	State     State
	Reason    string
	Peer      Addr
}
