package nbd

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Users tells who has the kernel device at path ("/dev/nbdN") or one of its
// partitions: "mounted on /mnt", "swap", "held by md0", "open in process 123
// (fio)". This process does not count. Nothing of it waits for the device.
// Anybody may call it.
func Users(path string) []string {
	index, ok := indexOf(path)
	if !ok {
		return nil
	}
	return system().users(index)
}

// opened begins the users that have nothing but a file open.
const opened = "open in process"

func (h host) users(index int) []string {
	v := view{host: h, names: append([]string{nodeName(index)}, h.parts(index)...)}
	for i, name := range v.names {
		dir := h.block(index)
		if i > 0 {
			dir = h.block(index, name)
		}
		v.devs = append(v.devs, read(filepath.Join(dir, "dev")))
		v.holders(dir)
	}
	v.devs = slices.DeleteFunc(v.devs, func(dev string) bool { return dev == "" })
	v.mounts()
	v.swaps()
	v.loops()
	v.openers()
	return v.found
}

// view is one look at who has a device.
type view struct {
	host  host
	names []string // the device and its partitions
	devs  []string // their numbers, "43:0"
	found []string
}

// say notes a user, once.
func (v *view) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(v.found, text) {
		v.found = append(v.found, text)
	}
}

// has tells whether a path leads to the device. Only what lies in /dev is
// looked at: a look at other files may wait for what they lie on.
func (v *view) has(path string) bool {
	if rest, ok := strings.CutPrefix(path, "/dev/"); ok {
		return slices.Contains(v.devs, v.host.number(filepath.Join(v.host.dev, rest)))
	}
	return false
}

// holders are block devices made of the device: md, dm.
func (v *view) holders(dir string) {
	entries, _ := os.ReadDir(filepath.Join(dir, "holders"))
	for _, e := range entries {
		if name := read(filepath.Join(v.host.sys, "block", e.Name(), "dm", "name")); name != "" {
			v.say("held by %s (%s)", e.Name(), name)
		} else {
			v.say("held by %s", e.Name())
		}
	}
}

// mounts looks through the mount tables of all processes, one for each mount
// namespace.
func (v *view) mounts() {
	seen := map[string]bool{}
	for _, pid := range v.host.pids() {
		ns, err := os.Readlink(filepath.Join(v.host.proc, pid, "ns", "mnt"))
		if err != nil || seen[ns] {
			continue
		}
		f, err := os.Open(filepath.Join(v.host.proc, pid, "mountinfo"))
		if err != nil {
			continue
		}
		seen[ns] = true
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if m, ok := parseMount(lines.Text()); ok && (slices.Contains(v.devs, m.dev) || v.has(m.source)) {
				v.say("mounted on %s", m.point)
			}
		}
		f.Close()
	}
}

// mount is a line of mountinfo (proc_pid_mountinfo(5)): where, what, and the
// device's number, which file systems of several devices do not give.
type mount struct{ point, source, dev string }

func parseMount(line string) (m mount, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(r) < 2 {
		return m, false
	}
	return mount{point: unescape(l[4]), source: unescape(r[1]), dev: l[2]}, true
}

// unescape turns \040 and the like into what they stand for.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (v *view) swaps() {
	b, _ := os.ReadFile(filepath.Join(v.host.proc, "swaps"))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "partition" && v.has(unescape(f[0])) {
			v.say("swap")
		}
	}
}

// loops are loop devices, which hold a device and are not its holders.
func (v *view) loops() {
	files, _ := filepath.Glob(filepath.Join(v.host.sys, "block", "loop*", "loop", "backing_file"))
	for _, f := range files {
		if v.has(read(f)) {
			v.say("held by %s", filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
}

// openers looks through the open files of all processes but this one.
func (v *view) openers() {
	self := strconv.Itoa(os.Getpid())
	for _, pid := range v.host.pids() {
		if pid == self {
			continue
		}
		dir := filepath.Join(v.host.proc, pid, "fd")
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if v.opens(filepath.Join(dir, e.Name())) {
				v.say(opened+" %s (%s)", pid, read(filepath.Join(v.host.proc, pid, "comm")))
				break
			}
		}
	}
}

// opens tells whether an open file is the device. Whatever the link's text
// does not rule out is asked itself: the text is of another mount namespace.
func (v *view) opens(fd string) bool {
	target, err := os.Readlink(fd)
	if err != nil {
		return false
	}
	target = strings.TrimSuffix(target, " (deleted)")
	if !strings.Contains(target, "/dev/") && !slices.Contains(v.names, filepath.Base(target)) {
		return false
	}
	return slices.Contains(v.devs, v.host.number(fd))
}

// pids are the processes, oldest first as far as numbers tell.
func (h host) pids() (pids []string) {
	entries, _ := os.ReadDir(h.proc)
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			pids = append(pids, e.Name())
		}
	}
	slices.SortFunc(pids, func(a, b string) int { return len(a) - len(b) })
	return pids
}
