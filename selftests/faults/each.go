package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// each is one fault of the disk for each of many k: the k-th operation of its kind fails, once, in a load of its own. What is left
// between two of them is the daemons and the disk.
type each struct {
	campaign
	op             string
	from, to, step uint64
	told, replayed int // how many of them a client was told of, and how many were made good in silence
	failed         uint64
}

// parseEach takes "FROM:TO:STEP".
func parseEach(words string) (e *each, err error) {
	e = new(each)
	if _, err := fmt.Sscanf(words, "%d:%d:%d\n", &e.from, &e.to, &e.step); err != nil || e.from < 1 || e.step < 1 || e.to < e.from {
		return nil, fmt.Errorf("-each %q: want FROM:TO:STEP, from 1 on", words)
	}
	return e, nil
}

// run does all of them. dial makes a load that has not started; most is how many answers may be errors, for one k.
func (e *each) run(dial func(seed uint64) (*load, error), most, seed uint64) error {
	if e.disk == "" || e.op != "read" && e.op != "write" && e.op != "sync" && e.op != "erase" {
		return errors.New("-each is for faults of the disk: read, write, sync, erase")
	}
	n := 0
	for k := e.from; k <= e.to; k += e.step {
		var err error
		if e.l, err = dial(seed + k); err != nil {
			return err
		}
		e.rnd = rand.New(rand.NewPCG(seed+k, 1))
		e.l.h.Lenient = true
		if err := e.settle(e.one(k), most); err != nil {
			return fmt.Errorf("%s %d: %w", e.op, k, err)
		}
		n++
		if errs := e.l.errs.Load(); errs > 0 {
			e.told++
			e.failed += errs
		} else {
			e.replayed++
		}
	}
	e.tell()
	fmt.Printf("time: %d × %s, k from %d to %d by %d: %d told of (%d answers), %d made good in silence\n",
		n, e.op, e.from, e.to, e.step, e.told, e.failed, e.replayed)
	return nil
}

// one lets the k-th operation fail under load, and returns when all has gone on and the disk has forgotten what it gave up.
func (e *each) one(k uint64) error {
	struck, err := e.arm(e.op, k-1)
	if err != nil {
		return err
	}
	e.l.start()
	if err := e.await(struck); err != nil {
		return err
	}
	clock := time.Now()
	if err := e.recover(e.op+" error", e.answered()); err != nil {
		return fmt.Errorf("%v after it: %w", time.Since(clock), err)
	}
	return e.evict()
}
