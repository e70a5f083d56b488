//go:build vm

// VM: uml
// MODULES: nbd +sch_netem
// PROGRAMS: modprobe

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGuest looks at what a test for virtual machines may count on.
func TestGuest(t *testing.T) {
	for name, want := range map[string]string{"IN_VM": "1", "TMPDIR": "/tmp"} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
	for path, want := range map[string]int64{"/": unix.TMPFS_MAGIC, "/run": unix.TMPFS_MAGIC, "/proc": unix.PROC_SUPER_MAGIC,
		"/sys": unix.SYSFS_MAGIC, "/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC, "/dev/pts": unix.DEVPTS_SUPER_MAGIC} {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || int64(st.Type) != want {
			t.Errorf("%s: type %#x, want %#x (%v)", path, st.Type, want, err)
		}
	}
	for _, path := range []string{"/dev/nbd0", "/dev/null", "testdata/travels"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		if l, err := net.Listen("tcp", address); err != nil {
			t.Error(err)
		} else {
			l.Close()
		}
	}
	if file := filepath.Join(t.TempDir(), "a"); os.WriteFile(file, nil, 0o600) != nil || !strings.HasPrefix(file, "/tmp/") {
		t.Errorf("temporary files cannot be made, or not in /tmp: %s", file)
	}
}

// TestModprobe loads a module that was only carried.
func TestModprobe(t *testing.T) {
	const sign = "/sys/module/sch_netem"
	if _, err := os.Stat(sign); err == nil {
		t.Fatal("the module is loaded")
	}
	if out, err := exec.Command("modprobe", "sch_netem").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(sign); err != nil {
		t.Error(err)
	}
}
