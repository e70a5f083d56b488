package dataplane

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestEraseBeginsWithTheConfiguration: a daemon that dies in the middle leaves
// no node that the next one would bring back without its log.
func TestEraseBeginsWithTheConfiguration(t *testing.T) {
	d := &runDir{path: t.TempDir()}
	ok(t, os.MkdirAll(d.node("disk0"), 0o700))
	for _, name := range []string{"page", "config", "log"} {
		ok(t, os.WriteFile(d.node("disk0")+"/"+name, nil, 0o600))
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	ok(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, d.node("disk0"), unix.IN_DELETE)
	ok(t, err)
	d.erase("disk0")
	var b [4096]byte
	n, err := unix.Read(watch, b[:])
	ok(t, err)
	e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
	if name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:min(n, unix.SizeofInotifyEvent+int(e.Len))]), "\x00"); name != "config" {
		t.Fatalf("%q went first", name)
	}
	if _, err := os.Stat(d.node("disk0")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
