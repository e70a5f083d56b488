package remote

import "time"

const (
	pauseMin = 50 * time.Millisecond
	pauseMax = time.Second
	steady   = 200 * time.Millisecond // a link that lasted so long was a good one
)

// Retry is when and where to connect next. The zero value is a node's that never
// did.
type Retry struct {
	pause    time.Duration // before the next attempt, unless this one takes as long
	attempts int
}

// Peer is the number of the address for the next attempt, of n.
func (r *Retry) Peer(n int) int {
	r.attempts++
	return (r.attempts - 1) % n
}

// Wait is the time from the end of an attempt to the next: up tells whether it
// came to a WELCOME, lasted how long it took until its link broke. From the
// beginning of an attempt to the next: one that waited for an answer in vain has
// paused already. chance(d) is a random time below d: many remotes do not come
// back in one moment.
func (r *Retry) Wait(up bool, lasted time.Duration, chance func(time.Duration) time.Duration) time.Duration {
	if r.pause == 0 || up && lasted > steady { // else it may go on so for ever
		r.pause = pauseMin
	}
	d := max(pauseMin, r.pause-lasted)
	r.pause = min(r.pause*5/4, pauseMax) // a fifth of the outage so far
	return d*3/4 + chance(d/2)
}
