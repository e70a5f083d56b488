package export

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestTheSameRefusalIsToldNowAndThen(t *testing.T) {
	var r refusals
	now := time.Now()
	for _, c := range []struct {
		host, why string
		after     time.Duration
		news      bool
	}{
		{"10.0.0.1", "busy", 0, true},
		{"10.0.0.1", "busy", time.Second, false},
		{"10.0.0.2", "busy", time.Second, true},
		{"10.0.0.1", "not allowed", time.Second, true},
		{"10.0.0.1", "busy", refusalQuiet, true},
	} {
		if news := r.news(c.host, c.why, now.Add(c.after)); news != c.news {
			t.Errorf("%s %s after %v: news %v", c.host, c.why, c.after, news)
		}
	}
	_, disk := memDisk(1 << 20)
	w := newWorld(t, Config{}, disk)
	for i := range 10 {
		c, nc := w.bare(stageMarked, 1)
		if err := errors.Join(nc.SetLinger(0), c.st.Close()); err != nil { // a reset, and its error names the port
			t.Fatal(err)
		}
		eventually(t, "it is counted", func() bool { return w.Counters().Refused == uint64(i+1) })
	}
	if n := len(w.events); n != 1 {
		t.Errorf("%d events of ten resets", n)
	}
	for _, minute := range []time.Duration{10 * refusalQuiet, 11 * refusalQuiet} {
		told := 0
		for i := range 10 * refusalsMax {
			if r.news(fmt.Sprint(i), "busy", now.Add(minute)) {
				told++
			}
		}
		want(t, "told of a crowd", told, refusalsMax)
	}
	if len(r.told) > refusalsMax {
		t.Fatalf("%d refusals are remembered", len(r.told))
	}
}
