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
func Users(path string) []string { return UsersOf(path)[path] }

// UsersOf is Users for several devices at the price of one: the processes of
// the machine are looked through once. Devices that nobody has are missing.
func UsersOf(paths ...string) map[string][]string {
	byIndex := make(map[int]string, len(paths))
	var all []int
	for _, path := range paths {
		if index, ok := indexOf(path); ok {
			byIndex[index], all = path, append(all, index)
		}
	}
	found := make(map[string][]string, len(paths))
	if len(all) == 0 {
		return found
	}
	for index, users := range system().usersOf(all) {
		found[byIndex[index]] = users
	}
	return found
}

// opened begins the users that have nothing but a file open.
const opened = "open in process"

func (h host) users(index int) []string { return h.usersOf([]int{index})[index] }

func (h host) usersOf(all []int) map[int][]string {
	v := view{host: h, names: map[string]bool{}, devs: map[string]int{}, found: map[int][]string{}}
	for _, index := range all {
		v.add(nodeName(index), h.block(index), index)
		for _, part := range h.parts(index) {
			v.add(part, h.block(index, part), index)
		}
	}
	v.mounts()
	v.swaps()
	v.loops()
	v.openers()
	return v.found
}

// view is one look at who has some devices.
type view struct {
	host  host
	names map[string]bool // the devices and their partitions
	devs  map[string]int  // their numbers, "43:0": the device's index
	found map[int][]string
}

// add makes the view look for a device, or a partition of it, whose directory
// in sysfs is dir.
func (v *view) add(name, dir string, index int) {
	v.names[name] = true
	if dev := read(filepath.Join(dir, "dev")); dev != "" {
		v.devs[dev] = index
	}
	v.holders(dir, index)
}

// say notes a user of a device, once.
func (v *view) say(index int, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(v.found[index], text) {
		v.found[index] = append(v.found[index], text)
	}
}

// has finds the device that a path leads to. Only what lies in /dev is looked
// at: a look at other files may wait for what they lie on.
func (v *view) has(path string) (index int, ok bool) {
	if rest, inDev := strings.CutPrefix(path, "/dev/"); inDev {
		index, ok = v.devs[v.host.number(filepath.Join(v.host.dev, rest))]
	}
	return index, ok
}

// holders are block devices made of the device: md, dm.
func (v *view) holders(dir string, index int) {
	entries, _ := os.ReadDir(filepath.Join(dir, "holders"))
	for _, e := range entries {
		if name := read(filepath.Join(v.host.sys, "block", e.Name(), "dm", "name")); name != "" {
			v.say(index, "held by %s (%s)", e.Name(), name)
		} else {
			v.say(index, "held by %s", e.Name())
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
			m, ok := parseMount(lines.Text())
			if !ok {
				continue
			}
			index, ok := v.devs[m.dev]
			if !ok {
				index, ok = v.has(m.source)
			}
			if ok {
				v.say(index, "mounted on %s", m.point)
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
		if f := strings.Fields(line); len(f) > 1 && f[1] == "partition" {
			if index, ok := v.has(unescape(f[0])); ok {
				v.say(index, "swap")
			}
		}
	}
}

// loops are loop devices, which hold a device and are not its holders.
func (v *view) loops() {
	files, _ := filepath.Glob(filepath.Join(v.host.sys, "block", "loop*", "loop", "backing_file"))
	for _, f := range files {
		if index, ok := v.has(read(f)); ok {
			v.say(index, "held by %s", filepath.Base(filepath.Dir(filepath.Dir(f))))
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
			if index, ok := v.opens(filepath.Join(dir, e.Name())); ok {
				v.say(index, opened+" %s (%s)", pid, read(filepath.Join(v.host.proc, pid, "comm")))
			}
		}
	}
}

// opens finds the device that an open file is. Whatever the link's text does
// not rule out is asked itself: the text is of another mount namespace.
func (v *view) opens(fd string) (index int, ok bool) {
	target, err := os.Readlink(fd)
	if err != nil {
		return 0, false
	}
	target = strings.TrimSuffix(target, " (deleted)")
	if !strings.Contains(target, "/dev/") && !v.names[filepath.Base(target)] {
		return 0, false
	}
	index, ok = v.devs[v.host.number(fd)]
	return index, ok
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
