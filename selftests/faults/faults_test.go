package main

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWords(t *testing.T) {
	if n := hits("ok read 0 write 2 sync 3 erase 0 hit 42 held 1 dirty 0\n"); n != 42 {
		t.Errorf("%d hits", n)
	}
	if s := spread([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}); s != "2ms (9 of 10: 3ms, most 3ms)" {
		t.Error(s)
	}
	if d, err := parseDaemon("ns /run/a 17"); err != nil || d.ns != "ns" || d.dir != "/run/a" || d.pid != 17 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "ns /run/a", "ns /run/a x", "ns /run/a 17 18"} {
		if _, err := parseDaemon(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestEachWords(t *testing.T) {
	if e, err := parseEach("7:200:20"); err != nil || e.from != 7 || e.to != 200 || e.step != 20 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, bad := range []string{"", "1:200", "0:200:1", "1:200:0", "2:1:1", "1:200:1:1"} {
		if _, err := parseEach(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestRepliesOutOfStep(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		_, _ = b.Write([]byte("\x67\x44\x66\x98\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x07" + "nothing of the kind"))
	}()
	c := newNBD(a)
	if cookie, errno, err := c.receive(); cookie != 7 || errno != unix.EIO || err != nil {
		t.Errorf("cookie %d, %v, %v", cookie, errno, err)
	}
	if _, _, err := c.receive(); err == nil {
		t.Error("rubbish passed for an answer")
	}
}
