//go:build !sim

package trans

// The hooks by which the simulator breaks a log on purpose, to show that it
// would notice: nothing in what ships.

type harms struct{}

func (harms) next(*Replay) (p Piece, ok, mine bool) { return p, false, false }

// passed tells whether all pieces of the record seq were given out.
func (r *Replay) passed(seq uint64) bool { return r.next < seq }
