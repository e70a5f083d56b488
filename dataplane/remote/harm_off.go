//go:build !sim

package remote

import "dst/dataplane/trans"

// The hooks by which the simulator breaks a core on purpose, to show that it
// would notice: nothing in what ships.

type harms struct{}

func (harms) rush(*Core, *trans.Trans) bool  { return false }
func (harms) forget(*trans.Trans, bool) bool { return false }
func (harms) broken(*Core)                   {}
func (harms) durable(d bool) bool            { return d }
