package main

import "time"

// epoch is when virtual time begins, for those who want a time.Time.
var epoch = time.Unix(1_000_000_000, 0)

// clock is virtual time and what happens in it: events in the order of their
// time, and of their making where that is the same. Nothing else orders
// anything in a run.
type clock struct {
	now    time.Duration
	made   uint64
	passed uint64 // events that have happened
	queue  []event
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// after lets do happen in d.
func (c *clock) after(d time.Duration, do func()) {
	c.made++
	q := append(c.queue, event{c.now + max(d, 0), c.made, do})
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if q[up].before(&q[i]) {
			break
		}
		q[up], q[i] = q[i], q[up]
		i = up
	}
	c.queue = q
}

// step lets the next event happen; false if there is none.
func (c *clock) step() bool {
	q := c.queue
	if len(q) == 0 {
		return false
	}
	e := q[0]
	last := len(q) - 1
	q[0] = q[last]
	q[last] = event{}
	q = q[:last]
	for i := 0; ; {
		least := 2*i + 1
		if least >= last {
			break
		}
		if least+1 < last && q[least+1].before(&q[least]) {
			least++
		}
		if q[i].before(&q[least]) {
			break
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
	c.queue = q
	c.now = e.at
	c.passed++
	e.do()
	return true
}
