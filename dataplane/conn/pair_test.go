package conn_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
	"dst/dataplane/export"
	"dst/dataplane/mempool"
	"dst/dataplane/remote"
	"dst/dataplane/trans"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestPair is an export and a remote, joined by each medium in turn, with a rule
// for nobody but the caller; the link is cut in the midst of the traffic.
func TestPair(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		p := newPair(t, []abi.Addr{m.listen}, only(m.listen))
		p.start(t, p.export.Addrs())
		p.use(t, p.cut)
		if c := p.remote.Counters(); c.Connects < 2 || c.ProtocolErrors+c.DigestErrors != 0 {
			t.Errorf("%d connections, %d errors of digests, %d of the protocol", c.Connects, c.DigestErrors, c.ProtocolErrors)
		}
	})
}

// TestPairMixed: of the addresses of one store, of different media, the next is
// tried when one does not answer.
func TestPairMixed(t *testing.T) {
	path := abi.UnixAddr(filepath.Join(t.TempDir(), "s"))
	p := newPair(t, []abi.Addr{path, tcp("127.0.0.1:0"), mptcp("[::1]:0")}, abi.Rule{Kind: abi.RuleKindAny})
	addrs := p.export.Addrs()
	p.start(t, append([]abi.Addr{abi.UnixAddr("/nowhere/at/all")}, addrs...))
	for i, a := range addrs {
		if at := p.remote.Status().Peer; at != a {
			t.Errorf("connected to %s, not to %s", at, a)
		}
		p.use(t, func() {
			if i+1 < len(addrs) { // the last one may come back
				p.refuse(a)
			}
			p.cut()
		})
	}
}

// only is the rule that names who calls at a from this process.
func only(a abi.Addr) abi.Rule {
	id := uint32(os.Getuid())
	ap, inet := a.AddrPort()
	switch {
	case !inet && a.Family() == unix.AF_UNIX:
		return abi.Rule{Kind: abi.RuleKindUnix, ID: &id}
	case !inet:
		return abi.Rule{Kind: abi.RuleKindVsock, ID: new(uint32(unix.VMADDR_CID_LOCAL))}
	case ap.Addr().Is4():
		return abi.Rule{Kind: abi.RuleKindInet, Prefix: netip.PrefixFrom(ap.Addr(), 32)}
	}
	return abi.Rule{Kind: abi.RuleKindInet6, Prefix: netip.PrefixFrom(ap.Addr(), 128)}
}

// pair is an export of a file and a remote that uses it.
type pair struct {
	export *export.Node
	remote *remote.Node
	budget *mempool.Budget
	store  []byte // what the file must hold

	mu      sync.Mutex
	stream  conn.Stream // the remote's latest
	refused map[abi.Addr]bool
}

const pairSize = 16 << 20

func newPair(t *testing.T, listen []abi.Addr, rule abi.Rule) *pair {
	t.Helper()
	p := &pair{budget: mempool.NewBudget(256 << 20), store: make([]byte, pairSize), refused: map[abi.Addr]bool{}}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, p.store, 0o600); err != nil {
		t.Fatal(err)
	}
	ports := export.NewPorts(zerolog.Nop())
	t.Cleanup(ports.Close)
	var err error
	p.export, err = export.New(export.Config{Name: "vol0", Device: file, Listen: listen, Flags: abi.NodeFlagBuffered,
		Digest: crypt.DigestCRC32C, StateDir: t.TempDir()},
		export.Env{Budget: p.budget, Ports: ports, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.export.Close(true) })
	rule.Perm = abi.PermRW
	if err := errors.Join(p.export.AddRule(rule), p.export.Start()); err != nil {
		t.Fatal(err)
	}
	return p
}

// start attaches the remote and waits until it is there.
func (p *pair) start(t *testing.T, peers []abi.Addr) {
	t.Helper()
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "log")
	defer func() { _ = file.Close() }()
	const depth = 32
	memory, err := trans.OpenMemory(file, p.budget, trans.Sizes{Guaranteed: 4 << 20, Limit: 16 << 20, Largest: 1 << 20, Depth: depth + remote.OwnDepth}, abi.ID{7})
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan remote.Info, 1)
	p.remote, err = remote.New(remote.Config{Name: "vol0", Export: "vol0", Peers: peers, MaxSize: 1 << 20, Depth: depth,
		Keepalive: 10 * time.Second, Digest: crypt.DigestCRC32C, Page: make([]byte, remote.SavedSize), Memory: memory, ClientID: abi.ID{7}},
		remote.Env{Log: zerolog.Nop(), Notify: func(abi.Event) {}, Dial: p.dial,
			Up: func(i remote.Info) error { up <- i; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	p.remote.Start()
	t.Cleanup(func() {
		p.remote.Close()
		if err := memory.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case info := <-up:
		if info.Size != pairSize {
			t.Fatalf("the device has %d bytes", info.Size)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("no connection: %s", p.remote.Status().Reason)
	}
}

func (p *pair) dial(ctx context.Context, a abi.Addr) (conn.Stream, error) {
	p.mu.Lock()
	refused := p.refused[a]
	p.mu.Unlock()
	if refused {
		return nil, unix.ECONNREFUSED
	}
	s, err := conn.Dial(ctx, a, 10*time.Second)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stream = s
	return s, nil
}

// refuse lets nobody connect to a from now on.
func (p *pair) refuse(a abi.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused[a] = true
}

// cut breaks the present link.
func (p *pair) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.stream.Close()
}

// use writes and reads from many goroutines, each in a part of its own, and
// compares; midway calls mid.
func (p *pair) use(t *testing.T, mid func()) {
	t.Helper()
	const users, requests = 8, 24
	var wg, half sync.WaitGroup
	half.Add(users)
	for u := range users {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(u), 1))
			for i := range requests {
				if i == requests/2 {
					half.Done()
				}
				part := p.store[u*pairSize/users:][:pairSize/users]
				off := random.IntN(len(part)/512) * 512
				part = part[off:]
				part = part[:min(len(part), 512*(1+random.IntN(1+random.IntN(1024))))]
				at := uint64(u*pairSize/users + off)
				if random.IntN(2) == 0 {
					for j := range part {
						part[j] = byte(random.Uint32())
					}
					p.request(t, trans.Write, at, part)
				} else {
					p.request(t, trans.Read, at, part)
				}
			}
		})
	}
	half.Wait()
	mid()
	wg.Wait()
	p.request(t, trans.Flush, 0, nil)
	for at := 0; at < pairSize; at += 1 << 20 {
		p.request(t, trans.Read, uint64(at), p.store[at:at+1<<20])
	}
}

// asked is the front of one request.
type asked chan struct{}

func (a asked) Complete(*trans.Trans) { a <- struct{}{} }
func (asked) Flush()                  {}

// request is one request from its submission to its outcome; what is read must be
// data.
func (p *pair) request(t *testing.T, op trans.Op, at uint64, data []byte) {
	x, _ := p.remote.Reserve().Get(op, uint32(len(data)), nil)
	defer p.remote.Reserve().Put(x)
	done := make(asked, 1)
	x.Offset, x.Front = at, done
	if op == trans.Write {
		copy(x.Data, data)
	}
	p.remote.Submit(x)
	p.remote.Kick()
	<-done
	if x.Err != 0 {
		t.Errorf("%v of %d at %d: %v", op, len(data), at, x.Err)
	} else if op == trans.Read && !bytes.Equal(x.Data, data) {
		t.Errorf("%v of %d at %d: other bytes than were written", op, len(data), at)
	}
}
