package export

import "sync"

// crew is the workers of a session. One of them has the reading role, or it is
// vacant because all of them are busy: then nothing is read, which is the
// back-pressure, until one is done. Idle workers wait last in, first out.
type crew struct {
	work func(w *worker) // what a new worker does; calls back and leaves in the end

	mu struct {
		sync.Mutex
		idle   []*worker
		count  int
		limit  int
		fewest int // idle ones since the last trim
		vacant bool
		closed bool
	}
	wg sync.WaitGroup
}

// worker is one goroutine of a session.
type worker struct {
	wake chan bool // true: you have the role; false: end
}

// setLimit changes how many workers there may be; surplus ones end as they come
// back.
func (c *crew) setLimit(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.limit = n
}

// pass hands the reading role on: to an idle worker, a new one, or, which is
// false, to nobody.
func (c *crew) pass() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.mu.idle) - 1
	switch {
	case c.mu.closed:
		return false
	case last >= 0:
		w := c.mu.idle[last]
		c.mu.idle = c.mu.idle[:last]
		c.mu.fewest = min(c.mu.fewest, last)
		w.wake <- true
	case c.mu.count < c.mu.limit:
		c.mu.count++
		c.wg.Add(1)
		go c.work(&worker{wake: make(chan bool, 1)})
	default:
		c.mu.vacant = true
		return false
	}
	return true
}

// back is a worker that has done its request. True: it has the reading role
// again; false: it ends.
func (c *crew) back(w *worker) bool {
	c.mu.Lock()
	switch {
	case c.mu.closed, c.mu.count > c.mu.limit && !c.mu.vacant:
		c.mu.Unlock()
		return false
	case c.mu.vacant:
		c.mu.vacant = false
		c.mu.Unlock()
		return true
	}
	c.mu.idle = append(c.mu.idle, w)
	c.mu.Unlock()
	return <-w.wake
}

// leave is the end of a worker.
func (c *crew) leave() {
	c.mu.Lock()
	c.mu.count--
	c.mu.Unlock()
	c.wg.Done()
}

// trim ends one worker if there was one too many all the time since the last
// trim.
func (c *crew) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.fewest > 1 && len(c.mu.idle) > 1 {
		// The one that has been idle longest.
		c.mu.idle[0].wake <- false
		c.mu.idle = append(c.mu.idle[:0], c.mu.idle[1:]...)
	}
	c.mu.fewest = len(c.mu.idle)
}

// size is the number of workers.
func (c *crew) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.count
}

// close ends all workers that are idle or come back, and waits for them.
func (c *crew) close() {
	c.mu.Lock()
	c.mu.closed = true
	for _, w := range c.mu.idle {
		w.wake <- false
	}
	c.mu.idle = nil
	c.mu.Unlock()
	c.wg.Wait()
}
