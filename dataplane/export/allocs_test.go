package export

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"dst/abi"
)

// raw prepares a request and room for its answer, so that a round over the
// socket allocates nothing on the client's side.
func raw(c *client, h abi.Header, data []byte, answer int) func() {
	if len(data) > 0 {
		h.Size = uint32(c.digest.Size() + len(data))
	}
	out := frame(c.digest, h, data)
	in := make([]byte, abi.HeaderSize+c.digest.Size()+answer)
	return func() {
		if _, err := c.st.Write(out); err != nil {
			c.t.Fatal(err)
		}
		if _, err := io.ReadFull(c.st, in); err != nil {
			c.t.Fatal(err)
		}
		var r abi.Header
		if r.Parse(in); r.Cmd != abi.MsgIOResponse || r.Errno() != 0 {
			c.t.Fatalf("answer %+v", r)
		}
	}
}

// mallocs is the heap allocations of the whole process while f runs n times.
func mallocs(n int, f func()) float64 {
	for range 100 {
		f()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

func TestRequestsDoNotAllocate(t *testing.T) {
	confs := backing(t, 4<<20)
	for _, name := range []string{"file", "tmpfs", "device"} {
		w := newWorld(t, confs[name], nil)
		c := w.client(helloOf(1, 1, abi.PermRW))
		for what, round := range map[string]func(){
			"READ":       raw(c, abi.Header{Cmd: abi.MsgIO, Sector: 8, Size: 4096}, nil, 4096),
			"READ large": raw(c, abi.Header{Cmd: abi.MsgIO, Size: 1 << 20}, nil, 1<<20),
			"WRITE":      raw(c, abi.Header{Cmd: abi.MsgIO, RW: 1, Sector: 8}, pattern(4096, 1), 0),
			"WRITE FUA":  raw(c, abi.Header{Cmd: abi.MsgIO, RW: 1, Sector: 8, Flags: abi.FlagFUA}, pattern(4096, 1), 0),
			"FLUSH":      raw(c, abi.Header{Cmd: abi.MsgFlush, Size: uint32(c.digest.Size())}, nil, 0),
			"ZERO":       raw(c, abi.Header{Cmd: abi.MsgWriteZeroes, Size: 4096}, nil, 0),
		} {
			// A worker more, and the runtime, allocate now and then; a request
			// must not.
			least := 1.0
			for try := 0; try < 5 && least > 0.02; try++ {
				least = min(least, mallocs(500, round))
			}
			if least > 0.02 {
				t.Errorf("%s: %s allocates %.2f times", name, what, least)
			}
		}
		w.end()
	}
}

func BenchmarkRead4K(b *testing.B) {
	benchmark(b, abi.Header{Cmd: abi.MsgIO, Size: 4096}, nil, 4096)
}

func BenchmarkWrite4K(b *testing.B) {
	benchmark(b, abi.Header{Cmd: abi.MsgIO, RW: 1}, pattern(4096, 1), 0)
}

// benchmark keeps 16 requests in flight over TCP to a file, and to one in memory.
func benchmark(b *testing.B, h abi.Header, data []byte, answer int) {
	for name, dir := range map[string]string{"file": b.TempDir(), "tmpfs": tmpfs(b)} {
		b.Run(name, func(b *testing.B) {
			conf := Config{Device: filepath.Join(dir, "image"), StateDir: dir}
			f, err := os.Create(conf.Device)
			if err != nil {
				b.Fatal(err)
			}
			for range 4096 { // a page each: the page cache is not made of large folios
				if _, err := f.Write(pattern(4096, 1)); err != nil {
					b.Fatal(err)
				}
			}
			f.Close()
			w := newWorld(b, conf, nil)
			c := w.client(helloOf(1, 1, abi.PermRW))
			if len(data) > 0 {
				h.Size = uint32(c.digest.Size() + len(data))
			}
			var batch []byte
			for i := range uint64(16) {
				h.Sector = i * 64
				batch = append(batch, frame(c.digest, h, data)...)
			}
			in := make([]byte, 16*(abi.HeaderSize+c.digest.Size()+answer))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.st.Write(batch); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.st, in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/request")
		})
	}
}
