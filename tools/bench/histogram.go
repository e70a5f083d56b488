package main

import (
	"math/bits"
	"slices"
	"time"
)

// subBits is how many bits below the highest one a histogram keeps: a value is off by less than 1 in 2^subBits.
const subBits = 6

// histogram counts times of up to about an hour without allocating.
type histogram struct {
	count [(42 - subBits) << subBits]uint64
	total uint64
}

// add counts one time.
func (h *histogram) add(d time.Duration) {
	h.count[min(bucket(uint64(max(d, 0))), len(h.count)-1)]++
	h.total++
}

// bucket numbers are linear up to 2^subBits ns, and logarithmic in groups of 2^subBits above.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// value is the middle of a bucket.
func value(bucket int) time.Duration {
	shift := max(bucket>>subBits-1, 0)
	low := uint64(bucket-shift<<subBits) << shift
	return time.Duration(low + (1<<shift)/2)
}

// quantile is the time that the part q (0 to 1) of all did not exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.count {
		if seen += n; n > 0 && (seen > rank || seen == h.total) {
			return value(i)
		}
	}
	return 0
}

// median is the middle value, or the mean of the two in the middle; 0 if there are none.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// spread is the distance between the extremes as a part of the median: how far the rounds disagree.
func spread(values []float64) float64 {
	if m := median(values); m > 0 {
		return (slices.Max(values) - slices.Min(values)) / m
	}
	return 0
}
