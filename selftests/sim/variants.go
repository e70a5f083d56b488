package main

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// variants are the harms by name, in the order of their bits.
var variants = [...]string{"no-fence", "no-log", "no-cut", "ignore-sync", "resend-live", "no-gate", "trim-at-reply", "sequence",
	"one-verifier", "one-phase", "keep-verifier", "late-commit", "old-epoch", "no-discard", "read-on", "any-store", "any-tenure",
	"no-ghosts", "no-orphan", "join-running"}

func (h harm) String() string {
	for i, name := range variants {
		if h == 1<<i {
			return name
		}
	}
	return fmt.Sprintf("harm(%#x)", uint32(h))
}

// harmOf is the harm of a name; none for no name and for all.
func harmOf(name string) (harm, error) {
	if name == "" || name == "all" {
		return 0, nil
	}
	for i, v := range variants {
		if v == name {
			if !harmful {
				return 0, fmt.Errorf("the cores can only be broken when built with -tags sim: %w", unix.EOPNOTSUPP)
			}
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("variant %q is not known, these are: %v: %w", name, variants, unix.EINVAL)
}

// table runs each variant until it is caught, with most seeds from first on.
func table(out io.Writer, first, most uint64) {
	for i := range variants {
		began := time.Now()
		h := harm(1) << i
		seed, bad, done := search(first, most, h)
		word := "NOT CAUGHT"
		if bad != nil {
			word = fmt.Sprintf("seed %d: %v", seed, bad)
		}
		fmt.Fprintf(out, "%-14v %8d seeds %8v  %s\n", h, done, time.Since(began).Round(time.Millisecond), word)
	}
}
