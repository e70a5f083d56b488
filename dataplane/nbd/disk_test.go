package nbd

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
	"dst/dataplane/trans"
)

// startDisk starts a disk's life at a socket pair, on a host where its device
// is gone already.
func startDisk(t testing.TB, c DiskConfig) (*Disk, *net.UnixConn) {
	there, here := pair(t)
	buf, err := mempool.Pages(bufferSize)
	if err != nil {
		t.Fatal(err)
	}
	k := &Disk{d: &Driver{host: host{sys: t.TempDir()}}, c: c, stop: make(chan struct{}), block: 512}
	k.running.Go(func() { k.serve(there, buf) })
	t.Cleanup(func() { here.Close(); k.Close() })
	return k, here
}

// TestDiskEnds: who ends the device decides whether it is lost, and a disk ends
// only when all that it took is back.
func TestDiskEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(k *Disk, p *peer)
		lost string
	}{
		"DISC":    {func(_ *Disk, p *peer) { p.request(0, cmdDisc, 0, 0, 0) }, "somebody else"},
		"EOF":     {func(_ *Disk, p *peer) { p.Close() }, "freed"},
		"garbage": {func(_ *Disk, p *peer) { p.put(make([]byte, requestSize)) }, "freed"},
		"hang up": {func(k *Disk, _ *peer) { k.Hangup() }, ""},
		"detach":  {func(k *Disk, p *peer) { k.finish(); p.request(0, cmdDisc, 0, 0, 0) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, 4, 4*testMax)
			lost := make(chan error, 2)
			k, here := startDisk(t, DiskConfig{Device: m.device("vol0"), Backend: "dst:vol0:1", Lost: func(err error) { lost <- err }})
			p := newPeer(t, here)
			m.hold(true)
			p.request(0, cmdRead, 1, 0, 512)
			until(t, "the request is under way", func() bool { return m.submitted() == 1 })
			tt.end(k, p)
			if len(lost) != 0 {
				t.Error("lost while a request is out")
			}
			m.hold(false)
			if tt.lost != "" {
				if err := <-lost; !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), tt.lost) {
					t.Errorf("lost: %v, want it with %q", err, tt.lost)
				}
			}
			k.Close()
			if len(lost) != 0 {
				t.Errorf("lost: %v", <-lost)
			}
			k.Close()
		})
	}
}

// TestDiskAnswersWhatItNeverOffered: the kernel remembers what others offered.
func TestDiskAnswersWhatItNeverOffered(t *testing.T) {
	m := newMemory(t, 4, 4*testMax)
	m.logged = true
	m.info.Features = abi.FeatureFlush
	_, here := startDisk(t, DiskConfig{Device: m.device("vol0"), Backend: "dst:vol0:1"})
	p := newPeer(t, here)
	p.request(cmdFlagNoHole, cmdWriteZeroes, 1, 512, 512)
	p.expect(1, 0)
	p.request(0, cmdTrim, 2, 0, testSize)
	p.expect(2, 0)
	p.request(0, cmdRead, 3, 0, 512)
	p.expect(3, 0)
	if _, err := io.CopyN(io.Discard, p, 512); err != nil {
		t.Fatal(err)
	}
	if got, want := m.took()[0], (asked{trans.Zero, abi.FlagNoHole, 512, 512}); got != want {
		t.Errorf("the device was asked %v, want %v", got, want)
	}
}
