//go:build vm

package nbd

import (
	"os"
	"sync"
	"testing"
)

// BenchmarkKernel is the whole way of a request through the kernel to a device
// that answers at once, and back.
func BenchmarkKernel(b *testing.B) {
	for _, bb := range []struct {
		name  string
		write bool
		depth int
		size  int
	}{
		{"READ4K/1", false, 1, 4 << 10}, {"READ4K/16", false, 16, 4 << 10}, {"WRITE4K/16", true, 16, 4 << 10},
		{"READ1M/1", false, 1, 1 << 20}, {"READ1M/4", false, 4, 1 << 20}, {"WRITE1M/1", true, 1, 1 << 20}, {"WRITE1M/4", true, 4, 1 << 20},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d := openKernel(b)
			m := newMemorySized(b, kernelSize, 1<<20, 128, 16<<20)
			m.inline = true
			_, c := newDisk(b)
			c.Device = m.device("vol0")
			k := attach(b, d, c)
			b.SetBytes(int64(bb.size))
			files := make([]*disk, bb.depth)
			for i := range files {
				files[i] = direct(b, k.Path(), os.O_RDWR)
			}
			b.ResetTimer()
			var all sync.WaitGroup
			for i, f := range files {
				all.Go(func() {
					for n := i; n < b.N; n += bb.depth {
						at := int64(n) * int64(bb.size) % kernelSize
						var err error
						if bb.write {
							_, err = f.WriteAt(f.buf[:bb.size], at)
						} else {
							_, err = f.ReadAt(f.buf[:bb.size], at)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			for _, f := range files {
				f.Close()
			}
		})
	}
}
