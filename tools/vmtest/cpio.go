package main

import (
	"bufio"
	"fmt"
	"io"
)

// Types of what an archive holds, with the permission bits the guest sees (stat(2)).
const (
	modeDir  = 0o040755
	modeTmp  = 0o041777
	modeFile = 0o100644
	modeProg = 0o100755
	modeLink = 0o120777
	modeChar = 0o020600
)

// archive writes a cpio archive of the "newc" kind, as the kernel unpacks it into its first root file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error is kept and told by end.
type archive struct {
	w   *bufio.Writer
	n   int64 // bytes written
	ino int
	err error
}

func newArchive(w io.Writer) *archive { return &archive{w: bufio.NewWriterSize(w, 1<<20)} }

// entry writes the header of an object whose data of size bytes will follow; major and minor are those of a device node.
// Names have no leading slash; a directory must be written before what it holds.
func (a *archive) entry(name string, mode uint32, size int64, major, minor int) {
	a.ino++
	a.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	a.printf("%s\x00", name)
	a.pad()
}

// bytes writes an object with its data.
func (a *archive) bytes(name string, mode uint32, data []byte) {
	a.entry(name, mode, int64(len(data)), 0, 0)
	a.write(data)
	a.pad()
}

// copy writes an object whose data is read from r: size bytes, not one less.
func (a *archive) copy(name string, mode uint32, size int64, r io.Reader) {
	a.entry(name, mode, size, 0, 0)
	if a.err == nil {
		var n int64
		n, a.err = io.CopyN(a.w, r, size)
		a.n += n
	}
	if a.err != nil {
		a.err = fmt.Errorf("%s: %w", name, a.err)
	}
	a.pad()
}

// end writes the mark that ends an archive.
func (a *archive) end() error {
	a.entry("TRAILER!!!", 0, 0, 0, 0)
	if err := a.w.Flush(); a.err == nil {
		a.err = err
	}
	return a.err
}

func (a *archive) printf(format string, args ...any) { a.write(fmt.Appendf(nil, format, args...)) }

func (a *archive) write(data []byte) {
	if a.err == nil {
		var n int
		n, a.err = a.w.Write(data)
		a.n += int64(n)
	}
}

// pad fills up to a multiple of four.
func (a *archive) pad() { a.write(make([]byte, -a.n&3)) }
