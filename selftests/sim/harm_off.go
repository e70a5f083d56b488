//go:build !sim

package main

import (
	"dst/dataplane/export"
	"dst/dataplane/remote"
	"dst/dataplane/trans"
)

// harmful tells whether the cores can be broken: only when built with the tag
// sim.
const harmful = false

func harmExport(*export.Core, harm)             {}
func harmRemote(*remote.Core, *trans.Log, harm) {}
func harmEpoch([]byte)                          {}
