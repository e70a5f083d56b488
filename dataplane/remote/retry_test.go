package remote

import (
	"testing"
	"time"
)

func TestRetry(t *testing.T) {
	const ms = time.Millisecond
	type attempt struct {
		up           bool
		lasted, wait time.Duration
	}
	tests := []struct {
		what string
		all  []attempt
	}{
		{"a link that lived breaks", []attempt{{true, time.Hour, 50 * ms}, {true, time.Hour, 50 * ms}}},
		{"and again and again", []attempt{{true, 300 * ms, 50 * ms}, {true, 300 * ms, 50 * ms}, {true, 300 * ms, 50 * ms},
			{true, 300 * ms, 50 * ms}, {true, 300 * ms, 50 * ms}, {true, 300 * ms, 50 * ms}}},
		{"nobody listens", []attempt{{false, 0, 50 * ms}, {false, 0, 100 * ms}, {false, 0, 200 * ms}, {false, 0, 400 * ms},
			{false, 0, 800 * ms}, {false, 0, time.Second}, {false, 0, time.Second}}},
		{"nobody answers", []attempt{{false, 5 * time.Second, 50 * ms}, {false, 5 * time.Second, 50 * ms}}},
		{"welcomed and thrown out at once, for ever", []attempt{{true, 10 * ms, 50 * ms}, {true, 10 * ms, 90 * ms},
			{true, 10 * ms, 190 * ms}, {true, 10 * ms, 390 * ms}, {true, 10 * ms, 790 * ms}, {true, 10 * ms, 990 * ms}}},
		{"back for good after a long time", []attempt{{false, 0, 50 * ms}, {false, 0, 100 * ms}, {false, 0, 200 * ms}, {true, 250 * ms, 50 * ms}}},
	}
	for _, tt := range tests {
		var r Retry
		for i, a := range tt.all {
			// In the middle of the jitter it is the time itself.
			if got := r.Wait(a.up, a.lasted, func(d time.Duration) time.Duration { return d / 2 }); got != a.wait {
				t.Errorf("%s: waits %v after attempt %d, want %v", tt.what, got, i+1, a.wait)
			}
		}
	}
}
