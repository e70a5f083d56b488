// Package export is an export node: it offers a local file or block device to
// clients. Its Core (core.go) decides, without goroutines, clock or sockets;
// the rest is a thin shell around it: the backing store, the shared listening
// sockets, the handshake, and sessions whose workers carry requests to the
// store and back.
//
// Lock order: Ports, Node, crew; none is held across I/O or while an action of
// the Core is carried out.
package export

import (
	"fmt"
	"math"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/mempool"
)

// Config is an export as configured. Zero means the default for MaxPages,
// Depth, Workers, Arena and Keepalive, all of the store for Size.
type Config struct {
	Name      string
	Device    string     // absolute path of a file or block device
	Listen    []abi.Addr // at least one
	Size      uint64     // bytes to offer
	Flags     abi.NodeFlag
	MaxPages  uint32        // largest request in pages of 4096 bytes
	Depth     uint32        // requests in flight of one session
	Workers   uint32        // most workers of one session
	Arena     uint64        // most payload memory of one session, bytes
	Keepalive time.Duration // three missed end a session
	Digest    crypt.Digest  // of sessions in clear
	StateDir  string        // where ids of stores are kept that cannot keep their own

	Keys          []*crypt.Key // that clients may prove; none: it is served in clear
	Remembered    bool         // an earlier daemon served it: it may be started though its rules deny everybody
	RequireCrypto bool         // nobody is served without a key; NodeFlagRequireCrypto says the same
}

// Env is what an export uses of its daemon.
type Env struct {
	Budget *mempool.Budget
	Ports  *Ports
	Log    zerolog.Logger
	Notify func(abi.Event) // any goroutine calls it; it must not block; may be nil
	// Open opens the store; nil means Open of this package. Tests and simulators
	// put stores of their own behind an export with it.
	Open func(*Config) (*Disk, error)
}

// Defaults and limits of a Config.
const (
	defaultMaxPages  = 256
	defaultDepth     = 128
	defaultWorkers   = 16
	defaultArena     = 64 << 20
	defaultKeepalive = time.Second
	maxDepth         = 4096

	// arenaGuaranteed is the payload memory, in bytes, that a session has from
	// its beginning, if its largest request is not larger.
	arenaGuaranteed = 4 << 20
	// inBuffer is a session's receive buffer: all requests that one system call
	// can bring are parsed from it.
	inBuffer = 256 << 10
	// secureBuffers is what a secure channel needs besides, in bytes: records
	// that have come and that leave (conn.Secure.Ready).
	secureBuffers = 768 << 10
)

// prepare checks c and fills in defaults.
func (c *Config) prepare() error {
	if err := abi.ValidName(c.Name); err != nil {
		return err
	}
	if len(c.Listen) == 0 {
		return fmt.Errorf("export %s has no address to listen on: give one: %w", c.Name, unix.EDESTADDRREQ)
	}
	for _, d := range []struct {
		value    *uint32
		standard uint32
		limit    uint32
		name     string
	}{
		{&c.MaxPages, defaultMaxPages, abi.MaxRequest / mempool.PageSize, "max-pages"},
		{&c.Depth, defaultDepth, maxDepth, "depth"},
		{&c.Workers, defaultWorkers, 1024, "workers"},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
		if *d.value > d.limit {
			return fmt.Errorf("%s %d is more than %d: %w", d.name, *d.value, d.limit, unix.ERANGE)
		}
	}
	if c.Arena == 0 {
		c.Arena = defaultArena
	}
	c.Arena = min(c.Arena, math.MaxInt)
	if c.Keepalive <= 0 {
		c.Keepalive = defaultKeepalive
	}
	c.RequireCrypto = c.RequireCrypto || c.Flags&abi.NodeFlagRequireCrypto != 0
	if c.Flags&abi.NodeFlagDirect != 0 && c.Flags&abi.NodeFlagBuffered != 0 {
		return fmt.Errorf("direct and buffered exclude each other: give one: %w", unix.EINVAL)
	}
	return nil
}
