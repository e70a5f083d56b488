//go:build !sim

package export

// The hooks by which the simulator breaks a core on purpose, to show that it
// would notice: nothing in what ships.

type harms struct{}

func (harms) readOn() bool          { return false }
func (harms) muddle() bool          { return false }
func (harms) hurry(*Core, *Op) bool { return false }
