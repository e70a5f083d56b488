//go:build sim

package main

import (
	"dst/dataplane/export"
	"dst/dataplane/remote"
	"dst/dataplane/trans"
)

// harmful tells whether the cores can be broken.
const harmful = true

func harmExport(c *export.Core, h harm) {
	c.Harm(export.Harms{NoFence: h.is(noFence), ReadOn: h.is(readOn), NoOrder: h.is(resendLive), Join: h.is(joinRunning)})
}

func harmRemote(c *remote.Core, l *trans.Log, h harm) {
	c.Harm(remote.Harms{NoLog: h.is(noLog), NoCut: h.is(noCut), NoDiscard: h.is(noDiscard), NoGate: h.is(noGate),
		OnePhase: h.is(onePhase), OneVerifier: h.is(oneVerifier), Sequence: h.is(sequence)})
	if h.is(sequence) {
		l.HarmSequence()
	}
}

func harmEpoch(page []byte) { remote.HarmEpoch(page) }
