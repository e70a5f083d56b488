package main

import (
	"slices"
	"time"
)

// maxSkew is less than the time after which a core no longer waits for the kernel
// to send again what its daemon did not answer.
const maxSkew = 20 * time.Second

// graceTime is how long a holder without a link keeps its place, but for the
// time that a rival's HELLO takes.
const graceTime = 2 * time.Second

// trigger lets those faults happen whose moment has come.
func (w *world) trigger() {
	for i := range w.plan.faults {
		f := w.plan.faults[i]
		due := w.begun >= f.step
		switch {
		case f.event != 0:
			due = w.passed >= f.event
		case f.link != 0:
			due = w.welcomes >= f.link
		}
		if due && !w.armed[i] {
			w.armed[i] = true
			if f.event != 0 {
				w.inject(f)
				continue
			}
			w.after(f.delay, func() { w.inject(f) })
		}
	}
}

// inject lets f happen.
func (w *world) inject(f fault) {
	if w.calm() || w.bad != nil {
		return
	}
	if w.log != nil {
		w.trace("FAULT %v", f)
	}
	switch f.kind {
	case faultCut:
		for _, c := range w.wires {
			c.cut()
		}
	case faultHole:
		for d := range w.holes {
			if f.arg%3 == 2 || f.arg%3 == d {
				w.holes[d] = max(w.holes[d], w.now+f.length)
			}
		}
	case faultLate:
		for _, c := range w.wires {
			c.pipes[f.arg%2].hole = w.now + f.length
		}
	case faultFlip:
		w.flips++
	case faultExport:
		w.killExport(false, f.length)
	case faultClient:
		w.killClients(f.length)
	case faultBoth:
		w.killExport(false, f.length)
		w.killClients(f.length / 2)
	case faultExportHost:
		w.killExport(true, f.length)
	case faultClientHost:
		w.loseClients(f.length)
	case faultHosts:
		w.killExport(true, f.length)
		w.loseClients(f.length / 2)
	case faultJumpClient:
		w.clientSkew = min(w.clientSkew+f.length, maxSkew)
		for _, d := range w.devs {
			if d.proc != nil {
				d.proc.skew = w.clientSkew
			}
		}
	case faultJumpExport:
		if w.exportSkew += f.length; w.server != nil {
			w.server.skew = w.exportSkew
		}
		w.heard, w.lost = w.heard-f.length, w.lost-f.length // for the export so long ago
	default:
		w.injectStore(f)
	}
}

// injectStore is inject for what concerns the store, and who may use it.
func (w *world) injectStore(f fault) {
	d := w.disk
	switch f.kind {
	case faultStall:
		d.stalled = max(d.stalled, w.now+f.length)
	case faultEIO:
		w.errors++
		d.failing = 1 + f.arg
	case faultSync:
		w.errors++
		d.rotten++
	case faultSpace:
		w.errors++
		d.full = w.now + f.length
	case faultRival:
		w.compete()
	case faultSteal:
		w.steal()
	case faultForget:
		w.mayFail = true
		for _, d := range w.devs {
			d.forget()
		}
		w.killClients(f.length)
	case faultReplace, faultShrink:
		w.swap(f)
	}
}

// swap lets the export come back with another store.
func (w *world) swap(f fault) {
	if w.disk != w.home || !w.settled() {
		return
	}
	w.mayFail = true
	w.killExport(f.arg%2 == 0, f.length)
	name, sectors := byte('B'), w.plan.set.sectors
	if f.kind == faultShrink {
		sectors--
	}
	w.disk = newDisk(w, name, sectors)
	w.disk.tenure, w.disk.last = w.home.tenure, w.home.last // a copy
	if f.kind == faultShrink {
		w.disk.id = w.home.id
	}
}

// killExport ends the export's process, or its host, which loses what was not
// durable. It comes back.
func (w *world) killExport(host bool, off time.Duration) {
	if w.server != nil {
		w.server.kill(host)
	}
	w.server = nil
	if host {
		w.disk.drop()
		w.exportOff = true
	}
	if w.calm() {
		off = time.Millisecond
	}
	w.after(off, func() {
		if w.exportOff = false; w.server == nil {
			w.server = startServer(w)
			w.trace("export: starts, verifier %v", w.server.core.Verifier())
		}
	})
}

// killClients ends the clients' processes. They come back and find what their
// host remembers.
func (w *world) killClients(off time.Duration) {
	for _, d := range w.devs {
		if d.proc != nil {
			d.proc.kill(false)
			w.restart(d, off)
		}
	}
}

func (w *world) restart(d *device, off time.Duration) {
	if !w.plan.set.resent {
		w.abandon(d)
	}
	w.after(off, func() {
		if d.dead && !slices.Contains(w.former, d) || d.proc != nil {
			return
		}
		w.trace("client %x: starts", d.id[:2])
		if w.harm.is(oldEpoch) {
			harmEpoch(d.page)
		}
		d.start()
		w.resend(d)
	})
}

// resend is what the kernel does with what a daemon did not answer: it asks the
// next one, in no order.
func (w *world) resend(d *device) {
	c := d.proc
	for _, a := range d.open {
		wait := w.resent
		if w.under(2) == 0 && !w.plan.set.exact {
			wait = time.Duration(w.under64(int64(pick(w.rng, time.Millisecond, 50*time.Millisecond, time.Second))))
		}
		w.after(wait, func() {
			if !c.dead {
				c.submit(a)
			}
		})
	}
}

// loseClients is the loss of the clients' hosts. Others attach later.
func (w *world) loseClients(off time.Duration) {
	if w.calm() {
		off = time.Millisecond
	}
	for _, d := range w.devs {
		if d.dead {
			continue
		}
		if d.dead = true; d.proc != nil {
			d.proc.kill(true)
		}
		w.abandon(d)
		w.after(off, func() { w.replace(d) })
	}
}

// compete lets another client ask for the place of one that has it, until the
// calm. It gets it only if the other is gone for long.
func (w *world) compete() {
	if w.plan.set.shared || w.rival != nil || !w.settled() {
		return
	}
	w.rival = newDevice(w)
	w.rival.start()
}

// wins is a rival that gets the place: only if the holder was silent when it was
// asked, or had lost its link and did not come back in time.
func (w *world) wins() {
	if w.devs[0].dead || !w.devs[0].known {
		return
	}
	silence, patience := w.now-w.heard, 2*w.plan.set.keepalive
	if silence < patience || w.gone && w.lost-w.heard < patience && w.now-w.lost < graceTime {
		w.blame("the place of a client was given away %v after it was heard", silence)
	}
}

// won is a rival that is welcomed, or was noted by an export that died before it
// could take that back: from here the device of the holder fails, and no sooner.
func (w *world) won() {
	if !w.devs[0].dead && w.devs[0].known {
		w.mayFail = true
	}
}

// hears notes a sign of life of the holder at the export, or that its link is
// gone.
func (w *world) hears(n *session, gone bool) {
	if n.seat == nil || n.seat.ID != w.devs[0].id {
		return
	}
	if w.gone = gone; gone {
		w.lost = w.now
	} else {
		w.heard = w.now
	}
}

// steal lets another client take the place. The former one has lost it as soon
// as the other is served, whether it knows or not.
func (w *world) steal() {
	if w.plan.set.shared || !w.settled() {
		return
	}
	w.mayFail = true
	d := w.devs[0]
	n := newDevice(w)
	n.steal = true
	d.dead = true
	w.former = append(w.former, d)
	w.devs[0] = n
	for _, a := range d.open {
		w.release(a)
	}
	n.start()
}

// forget loses the log of a device, but not its page.
func (d *device) forget() {
	clear(d.mem)
	for _, a := range d.open {
		clear(a.seen) // nobody knows any more what may change
	}
	if d.w.harm.is(noOrphan) {
		d.page[16] = 0
	}
}
