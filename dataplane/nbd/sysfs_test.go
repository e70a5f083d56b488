package nbd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a host made of files: nbd0 bears "dst:vol0:1" and has a partition
// that is mounted, nbd1 is somebody else's, nbd2 is idle, nbd10 bears
// "dst:vol0:10". Nodes are files that hold their number.
func tree(t testing.TB) host {
	t.Helper()
	root := t.TempDir()
	h := host{filepath.Join(root, "proc"), filepath.Join(root, "sys"), filepath.Join(root, "dev"),
		func(path string) string { return strings.TrimSpace(read(path)) }}
	files := map[string]string{
		"sys/block/nbd0/backend": "dst:vol0:1\n", "sys/block/nbd0/size": "2048\n", "sys/block/nbd0/dev": "43:0\n",
		"sys/block/nbd0/nbd0p1/partition": "1\n", "sys/block/nbd0/nbd0p1/dev": "43:1\n",
		"sys/block/nbd0/nbd0p12/partition": "12\n", "sys/block/nbd0/nbd0p12/dev": "259:7\n",
		"sys/block/nbd0/holders/md0/x": "", "sys/block/nbd0/nbd0p1/holders/dm-1/x": "", "sys/block/dm-1/dm/name": "vault\n",
		"sys/block/nbd0/queue/io_timeout": "30000\n", "sys/block/nbd0/queue/max_sectors_kb": "1280\n", "sys/block/nbd0/queue/max_hw_sectors_kb": "32768\n",
		"sys/block/nbd1/backend": "other\n", "sys/block/nbd1/dev": "43:32\n", "sys/block/nbd1/size": "x\n",
		"sys/block/nbd2/dev": "43:64\n", "sys/block/nbd10/backend": "dst:vol0:10\n", "sys/block/nbdx/backend": "dst:vol0:2\n", "sys/block/sda/dev": "8:0\n",
		"sys/block/loop3/loop/backing_file": "/dev/nbd0p12\n", "sys/block/loop4/loop/backing_file": "/srv/nbd0\n",
		"dev/nbd0": "43:0\n", "dev/nbd0p1": "43:1\n", "dev/nbd0p12": "259:7\n", "dev/nbd1": "43:32\n", "dev/nbd2": "43:64\n",
		"proc/1/mountinfo":  "22 1 8:0 / / rw - ext4 /dev/sda rw\n24 22 43:1 / /mnt/a\\040b rw shared:1 - xfs /dev/nbd0p1 rw\n25 22 0:40 / /pool rw - btrfs /dev/nbd0p12 rw\nnonsense\n",
		"proc/2/mountinfo":  "24 22 43:0 / /never rw - ext4 /dev/nbd0 rw\n", // the same namespace: not read
		"proc/77/mountinfo": "30 22 43:0 / /inside rw - ext4 /dev/nbd0 rw\n24 22 43:1 / /mnt/a\\040b rw - xfs /dev/nbd0p1 rw\n",
		"proc/77/comm":      "fio\n", "proc/self/mountinfo": "",
		"proc/swaps": "Filename Type Size Used Priority\n/dev/nbd0p12 partition 1 0 -2\n/dev/nbd1 partition 1 0 -2\n/dev/nbd0 file 1 0 -2\n",
	}
	for name, text := range files {
		write(t, filepath.Join(root, name), text)
	}
	for link, target := range map[string]string{
		"proc/1/ns/mnt": "mnt:[1]", "proc/2/ns/mnt": "mnt:[1]", "proc/77/ns/mnt": "mnt:[2]",
		"proc/77/fd/0": h.dev + "/nbd0", "proc/77/fd/1": h.dev + "/nbd0p1", "proc/77/fd/2": "socket:[1]", "proc/2/fd/3": h.dev + "/nbd1",
		fmt.Sprintf("proc/%d/fd/3", os.Getpid()): h.dev + "/nbd0",
	} {
		path := filepath.Join(root, link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestIndexOf(t *testing.T) {
	for name, want := range map[string]int{"nbd0": 0, "/dev/nbd15": 15, "nbd": -1, "nbd00": -1, "nbd1p1": -1, "nbd-1": -1, "nbd+1": -1, "sda": -1, "nbd4294967296": -1} {
		if index, ok := indexOf(name); ok != (want >= 0) || ok && index != want {
			t.Errorf("%s: %d, %v, want %d", name, index, ok, want)
		}
	}
}

func TestFind(t *testing.T) {
	h := tree(t)
	for backend, want := range map[string]int{"dst:vol0:1": 0, "dst:vol0:10": 10, "other": 1, "dst:vol0:2": -1, "dst:vol0": -1, "": -1} {
		if index, ok := h.find(backend); ok != (want >= 0) || ok && index != want {
			t.Errorf("%q: %d, %v, want %d", backend, index, ok, want)
		}
	}
	if _, ok := (host{sys: t.TempDir()}).find("other"); ok {
		t.Error("found where there is nothing")
	}
	if h.size(0) != 1<<20 || h.size(1) != 0 || h.size(9) != 0 {
		t.Errorf("sizes %d, %d, %d", h.size(0), h.size(1), h.size(9))
	}
}

func TestSetQueue(t *testing.T) {
	h := tree(t)
	get := func(name string) string { return read(h.block(0, "queue", name)) }
	for _, tt := range []struct {
		max  uint32
		want string
	}{{1 << 20, "1024"}, {4096, "4"}, {64 << 20, "32768"}} {
		if err := h.setQueue(0, tt.max); err != nil {
			t.Fatal(err)
		}
		if get("io_timeout") != "5000" || get("max_sectors_kb") != tt.want {
			t.Errorf("%d: io_timeout %s, max_sectors_kb %s, want %s", tt.max, get("io_timeout"), get("max_sectors_kb"), tt.want)
		}
	}
	if err := h.setQueue(2, 4096); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "nbd2") {
		t.Errorf("a device without a queue: %v", err)
	}
}

func TestUsersOfTree(t *testing.T) {
	h := tree(t)
	got := h.users(0)
	slices.Sort(got)
	want := []string{"held by dm-1 (vault)", "held by loop3", "held by md0", "mounted on /inside", "mounted on /mnt/a b", "mounted on /pool",
		"open in process 77 (fio)", "swap"}
	if !slices.Equal(got, want) {
		t.Errorf("users %q, want %q", got, want)
	}
	if got := h.users(2); len(got) != 0 {
		t.Errorf("users of an idle device: %q", got)
	}
	if got := Users("/dev/sda"); got != nil {
		t.Errorf("users of something else: %q", got)
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mount{
		"36 35 98:0 /a /b rw,noatime master:1 - ext3 /dev/root rw": {"/b", "/dev/root", "98:0"},
		"36 35 98:0 /a /b\\134\\040\\011 rw - ext3 none rw":        {"/b\\ \t", "none", "98:0"},
		"36 35 98:0 /a /b\\9 rw - ext3 a\\ rw":                     {"/b\\9", "a\\", "98:0"},
		"36 35 98:0 /a /b rw":                                      {}, "": {}, " - ": {}, "1 2 3:4 / - x": {},
	} {
		if got, ok := parseMount(line); got != want || ok != (want != mount{}) {
			t.Errorf("%q: %+v, %v, want %+v", line, got, ok, want)
		}
	}
}
