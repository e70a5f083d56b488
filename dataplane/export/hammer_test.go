package export

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"dst/abi"
)

// TestHammer sends many overlapping changes without waiting for answers, breaks
// off now and then and resends what was not answered, as a remote does; the
// store finishes them in any order it likes. In the end it must hold what the
// changes make in the order of their sending.
func TestHammer(t *testing.T) {
	for name, conf := range backing(t, 1<<20) {
		t.Run(name, func(t *testing.T) { hammer(t, newWorld(t, conf, nil)) })
	}
	t.Run("slow", func(t *testing.T) {
		m, disk := memDisk(1 << 20)
		r := rand.New(rand.NewPCG(3, 4))
		m.setGate(func(_ string, off, n uint64) error {
			m.mu.Lock()
			pause := r.IntN(4)
			m.mu.Unlock()
			for range pause * 10 {
				runtime.Gosched()
			}
			if pause == 3 {
				time.Sleep(50 * time.Microsecond)
			}
			return nil
		})
		hammer(t, newWorld(t, Config{Workers: 4, Depth: 32}, disk))
	})
}

// job is a change that is sent until it is answered.
type job struct {
	h    abi.Header
	data []byte
}

func hammer(t *testing.T, w *world) {
	const block, blocks, rounds, size = 4096, 32, 12, 60
	r := rand.New(rand.NewPCG(1, 2))
	model := make([]byte, block*blocks)
	var todo []job
	id := uint64(0)
	for epoch := range uint64(rounds) {
		c := w.client(helloOf(1, epoch+1, abi.PermRW))
		for range size {
			id++
			todo = append(todo, someJob(r, id, model, block, blocks))
		}
		cut := len(todo) // answers after which the link breaks
		if epoch < rounds-1 {
			cut = r.IntN(size)
		}
		todo = c.run(todo, cut)
	}
	want(t, "left to do", len(todo), 0)
	c := w.client(helloOf(1, rounds+1, abi.PermRW))
	got, errno := c.read(0, block*blocks)
	want(t, "READ", errno, 0)
	wantBytes(t, "store", got, model)
}

// someJob makes a random change and does it to the model.
func someJob(r *rand.Rand, id uint64, model []byte, block, blocks int) job {
	at := r.IntN(blocks)
	n := 1 + r.IntN(min(4, blocks-at))
	j := job{h: abi.Header{Cmd: abi.MsgIO, RW: abi.RWWrite, ID: id, Sector: uint64(at * block / 512)}}
	part := model[at*block : (at+n)*block]
	if r.IntN(8) == 0 {
		j.h.Flags = abi.FlagFUA
	}
	if r.IntN(4) == 0 {
		j.h.Cmd, j.h.RW, j.h.Size = abi.MsgWriteZeroes, 0, uint32(n*block)
		clear(part)
		return j
	}
	j.data = pattern(n*block, byte(id))
	copy(part, j.data)
	return j
}

// run sends all jobs, reads until so many are answered, then cuts the link; it
// gives those that were not answered, in their order.
func (c *client) run(jobs []job, answers int) (left []job) {
	c.t.Helper()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, j := range jobs {
			if c.send(j.h, j.data) != nil {
				return // it was cut
			}
		}
	}()
	done := make(map[uint64]bool)
	for len(done) < answers {
		h, _, err := c.reply()
		if err != nil || h.Errno() != 0 {
			c.t.Fatal(err, h.Errno())
		}
		done[h.ID] = true
	}
	c.st.Close()
	<-sent
	for _, j := range jobs {
		if !done[j.h.ID] {
			left = append(left, j)
		}
	}
	return left
}
