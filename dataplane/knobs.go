package dataplane

import (
	"time"

	"dst/abi"
)

const pageSize = 4096

// arenaGuaranteed is payload memory that a node has from its start, in bytes.
const arenaGuaranteed = 4 << 20

const defaultHash = "crc32c"

// knobs are a node's tunables with the defaults filled in.
type knobs struct {
	maxPages, depth, workers, threads    uint32
	arena                                uint64
	keepalive, requestTimeout, failAfter time.Duration
	logAge                               time.Duration
}

// defaults are the knobs of a node that was given none (DESIGN, 5).
var defaults = knobs{maxPages: 256, depth: 128, workers: 16, arena: 64 << 20, keepalive: time.Second, logAge: 5 * time.Second}

// knobsOf is n's knobs with the defaults filled in.
func knobsOf(n *abi.Node) knobs {
	k, g := defaults, &n.Knobs
	for _, f := range []struct {
		to   *uint32
		from *uint32
	}{{&k.maxPages, g.MaxPages}, {&k.depth, g.Depth}, {&k.workers, g.Workers}, {&k.threads, g.CryptoThreads}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	for _, f := range []struct {
		to   *time.Duration
		from *uint32
	}{{&k.keepalive, g.Keepalive}, {&k.requestTimeout, g.RequestTimeout}, {&k.failAfter, g.FailAfter}, {&k.logAge, g.LogAge}} {
		if f.from != nil {
			*f.to = time.Duration(*f.from) * time.Millisecond
		}
	}
	if g.Arena != nil {
		k.arena = *g.Arena
	}
	return k
}

// merge puts the given knobs of from over those of to.
func merge(to, from *abi.Knobs) {
	for _, f := range []struct{ to, from **uint32 }{
		{&to.Keepalive, &from.Keepalive}, {&to.RequestTimeout, &from.RequestTimeout},
		{&to.FailAfter, &from.FailAfter}, {&to.Workers, &from.Workers}, {&to.LogAge, &from.LogAge},
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
		fill(abi.AttrNodeLogAge, &g.LogAge, milliseconds(k.logAge))
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

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
