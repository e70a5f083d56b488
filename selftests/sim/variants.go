package main

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// variants are the harms in the order of their bits, with the number of random
// seeds in which each has to be caught: about ten times what it takes on
// average, so that a miss says that the simulator has become blind to it. The
// average is that of ten searches far apart (five for no-ghosts, which takes
// 270,000, the next rarest 28,000); a change of what is drawn changes it.
var variants = [...]struct {
	name   string
	budget uint64
}{
	{"no-fence", 1_000}, {"no-log", 400}, {"no-cut", 2_000}, {"ignore-sync", 400}, {"resend-live", 200}, {"no-gate", 3_000},
	{"trim-at-reply", 12_000}, {"sequence", 3_000}, {"one-verifier", 20_000}, {"one-phase", 300_000}, {"keep-verifier", 200},
	{"late-commit", 2_000}, {"old-epoch", 200}, {"no-discard", 2_000}, {"read-on", 1_500}, {"any-store", 1_500}, {"any-tenure", 1_500},
	{"no-ghosts", 3_000_000}, {"no-orphan", 50_000}, {"join-running", 12_000},
}

func (h harm) String() string {
	for i := range variants {
		if h == 1<<i {
			return variants[i].name
		}
	}
	return fmt.Sprintf("harm(%#x)", uint32(h))
}

// harmOf is the harm of a name; none for no name and for all.
func harmOf(name string) (harm, error) {
	switch {
	case name == "":
		return 0, nil
	case !harmful:
		return 0, fmt.Errorf("the cores can only be broken when built with -tags sim: %w", unix.EOPNOTSUPP)
	case name == "all":
		return 0, nil
	}
	for i := range variants {
		if variants[i].name == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("variant %q is not known, there are %v: %w", name, variants, unix.EINVAL)
}

// table runs each variant until it is caught, with the seeds from first on,
// within its budget. It reports whether all were.
func table(out io.Writer, first uint64) (all bool) {
	all = true
	for i := range variants {
		began, h := time.Now(), harm(1)<<i
		seed, done, bad := search(first, variants[i].budget, h)
		word := "NOT CAUGHT"
		if bad != nil {
			word = fmt.Sprintf("seed %d: %v", seed, bad)
		}
		all = all && bad != nil
		fmt.Fprintf(out, "%-14v %8d of %7d seeds %8v  %s\n", h, done, variants[i].budget, time.Since(began).Round(time.Millisecond), word)
	}
	return all
}
