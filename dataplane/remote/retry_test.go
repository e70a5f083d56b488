package remote

import (
	"testing"
	"time"
)

func TestRetry(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		what   string
		up     bool
		lasted time.Duration
		n      int           // attempts
		wait   time.Duration // after the last one, at least and at most
		most   time.Duration
	}{
		{"a link that lived breaks", true, time.Hour, 1, 50 * ms, 50 * ms},
		{"and again and again", true, 250 * ms, 20, 50 * ms, 50 * ms},
		{"nobody listens", false, 0, 1, 50 * ms, 50 * ms},
		{"for a third of a second", false, 0, 5, 100 * ms, 130 * ms},
		{"for ever", false, 0, 20, time.Second, time.Second},
		{"nobody answers", false, 5 * time.Second, 9, 50 * ms, 50 * ms},
		{"welcomed and thrown out at once, for ever", true, 10 * ms, 20, 990 * ms, 990 * ms},
	}
	for _, tt := range tests {
		var r Retry
		var got time.Duration
		for range tt.n {
			// In the middle of the jitter it is the time itself.
			got = r.Wait(tt.up, tt.lasted, func(d time.Duration) time.Duration { return d / 2 })
		}
		if got < tt.wait || got > tt.most {
			t.Errorf("%s: waits %v, want %v to %v", tt.what, got, tt.wait, tt.most)
		}
		if got = r.Wait(true, time.Hour, func(d time.Duration) time.Duration { return d / 2 }); got != 50*ms {
			t.Errorf("%s, and then a good link: waits %v", tt.what, got)
		}
	}
}
