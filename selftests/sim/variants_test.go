//go:build sim

package main

import (
	"flag"
	"testing"
)

var long = flag.Bool("long", false, "look for the rarest of the variants too")

// TestVariantsByScript: each harmful variant is caught by the script that is
// made for it.
func TestVariantsByScript(t *testing.T) {
	for i := range variants {
		h := harm(1) << i
		t.Run(h.String(), func(t *testing.T) {
			if s := &scripts[i]; s.harm != h {
				t.Errorf("script %d is for %v", i, s.harm)
			} else if err := s.run(h); err == nil {
				t.Errorf("%q does not catch it", s.name)
			} else {
				t.Log(err)
			}
		})
	}
}

// rare is from which budget on a variant is looked for in the long run only.
const rare = 100_000

// TestVariantsBySeeds: random seeds find it too.
func TestVariantsBySeeds(t *testing.T) {
	for i := range variants {
		h, budget := harm(1)<<i, variants[i].budget
		if budget >= rare && !*long {
			continue
		}
		t.Run(h.String(), func(t *testing.T) {
			seed, done, bad := search(1, budget, h)
			if bad == nil {
				t.Fatalf("not caught in %d seeds", budget)
			}
			t.Logf("caught after %d of %d seeds, by seed %d: %v", done, budget, seed, bad)
		})
	}
}
