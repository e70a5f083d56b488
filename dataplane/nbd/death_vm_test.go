//go:build vm

package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/dataplane/trans"
)

// hasty makes the kernel send requests again soon after a socket's death.
func hasty(t testing.TB, k *Disk) {
	t.Helper()
	if err := os.WriteFile(k.d.host.block(k.index, "queue", "io_timeout"), []byte("500"), 0); err != nil {
		t.Fatal(err)
	}
}

// after runs f and hands out its error when it is done.
func after(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// sockets watches the rule that nothing is taken from a new socket while
// something of an old one is out.
type sockets struct {
	reserve *trans.Reserve
	mu      sync.Mutex
	seen    []trans.Front
	early   int // requests that came while others of an older socket were out
}

func (s *sockets) watch(c *DiskConfig) {
	submit := c.Submit
	c.Submit = func(t *trans.Trans) {
		s.mu.Lock()
		if n := len(s.seen); n == 0 || s.seen[n-1] != t.Front {
			if n > 0 && s.reserve.InUse() != 1 {
				s.early++
			}
			s.seen = append(s.seen, t.Front)
		}
		s.mu.Unlock()
		submit(t)
	}
}

func (s *sockets) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// cut ends the present socket as a fault would.
func (k *Disk) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.client.close(unix.EPROTO)
}

// TestKernelSocketDies: with writes under way the socket ends, and another
// takes its place; nothing is lost, and no write of the new one begins while
// one of the old is out.
func TestKernelSocketDies(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	s := sockets{reserve: m.reserve}
	s.watch(&c)
	k := attach(t, d, c)
	hasty(t, k)
	log := kernelLog(t)
	for round := range byte(3) {
		old, young := direct(t, k.Path(), os.O_RDWR), direct(t, k.Path(), os.O_RDWR)
		m.hold(true)
		var writes []<-chan error
		writes = append(writes, after(func() error { return old.fill(round+1, 64<<10, 1<<20) }))
		until(t, "a write is under way", func() bool { return m.submitted() > 0 })
		sockets := s.count()
		k.cut()
		// A request of later: the kernel keeps it until there is a socket.
		writes = append(writes, after(func() error { return young.fill(round+100, 64<<10, 2<<20) }))
		until(t, "the kernel sees its socket dead", func() bool { return said(t, log, "Receive control failed") })
		// What must not happen would happen at once.
		if await(20*lookTime, func() bool { return s.count() != sockets || said(t, log, "reconnected") }) {
			t.Error("a new socket while a write of the old one is out")
		}
		m.hold(false)
		for i, w := range writes {
			if err := <-w; err != nil {
				t.Errorf("round %d, write %d: %v", round, i, err)
			}
		}
		if !bytes.Equal(m.at(1<<20, 64<<10), bytes.Repeat([]byte{round + 1}, 64<<10)) {
			t.Errorf("round %d: the write under way is lost", round)
		}
		if !bytes.Equal(m.at(2<<20, 64<<10), bytes.Repeat([]byte{round + 100}, 64<<10)) {
			t.Errorf("round %d: the waiting write is lost", round)
		}
	}
	if s.early != 0 || s.count() < 4 {
		t.Errorf("%d sockets, %d too early", s.count(), s.early)
	}
}

// TestKernelNextDaemon: a daemon hangs up with writes under way, and the next
// finds its device and does them.
func TestKernelNextDaemon(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	hasty(t, k)
	f := direct(t, k.Path(), os.O_RDWR)
	m.hold(true)
	write := after(func() error { return f.fill(9, 256<<10, 0) })
	until(t, "a write is under way", func() bool { return m.submitted() > 0 })
	within(t, 5*time.Second, "Hangup", k.Hangup)
	m.fail[0] = unix.EIO // what the link of a daemon that ends says: nobody may see it
	m.hold(false)
	k.Close()
	if got := follow(c.Link); got != k.Path() {
		t.Errorf("the link leads to %q after the daemon's end, want %q", got, k.Path())
	}
	if k.Size() != kernelSize {
		t.Errorf("%d bytes after the daemon's end", k.Size())
	}
	next, nc := newDisk(t)
	nc.Link = c.Link
	next.info.Size = kernelSize / 2 // is not changed meanwhile
	n := attach(t, d, nc)
	if n.Path() != k.Path() {
		t.Fatalf("the next daemon has %s, want %s", n.Path(), k.Path())
	}
	if err := <-write; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(next.at(0, 256<<10), bytes.Repeat([]byte{9}, 256<<10)) {
		t.Error("the write under way is lost")
	}
	f.Close()
	if n.Size() != kernelSize {
		t.Errorf("%d bytes, want it unchanged", n.Size())
	}
	until(t, "the queue is set up again", func() bool { return queueOf(n, "io_timeout") == "5000" })
}

// TestKernelServedByAnother: a device whose socket is alive is not taken.
func TestKernelServedByAnother(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	k := attach(t, d, c)
	_, second := newDisk(t)
	if k, err := d.Attach(second); !errors.Is(err, unix.EBUSY) || !strings.Contains(fmt.Sprint(err), "still serves") {
		t.Errorf("the same backend twice: %v, %v", k, err)
	}
	if err := d.Detach(c.Backend); !errors.Is(err, unix.EBUSY) {
		t.Errorf("freeing a device that is served: %v", err)
	}
	f := direct(t, k.Path(), os.O_RDWR)
	f.must("write", f.fill(1, 4096, 0))
}

// TestKernelLeftDevice: Driver.Detach frees what nobody serves, and whoever
// waits gets EIO; other devices are not touched.
func TestKernelLeftDevice(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	f := direct(t, k.Path(), os.O_RDWR)
	k.Close()
	write := after(func() error { return f.fill(9, 4096, 0) })
	_, oc := newDisk(t)
	oc.Backend += "another"
	other := attach(t, d, oc)
	if other.Path() == k.Path() {
		t.Fatal("a device was taken that somebody else left")
	}
	within(t, 5*time.Second, "Detach", func() { err = d.Detach(c.Backend) })
	if err != nil {
		t.Error(err)
	}
	if err := <-write; !errors.Is(err, unix.EIO) {
		t.Errorf("the write that waited: %v", err)
	}
	f.Close()
	quiet(t, k)
	if err := d.Detach(c.Backend); err != nil {
		t.Errorf("a second time: %v", err)
	}
	o := direct(t, other.Path(), os.O_RDWR)
	o.must("a write to the other device", o.fill(1, 4096, 0))
}

// TestKernelLost: somebody else frees the device.
func TestKernelLost(t *testing.T) {
	d := openKernel(t)
	_, c := newDisk(t)
	lost := make(chan error, 8)
	c.Lost = func(err error) { lost <- err }
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	f := direct(t, k.Path(), os.O_RDWR)
	f.must("write", f.fill(1, 4096, 0))
	if err := d.disconnect(k.index); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !errors.Is(err, unix.ENODEV) {
		t.Errorf("lost: %v", err)
	}
	f.Close()
	quiet(t, k)
	if err := k.Detach(false); err != nil {
		t.Error(err)
	}
	k.Close()
	if len(lost) != 0 {
		t.Error("lost twice")
	}
	if _, err := os.Lstat(c.Link); !os.IsNotExist(err) {
		t.Errorf("the link of a lost device: %v", err)
	}
}

// TestKernelMute: a device that answers nothing from the first request on.
// Only a detach without force needs an answer.
func TestKernelMute(t *testing.T) {
	d := openKernel(t)
	m, c := newDisk(t)
	m.hold(true)
	var k *Disk
	var err error
	within(t, 3*time.Second, "Attach", func() { k, err = d.Attach(c) })
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the partition scan waits", func() bool { return m.submitted() > 0 })
	var read []<-chan error
	for range 3 {
		read = append(read, after(func() error {
			f, err := os.OpenFile(k.Path(), os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				return err
			}
			f.Close()
			return nil
		}))
	}
	for range 2 {
		within(t, 2*claimTime+3*time.Second, "Detach", func() { err = k.Detach(false) })
		if !errors.Is(err, unix.EBUSY) || !strings.Contains(fmt.Sprint(err), "does not answer") {
			t.Errorf("detach of a mute device: %v", err)
		}
	}
	within(t, 3*time.Second, "Detach by force", func() { err = k.Detach(true) })
	if err != nil {
		t.Error(err)
	}
	for _, r := range read {
		<-r // with an error or not: the kernel may say either
	}
	m.hold(false)
	k.Close()
	quiet(t, k)
}

// TestKernelForce: a detach by force while requests are under way, and even
// while the kernel waits for the daemon to read.
func TestKernelForce(t *testing.T) {
	d := openKernel(t)
	for name, depth := range map[string]int{"all read": 128, "the socket is full": 2} {
		t.Run(name, func(t *testing.T) {
			m := newMemorySized(t, kernelSize, 256<<10, depth, 1<<20)
			_, c := newDisk(t)
			c.Device = m.device("vol0")
			k, err := d.Attach(c)
			if err != nil {
				t.Fatal(err)
			}
			f := direct(t, k.Path(), os.O_RDWR)
			m.hold(true)
			var writes []<-chan error
			for i := range 16 {
				w := direct(t, k.Path(), os.O_RDWR)
				writes = append(writes, after(func() error { return w.fill(1, 256<<10, int64(i)*256<<10) }))
			}
			until(t, "writes are under way", func() bool { return m.submitted() >= min(depth, 3) })
			if err := k.Detach(false); !errors.Is(err, unix.EBUSY) {
				t.Errorf("detach with writes under way: %v", err)
			}
			within(t, 3*time.Second, "Detach by force", func() { err = k.Detach(true) })
			if err != nil {
				t.Error(err)
			}
			for i, w := range writes {
				if err := <-w; !errors.Is(err, unix.EIO) {
					t.Errorf("write %d: %v, want EIO", i, err)
				}
			}
			if err := f.fill(1, 4096, 0); err == nil {
				t.Error("a write to a device that is gone")
			}
			m.hold(false)
			k.Close()
		})
	}
}

// The daemon of the test below is this program again, told so by its
// environment: the operation that it never answers, and its link.
const muteEnv, linkEnv = "NBD_TEST_MUTE", "NBD_TEST_LINK"

// TestKernelKilledDaemon: a daemon is killed with a thread that waits for its
// own device. Its socket dies all the same, and the next takes the device.
func TestKernelKilledDaemon(t *testing.T) {
	d := openKernel(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []trans.Op{trans.Read, trans.Flush} {
		t.Run(op.String(), func(t *testing.T) {
			m, c := newDisk(t)
			cmd := exec.Command(self, "-test.run", "^TestKernelDaemonToKill$", "-test.v")
			cmd.Env = append(os.Environ(), muteEnv+"="+op.String(), linkEnv+"="+c.Link)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said []byte
			for b := make([]byte, 256); !bytes.Contains(said, []byte("STUCK")); {
				n, err := out.Read(b)
				said = append(said, b[:n]...)
				if err != nil {
					t.Fatalf("the daemon said %q: %v", said, err)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			c.Backend = "dst:vol0:TestKernelDaemonToKill"
			var k *Disk
			within(t, 5*time.Second, "the take-over", func() { k = attach(t, d, c) })
			f := direct(t, k.Path(), os.O_RDWR)
			f.must("write", f.fill(1, 4096, 0))
			_ = cmd.Wait() // needs the device: a thread waits for it
			if m.at(0, 1)[0] != 1 {
				t.Error("the write went elsewhere")
			}
		})
	}
}

// TestKernelDaemonToKill attaches a device that never answers some requests,
// and detaches it. As a test of its own it has nothing to do.
func TestKernelDaemonToKill(t *testing.T) {
	mute := os.Getenv(muteEnv)
	if mute == "" {
		return
	}
	d := openKernel(t)
	m, c := newDisk(t)
	c.Link = os.Getenv(linkEnv)
	var stuck atomic.Int32
	c.Submit = func(x *trans.Trans) {
		if x.Op.String() == mute {
			stuck.Add(1)
			return
		}
		m.Submit(x)
	}
	k, err := d.Attach(c)
	if err != nil {
		t.Fatal(err)
	}
	go k.Detach(false)
	until(t, "a request to be stuck with", func() bool { return stuck.Load() > 0 })
	fmt.Println("STUCK")
	select {}
}

// TestKernelElsewhere: the driver serves daemons in other network namespaces.
func TestKernelElsewhere(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		d, err := OpenDriver(zerolog.Nop())
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		_, c := newDisk(t)
		k, err := d.Attach(c)
		if err != nil {
			t.Error(err)
			return
		}
		if err := k.Detach(false); err != nil {
			t.Error(err)
		}
		k.Close()
	}()
	<-done
}

// TestKernelNoCapability: a daemon without CAP_SYS_ADMIN is told so.
func TestKernelNoCapability(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var data [2]unix.CapUserData
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		err := unix.Capget(&head, &data[0])
		data[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err == nil {
			err = unix.Capset(&head, &data[0])
		}
		if err == nil {
			_, err = OpenDriver(zerolog.Nop())
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		t.Error(err)
	}
}

// TestKernelModule: the module is loaded when it is needed, as often as it is.
func TestKernelModule(t *testing.T) {
	for range 3 {
		d := openKernel(t)
		_, c := newDisk(t)
		detach(t, attach(t, d, c))
		until(t, "the module can go", func() bool { return unix.DeleteModule("nbd", unix.O_NONBLOCK) == nil })
	}
	openKernel(t)
}
