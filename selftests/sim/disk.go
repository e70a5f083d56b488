package main

import (
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/export"
)

// disk is the store below the export, and what lies beside it: it outlives the
// export's process. A sector has one durable value and, in a volatile cache, the
// later ones; a loss of power leaves any of them.
type disk struct {
	w       *world
	name    byte // in the stamps
	sectors []cell

	id           abi.ID
	tenure, last abi.ID

	stalled time.Duration // does nothing until then
	full    time.Duration // has no room until then
	failing int           // the so manieth operation from now fails, 0 = none
	rotten  int           // flushes that will fail
	lag     time.Duration // scripts: the next operation takes effect so late
	slow    time.Duration // scripts: flushes take so much longer
	hang    time.Duration // scripts: it ends so long after that
}

// cell is one sector.
type cell struct {
	durable  uint64
	cached   uint64   // what a read brings
	versions []uint64 // newer than durable, oldest first
	first    int      // number of versions[0]
}

func newDisk(w *world, name byte, sectors int) *disk {
	return &disk{w: w, name: name, sectors: make([]cell, sectors), id: abi.ID{name, 0xD}}
}

// mark is what a flush that starts now covers.
func (c *cell) mark() int { return c.first + len(c.versions) }

// put makes v the sector's value.
func (c *cell) put(v uint64, durable bool) {
	c.cached = v
	if durable {
		c.durable, c.first, c.versions = v, c.mark()+1, c.versions[:0]
		return
	}
	c.versions = append(c.versions, v)
}

// settle makes the versions below mark durable.
func (c *cell) settle(mark int) {
	if n := min(mark-c.first, len(c.versions)); n > 0 {
		c.durable = c.versions[n-1]
		c.versions = append(c.versions[:0], c.versions[n:]...)
		c.first += n
	}
}

// drop forgets the cache but for what had been written back by chance.
func (d *disk) drop() {
	for i := range d.sectors {
		c := &d.sectors[i]
		switch set := &d.w.plan.set; {
		case !set.exact:
			c.settle(c.first + d.w.under(len(c.versions)+1))
		case set.lucky:
			c.settle(c.mark())
		}
		c.first, c.versions, c.cached = c.mark(), c.versions[:0], c.durable
	}
}

// job is one operation of the store that is under way.
type job struct {
	op    *export.Op // nil: of a READ
	req   *request   // nil: a flush
	marks []int      // flush: what it covers
	done  bool       // it has taken effect
	errno unix.Errno
	ended bool
}

// begin starts j; end is called when it is done.
func (d *disk) begin(j *job, end func()) {
	w := d.w
	took := w.chance(w.plan.set.disk)
	if j.req == nil {
		for i := range d.sectors {
			j.marks = append(j.marks, d.sectors[i].mark())
		}
		took += d.slow
	}
	if d.stalled > w.now {
		took += d.stalled - w.now
	}
	if d.failing > 0 {
		if d.failing--; d.failing == 0 {
			j.errno = unix.EIO
		}
	}
	if j.req != nil && d.full > w.now && (j.req.kind == export.KindWrite || j.req.kind == export.KindZero) {
		j.errno = unix.ENOSPC
	}
	took += d.lag
	at := took
	took += d.hang
	d.lag, d.hang = 0, 0
	if !w.plan.set.exact {
		at = time.Duration(w.under64(int64(took) + 1))
	}
	w.after(at, func() {
		if !j.ended {
			d.effect(j)
		}
	})
	w.after(took, func() {
		if !j.ended {
			j.ended = true
			end()
		}
	})
}

// effect is the moment in which j changes the store, or reads it.
func (d *disk) effect(j *job) {
	j.done = true
	switch r := j.req; {
	case r == nil:
		if j.errno == 0 && d.rotten > 0 {
			d.rotten--
			j.errno = unix.EIO
		}
		if j.errno != 0 {
			return // what is dirty goes when the error is told
		}
		for i, m := range j.marks {
			d.sectors[i].settle(m)
		}
	case r.kind == export.KindRead:
		if j.errno == 0 {
			for i := range int(r.length / sectorSize) {
				stamp(r.data[i*sectorSize:][:sectorSize], d.sectors[r.sector()+i].cached, d.name, r.sector()+i)
			}
		}
	default:
		d.change(r, j.errno != 0)
	}
}

// change does a WRITE, DISCARD or ZERO, or some of it.
func (d *disk) change(r *request, partly bool) {
	for i := range int(r.length / sectorSize) {
		if partly && d.w.under(2) == 0 {
			continue
		}
		at, v := r.sector()+i, uint64(0)
		if r.kind == export.KindWrite {
			if v = value(r.data[i*sectorSize:][:sectorSize], d.name, at); v == garbage {
				d.w.blame("sector %d: the store is given what nobody wrote there", at)
			}
		} else if r.kind == export.KindDiscard && !d.w.plan.set.punch {
			continue
		}
		d.sectors[at].put(v, r.kind == export.KindWrite && r.Durable && d.w.plan.set.fua && !partly)
	}
}

// abandon ends j where it is, because its process has died.
func (d *disk) abandon(j *job) {
	if j.ended {
		return
	}
	j.ended = true
	if !j.done && j.req != nil && j.req.kind != export.KindRead && d.w.under(2) == 0 {
		d.change(j.req, d.w.under(2) == 0)
	}
}
