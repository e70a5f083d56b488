// Package remote is a node whose storage is elsewhere: a link that connects,
// greets, breaks and connects again for ever, and the requests that wait for
// it.
//
// A WRITE's road, all on the submitter's goroutine until the socket:
//
//  1. seal     id, header and digest                     (no lock)
//  2. submit   file it in the table, queue its frame     (node.mu)
//  3. kick     header and data leave in one writev       (no lock)
//
// and back, on the link's goroutine:
//
//  4. expect   the answer's id -> transaction            (node.mu)
//  5. receive  READ: payload into its place, check       (no lock)
//  6. done     out of the table: it is ours              (node.mu)
//  7. drop     the front gets its answer
//
// No step hands the transaction to a channel. The link's goroutine is the only
// one that changes the link's state and the only one that takes transactions
// out of the table.
package remote

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

// Config is what a remote node is made from. Durations of 0 mean off or never,
// except Keepalive, which must be set.
type Config struct {
	Name           string
	Export         string // name at the peer
	Peers          []abi.Addr
	ReadOnly       bool
	Size           uint64 // bytes at most, 0 = what the export offers
	MaxSize        uint32 // bytes of the largest request
	Depth          uint32
	Keepalive      time.Duration
	RequestTimeout time.Duration
	FailAfter      time.Duration
	LogAge         time.Duration // un-flushed writes are flushed when they are so old
	Digest         crypt.Digest  // of a link in clear
	Key            *crypt.Key    // to be proved to the export; nil: all is in clear
	Page           []byte        // SavedSize bytes that outlive the daemon
	Memory         *trans.Memory // payload and log, which outlive it too; made for Depth + OwnDepth
	ClientID       abi.ID        // names the attachment if Page is new
	Resent         bool          // the front sends again what it had sent to an earlier daemon, as the kernel does
}

// OwnDepth is how many elements a node has for itself: to replay, and to flush.
const OwnDepth = trans.ReplayDepth + 1

// Env is what a node uses of its daemon.
type Env struct {
	Log    zerolog.Logger
	Notify func(abi.Event)
	// Up is called once, by the link's goroutine, when the device's shape is
	// known: from an earlier daemon, or from the first WELCOME. An error fails
	// the node with that reason, as long as this daemon lives.
	Up func(Info) error
	// Dial connects to an address; conn.Dial in the daemon.
	Dial func(ctx context.Context, a abi.Addr) (conn.Stream, error)
}

// Info is the shape of a device. From the first WELCOME on only the size
// changes: it grows with the export, and SetSize sets it.
type Info struct {
	Size      uint64 // bytes, a multiple of BlockMin
	BlockMin  uint32 // bytes: alignment of every request
	BlockPref uint32
	MaxSize   uint32 // bytes of the largest READ or WRITE
	Features  uint64 // abi.Feature…
	ReadOnly  bool
}

// Node is a remote node. All methods may be called from any goroutine.
type Node struct {
	cfg     Config
	env     Env
	reserve *trans.Reserve
	pool    *crypt.Pool

	mu     sync.Mutex // guards what follows; may be held while Out.Push is called
	core   *Core
	key    *crypt.Key   // of the next link
	link   *link        // from the dialled socket to its end
	out    *conn.Out    // of the present link when it serves, nil without one
	digest crypt.Digest // out's
	peer   abi.Addr
	knobs  knobs

	cancel context.CancelCauseFunc // nil until started
	done   chan struct{}           // closed when run has ended

	seal  atomic.Uint32 // digest of the next link's frames
	quiet atomic.Bool   // the peer of the present link has missed a keepalive
}

// knobs are what may change while a node lives.
type knobs struct {
	keepalive, requestTimeout, failAfter, logAge time.Duration
}

// New makes a node that contacts nobody until Start. Errors: EUCLEAN for a
// damaged page.
func New(c Config, env Env) (*Node, error) {
	n := &Node{cfg: c, env: env, done: make(chan struct{}), pool: crypt.NewPool(0),
		knobs: knobs{c.Keepalive, c.RequestTimeout, c.FailAfter, c.LogAge}}
	n.reserve = trans.NewReserve(int(c.Depth), OwnDepth, c.Memory.Arena)
	n.reserve.SetPressed(n.relieve)
	core, err := NewCore(&n.cfg, n.reserve, n.push, time.Now())
	if err != nil {
		return nil, err
	}
	n.core = core
	n.use(c.Key)
	return n, nil
}

// Start lets the node connect, and go on connecting until Close or Stop. Starting
// twice is no error.
func (n *Node) Start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cancel != nil || n.core.state == abi.StateClosed {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	n.cancel = cancel
	go n.run(ctx)
}

// Close ends the node for good: the export is told, and gives its place to whoever
// waits for it. Requests in flight get ESHUTDOWN, and later ones too. It returns
// when none of its goroutines is left.
func (n *Node) Close() { n.leave(nil) }

// Stop is Close for a daemon that ends while its attachment lives: the export is
// not told, so that the place is still there for the next daemon of this host, as
// after a crash.
func (n *Node) Stop() { n.leave(errStop) }

// errStop is why a node that was stopped ends.
var errStop = errors.New("the daemon stops")

// ending is what is told of both.
const ending = "the node ends: it is removed, or the daemon stops"

// leave ends the node because of cause, nil: for good.
func (n *Node) leave(cause error) {
	var cancel context.CancelCauseFunc
	n.end(func(c *Core, now time.Time) []*trans.Trans {
		if cancel = n.cancel; cancel != nil || c.state == abi.StateClosed {
			return nil
		}
		return c.End(abi.StateClosed, unix.ESHUTDOWN, now, ending)
	})
	if cancel != nil {
		cancel(cause)
		<-n.done
	}
	n.pool.Close()
}

// Steal makes the node ask for the read-write place although another client has
// it and lives, until it has got it. Who has got it already keeps it.
func (n *Node) Steal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.core.hello.Steal = n.core.gate == gateClosed
}

// Fail ends the service of a started node for good, as if the export had broken
// its promise: every request gets EIO until the node is removed. It does not
// wait; the first reason given counts.
func (n *Node) Fail(why error) {
	n.mu.Lock()
	cancel := n.cancel
	n.mu.Unlock()
	if cancel != nil {
		cancel(errFatal{error: why})
	}
}

// Reserve is where a front takes its transactions from.
func (n *Node) Reserve() *trans.Reserve { return n.reserve }

// Info is the device's shape; ok is false before the first WELCOME of the
// attachment, which an earlier daemon may have seen.
func (n *Node) Info() (i Info, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.core.info == nil {
		return Info{}, false
	}
	return *n.core.info, true
}

// Fit is the size in bytes that the device would have with another limit (0 =
// none); 0 as long as its shape is not known.
func (n *Node) Fit(limit uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.Fit(limit)
}

// SetSize sets the limit of the size and thereby the size, see Fit. Who makes a
// device smaller first sees to it that nobody uses what ends.
func (n *Node) SetSize(limit uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.core.SetSize(limit)
}

// Submit takes t, whose Front.Complete will be called exactly once, perhaps
// before Submit returns. t must be inside the device and a multiple of its
// block size: the front has checked that. Nothing leaves before Kick.
func (n *Node) Submit(t *trans.Trans) {
	t.Seal(crypt.Digest(n.seal.Load()))
	n.mu.Lock()
	ok := n.core.Submit(t, time.Now())
	n.mu.Unlock()
	if !ok {
		front := t.Front
		front.Complete(t)
		front.Flush() // no link will ever do it
	}
}

// Kick sends what was submitted since the last one. It never blocks.
func (n *Node) Kick() {
	n.mu.Lock()
	out := n.out
	n.mu.Unlock()
	if out != nil {
		out.Flush()
	}
}

// relieve is called when somebody is about to wait for memory that the log may
// hold.
func (n *Node) relieve() {
	n.mu.Lock()
	n.core.Relieve(time.Now())
	n.mu.Unlock()
	n.Kick()
}

// push queues t's frame on the present link; the core calls it, under the
// lock. On a link that is closing t stays filed for the next one. A t that was
// sealed for a link of another digest, before SetKey, is sealed anew: nobody else
// has its frame, as all of the old link's have come back.
func (n *Node) push(t *trans.Trans) {
	if n.out != nil && len(t.Request.Head) != abi.HeaderSize+n.digest.Size() {
		t.ID -= 1 << 16 // it keeps its id, by which it is filed
		t.Seal(n.digest)
	}
	if n.out == nil || !n.out.Push(&t.Request) {
		t.Drop() // the sender's hold only: the table has its own
	}
}
