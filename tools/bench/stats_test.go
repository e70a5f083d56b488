package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramBuckets(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 65, 127, 128, 129, 1000, 65_535, 1 << 20, 1<<31 + 12345, 1 << 40} {
		got := float64(value(bucket(v)))
		if math.Abs(got-float64(v)) > float64(v)/(1<<subBits) {
			t.Errorf("%d ns is in a bucket of %.0f ns", v, got)
		}
	}
	last := -1
	for v := range uint64(1 << 14) {
		b := bucket(v)
		if b != last && b != last+1 {
			t.Fatalf("%d ns is in bucket %d, the value before in %d", v, b, last)
		}
		last = b
	}
}

func TestHistogramQuantile(t *testing.T) {
	var h histogram
	if q := h.quantile(.5); q != 0 {
		t.Errorf("an empty histogram has median %v", q)
	}
	random := rand.New(rand.NewPCG(3, 4))
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(random.ExpFloat64() * 1e5)
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .9, .99, .999, 1} {
		want := float64(all[min(int(q*float64(len(all))), len(all)-1)])
		if got := float64(h.quantile(q)); math.Abs(got-want) > want/(1<<subBits)+1 {
			t.Errorf("quantile %v: %.0f ns, want %.0f", q, got, want)
		}
	}
	h.add(-time.Second)
	h.add(1000 * time.Hour)
	if h.total != 10_002 {
		t.Errorf("%d values counted, want 10002", h.total)
	}
}

func TestMedianAndSpread(t *testing.T) {
	tests := []struct {
		values         []float64
		median, spread float64
	}{
		{nil, 0, 0},
		{[]float64{5}, 5, 0},
		{[]float64{3, 1}, 2, 1},
		{[]float64{9, 1, 4}, 4, 2},
		{[]float64{0, 0}, 0, 0},
	}
	for _, tt := range tests {
		if m, s := median(tt.values), spread(tt.values); m != tt.median || s != tt.spread {
			t.Errorf("%v: median %v, spread %v, want %v, %v", tt.values, m, s, tt.median, tt.spread)
		}
	}
	unsorted := []float64{3, 1, 2}
	if median(unsorted); unsorted[0] != 3 {
		t.Error("median sorts what it is given")
	}
}
