package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
	"dst/dataplane/trans"
)

const pageSize = 4096

// arenaGuaranteed is payload memory that a node has from its start, in bytes.
const arenaGuaranteed = 4 << 20

const defaultHash = "crc32c"

// knobs are a node's tunables with the defaults filled in.
type knobs struct {
	maxPages, depth, workers             uint32
	arena                                uint64
	keepalive, requestTimeout, failAfter time.Duration
}

// defaults are the knobs of a node that was given none (DESIGN, 5).
var defaults = knobs{maxPages: 256, depth: 128, workers: 16, arena: 64 << 20, keepalive: time.Second}

// knobsOf is n's knobs with the defaults filled in.
func knobsOf(n *abi.Node) knobs {
	k, g := defaults, &n.Knobs
	for _, f := range []struct {
		to   *uint32
		from *uint32
	}{{&k.maxPages, g.MaxPages}, {&k.depth, g.Depth}, {&k.workers, g.Workers}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	for _, f := range []struct {
		to   *time.Duration
		from *uint32
	}{{&k.keepalive, g.Keepalive}, {&k.requestTimeout, g.RequestTimeout}, {&k.failAfter, g.FailAfter}} {
		if f.from != nil {
			*f.to = time.Duration(*f.from) * time.Millisecond
		}
	}
	if g.Arena != nil {
		k.arena = *g.Arena
	}
	return k
}

// checkKnobs refuses values outside of the ABI's limits: the generic-netlink
// door has checked them already, other doors and saved files have not.
func checkKnobs(k *abi.Knobs) error {
	for _, c := range []struct {
		name     string
		attr     uint16
		value    *uint32
		low, top uint32
	}{
		{"max-pages", abi.AttrNodeMaxPages, k.MaxPages, 1, abi.MaxRequest / pageSize},
		{"depth", abi.AttrNodeDepth, k.Depth, 1, trans.DepthMax},
		{"keepalive", abi.AttrNodeKeepalive, k.Keepalive, 10, 3600_000},
		{"workers", abi.AttrNodeWorkers, k.Workers, 1, 1024},
	} {
		if c.value != nil && (*c.value < c.low || *c.value > c.top) {
			return abi.Blame(c.attr, fmt.Errorf("%s %d is not from %d to %d: %w", c.name, *c.value, c.low, c.top, unix.ERANGE))
		}
	}
	if k.Arena != nil && (*k.Arena < arenaGuaranteed || *k.Arena > 1<<40) {
		return abi.Blame(abi.AttrNodeArena, fmt.Errorf("arena %d is not from %d bytes to 1 TiB: %w", *k.Arena, arenaGuaranteed, unix.ERANGE))
	}
	if k.LogAge != nil {
		return abi.Blame(abi.AttrNodeLogAge, fmt.Errorf("log-age belongs to the replay log, which this version does not have: %w", unix.EOPNOTSUPP))
	}
	return nil
}

// merge puts the given knobs of from over those of to.
func merge(to, from *abi.Knobs) {
	for _, f := range []struct{ to, from **uint32 }{
		{&to.Keepalive, &from.Keepalive}, {&to.RequestTimeout, &from.RequestTimeout},
		{&to.FailAfter, &from.FailAfter}, {&to.Workers, &from.Workers},
	} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
}

// fillKnobs writes the defaults into what n was not given and lists them.
func fillKnobs(n *abi.Node) {
	k, g := knobsOf(n), &n.Knobs
	fill := func(attr uint16, to **uint32, value uint32) {
		if *to == nil {
			*to = &value
			n.Default = append(n.Default, attr)
		}
	}
	fill(abi.AttrNodeMaxPages, &g.MaxPages, k.maxPages)
	fill(abi.AttrNodeDepth, &g.Depth, k.depth)
	fill(abi.AttrNodeKeepalive, &g.Keepalive, milliseconds(k.keepalive))
	if n.Kind == abi.KindRemote {
		fill(abi.AttrNodeRequestTimeout, &g.RequestTimeout, milliseconds(k.requestTimeout))
		fill(abi.AttrNodeFailAfter, &g.FailAfter, milliseconds(k.failAfter))
	} else {
		fill(abi.AttrNodeWorkers, &g.Workers, k.workers)
	}
	if g.Arena == nil {
		g.Arena = &k.arena
		n.Default = append(n.Default, abi.AttrNodeArena)
	}
	if n.Hash == "" {
		n.Hash = defaultHash
		n.Default = append(n.Default, abi.AttrNodeHash)
	}
}

// parseCrypto takes a CRYPTO request as far as this version goes: digests.
func parseCrypto(c *abi.Crypto, started bool) (crypt.Digest, error) {
	switch {
	case started:
		return 0, fmt.Errorf("node %q is started: set its digest before start: %w", c.Name, unix.EEXIST)
	case c.Cipher != "" || c.CipherKeyFile != "" || len(c.CipherKey) > 0 || c.HashKeyFile != "" || len(c.HashKey) > 0 || c.Threads != nil:
		return 0, fmt.Errorf("this version checks data (hash crc32c) and does not encrypt or authenticate it: use it on trusted networks only: %w", unix.EOPNOTSUPP)
	case c.Hash == "":
		return 0, fmt.Errorf("crypto needs a hash: crc32c or none: %w", unix.EINVAL)
	}
	return crypt.ParseDigest(c.Hash)
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
