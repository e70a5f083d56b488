//go:build sim

package main

import "testing"

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
