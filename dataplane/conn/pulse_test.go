package conn

import "testing"

// TestPulseIsNeverLate: whenever something is sent or received, in every pattern
// over two intervals, the next frame leaves within one interval after the last,
// and a silent peer is asked once in an interval.
func TestPulseIsNeverLate(t *testing.T) {
	const ticks = 4 // between two looks
	const interval = Looks * ticks
	for pattern := range 1 << (2 * Looks) {
		for phase := range ticks { // when, between two looks, the others send
			var p Pulse
			var sent, heard uint64
			last, asked := 0, 0
			for now := 1; now <= 4*interval; now++ {
				if look := now / ticks; now%ticks == phase && look < 2*Looks && pattern>>look&1 == 1 {
					sent++
					last = now
				}
				if now%ticks == 0 && p.Look(sent, heard) {
					sent++
					last, asked = now, now
				}
				if now-last > interval {
					t.Fatalf("pattern %08b, phase %d: nothing sent from %d to %d, the interval is %d", pattern, phase, last, now, interval)
				}
				if now-asked > interval+ticks && now > interval+ticks {
					t.Fatalf("pattern %08b, phase %d: a silent peer was not asked from %d to %d", pattern, phase, asked, now)
				}
			}
		}
	}
}

// TestPulseOfAnIdleLine: no more PINGs than are needed, and a peer that answers
// them is never silent for an interval.
func TestPulseOfAnIdleLine(t *testing.T) {
	var p Pulse
	var sent, heard uint64
	for range 100 * Looks {
		if p.Look(sent, heard) {
			sent, heard = sent+1, heard+1
		}
		if p.Silent >= Looks || p.Idle >= Looks {
			t.Fatalf("%+v", p)
		}
	}
	if sent > 100*Looks/(Looks-1)+1 {
		t.Errorf("%d PINGs in 100 intervals", sent)
	}
}
