package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Operations of fuse.h that are answered with more than ENOSYS.
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseSetxattr    = 21
	fuseGetxattr    = 22
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42
	fuseFallocate   = 43
)

const (
	inHead   = 40 // bytes of fuse_in_header
	outHead  = 16
	maxWrite = 1 << 20
	minor    = 38 // of protocol 7 that is spoken

	initBigWrites = 1 << 5
	initMaxPages  = 1 << 22

	openDirect   = 1 << 0 // no page cache: each read and write arrives here
	openParallel = 1 << 6 // writes do not wait for each other

	rootNode, diskNode = 1, 2
)

var ne = binary.NativeEndian

// fuse is the kernel's end of a mounted disk.
type fuse struct {
	d   *Disk
	dir string
	fd  int
	wg  sync.WaitGroup
}

func mount(dir string, d *Disk) (*fuse, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("dstfault", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount a disk at %s: %w", dir, err)
	}
	f := &fuse{d: d, dir: dir, fd: fd}
	f.wg.Add(1)
	go f.serve()
	return f, nil
}

// close unmounts, also from under its users, and waits for what was under way.
func (f *fuse) close() error {
	err := unix.Unmount(f.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	f.wg.Wait()
	return errors.Join(err, unix.Close(f.fd))
}

// serve takes requests of the kernel; each that may wait has a goroutine of its own.
// Started by mount. Owns reading from fd. Ends when the disk is unmounted.
func (f *fuse) serve() {
	defer f.wg.Done()
	for {
		b := make([]byte, maxWrite+4096)
		n, err := unix.Read(f.fd, b)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN, err == unix.ENOENT:
			continue
		case err != nil: // ENODEV
			return
		}
		f.wg.Go(func() { f.request(b[:n]) })
	}
}

// request answers one request.
func (f *fuse) request(b []byte) {
	op, unique, node, in := ne.Uint32(b[4:]), ne.Uint64(b[8:]), ne.Uint64(b[16:]), b[inHead:]
	if op == fuseForget || op == fuseBatchForget {
		return
	}
	data, errno := f.answer(op, node, in)
	if errno != 0 {
		data = nil
	}
	out := make([]byte, outHead, outHead+len(data))
	ne.PutUint32(out, uint32(outHead+len(data)))
	ne.PutUint32(out[4:], uint32(-int32(errno)))
	ne.PutUint64(out[8:], unique)
	_, _ = unix.Write(f.fd, append(out, data...)) // who asked may have been killed
}

// answer does what the kernel asks for.
func (f *fuse) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	d := f.d
	switch op {
	case fuseInit:
		return initAnswer(ne.Uint32(in[8:])), 0
	case fuseLookup:
		if string(bytes.TrimRight(in, "\x00")) != "disk" {
			return nil, unix.ENOENT
		}
		entry := make([]byte, 40)
		ne.PutUint64(entry, diskNode)
		return append(entry, f.attributes(diskNode)...), 0
	case fuseGetattr, fuseSetattr:
		return append(make([]byte, 16), f.attributes(node)...), 0
	case fuseOpen:
		b := make([]byte, 16)
		ne.PutUint32(b[8:], openDirect|openParallel)
		return b, 0
	case fuseStatfs:
		return make([]byte, 80), 0
	case fuseRelease, fuseFlush:
		return nil, 0
	case fuseRead:
		return d.readAt(ne.Uint64(in[8:]), ne.Uint32(in[16:]))
	case fuseWrite:
		return f.write(in)
	case fuseFsync:
		return nil, d.sync(0, uint64(len(d.seen)))
	case fuseFallocate:
		return nil, d.erase(ne.Uint64(in[8:]), ne.Uint64(in[16:]), ne.Uint32(in[24:]))
	case fuseSetxattr:
		name, value, _ := bytes.Cut(in[8:], []byte{0})
		return nil, d.setXattr(string(name), value[:ne.Uint32(in)])
	case fuseGetxattr:
		return d.getXattr(string(bytes.TrimRight(in[8:], "\x00")), int(ne.Uint32(in)))
	}
	return nil, unix.ENOSYS
}

// write is a write, and with RWF_DSYNC a Sync of the same bytes.
func (f *fuse) write(in []byte) ([]byte, unix.Errno) {
	off, n, flags := ne.Uint64(in[8:]), ne.Uint32(in[16:]), ne.Uint32(in[32:])
	errno := f.d.writeAt(in[40:40+n], off)
	if errno == 0 && flags&(unix.O_DSYNC|unix.O_SYNC) != 0 {
		errno = f.d.sync(off, uint64(n))
	}
	b := make([]byte, 8)
	ne.PutUint32(b, n)
	return b, errno
}

// initAnswer is fuse_init_out; the kernel offered those flags.
func initAnswer(flags uint32) []byte {
	b := make([]byte, 64)
	ne.PutUint32(b, 7)
	ne.PutUint32(b[4:], minor)
	ne.PutUint32(b[12:], flags&(initBigWrites|initMaxPages))
	ne.PutUint16(b[16:], 256) // in the background at most
	ne.PutUint16(b[18:], 192)
	ne.PutUint32(b[20:], maxWrite)
	ne.PutUint32(b[24:], 1) // granularity of times, ns
	ne.PutUint16(b[28:], uint16(maxWrite/os.Getpagesize()))
	return b
}

// attributes is fuse_attr.
func (f *fuse) attributes(node uint64) []byte {
	b := make([]byte, 88)
	ne.PutUint64(b, node)
	ne.PutUint32(b[60:], unix.S_IFDIR|0o755)
	ne.PutUint32(b[64:], 1)
	if node == diskNode {
		ne.PutUint64(b[8:], uint64(len(f.d.seen)))
		ne.PutUint64(b[16:], uint64(len(f.d.seen)/Sector))
		ne.PutUint32(b[60:], unix.S_IFREG|0o600)
	}
	ne.PutUint32(b[80:], 4096)
	return b
}

func (d *Disk) setXattr(name string, value []byte) unix.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.xattrs[name] = bytes.Clone(value)
	return 0
}

// getXattr gives a value, or, for room 0, how long it is.
func (d *Disk) getXattr(name string, room int) ([]byte, unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, ok := d.xattrs[name]
	switch {
	case !ok:
		return nil, unix.ENODATA
	case room == 0:
		return ne.AppendUint64(nil, uint64(len(value))), 0
	case room < len(value):
		return nil, unix.ERANGE
	}
	return value, 0
}
