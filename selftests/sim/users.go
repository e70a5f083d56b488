package main

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dst/dataplane/trans"
)

// think lets the users begin the next request, when there is room in their
// window and somebody to take it.
func (w *world) think() {
	if w.begun == len(w.plan.steps) {
		w.rest()
		return
	}
	s := w.plan.steps[w.begun]
	w.after(s.think, func() {
		if w.flying >= w.plan.set.window || w.devs[s.user%len(w.devs)].dead || w.plan.set.polite && w.rude(s) {
			w.blocked = true
			return
		}
		w.begun++
		w.begin(s)
		w.trigger()
		w.think()
	})
}

// rude tells whether s and a request that is under way touch the same sector,
// and one of them changes it.
func (w *world) rude(s step) bool {
	return slices.ContainsFunc(w.devs, func(d *device) bool {
		return slices.ContainsFunc(d.open, func(a *ask) bool {
			return (a.op.Changes() || s.op.Changes()) && a.from < s.from+s.n && s.from < a.from+a.n
		})
	})
}

// resume lets the users go on.
func (w *world) resume() {
	if w.blocked {
		w.blocked = false
		w.think()
	}
	w.after(0, w.rest)
}

func (w *world) begin(s step) {
	d := w.devs[s.user%len(w.devs)]
	a := w.history.begin(s, d)
	a.flying = true
	w.flying++
	d.open = append(d.open, a)
	if w.log != nil {
		w.trace("user: %v", a)
	}
	if d.proc != nil {
		d.proc.submit(a)
	}
}

// release ends the users' wait for a.
func (w *world) release(a *ask) {
	if a.flying {
		a.flying = false
		w.flying--
		w.resume()
	}
}

// answered is the end of a, if it is still open.
func (w *world) answered(a *ask, errno unix.Errno, data []byte) {
	d := a.dev
	i := slices.Index(d.open, a)
	if i < 0 {
		w.blame("%v came back twice", a)
		return
	}
	d.open = slices.Delete(d.open, i, i+1)
	if errno == 0 {
		if err := w.history.done(a, data); err != nil {
			w.blame("%v", err)
		}
	} else {
		w.history.fail(a)
		if !d.failed && w.errors == 0 && !w.mayFail {
			w.blame("%v got %v although the store is well", a, errno)
		}
	}
	if w.log != nil {
		w.trace("answer: %v %v", a, errno)
	}
	w.release(a)
}

// rest is what follows when the users wait for nothing.
func (w *world) rest() {
	if w.flying > 0 || w.begun < len(w.plan.steps) || w.reads || w.bad != nil {
		return
	}
	switch w.stage {
	case stageSteps:
		w.becalm()
		w.stage = stageRead
		w.readAll(w.plan.set.disk)
	case stageRead:
		w.check()
		if w.learn() {
			return
		}
		if w.stage = stageLost; !w.plan.set.loseAll || w.plan.set.shared {
			w.stage = stageOver
			return
		}
		w.limit = w.now + aliveTime
		w.trace("both hosts are lost")
		w.killExport(true, time.Millisecond)
		w.loseClients(time.Millisecond)
		w.readAll(time.Second)
	case stageLost:
		w.stage = stageOver
	}
}

// readAll lets the users read all sectors, in d.
func (w *world) readAll(d time.Duration) {
	w.reads = true
	w.after(d, func() {
		w.reads = false
		for i := range w.plan.set.sectors {
			w.begin(step{op: trans.Read, from: i, n: 1})
		}
	})
}

// learn lets those whose place was taken come back once more, when everybody
// else has left: they have to fail. It reports whether there are any.
func (w *world) learn() bool {
	var next *device
	for _, d := range append(slices.Clone(w.devs), w.former...) {
		switch {
		case d.proc == nil || d.failed:
		case d.taken && next == nil:
			next = d
		case !d.taken:
			d.proc.kill(false)
		}
	}
	switch {
	case next != nil:
		w.stage, w.limit = stageFormer, w.now+aliveTime
	case w.stage == stageFormer:
		w.stage = stageOver
	}
	return next != nil
}
