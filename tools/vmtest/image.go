package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// image is the guest's root file system while it is written: files of the host, most at the same paths.
type image struct {
	ar   *archive
	have map[string]bool // guest paths
}

// newImage begins with the directories that every guest has, and with the host's short ways such as /bin to /usr/bin.
func newImage(w io.Writer) *image {
	im := &image{ar: newArchive(w), have: map[string]bool{"/": true}}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/etc", "/root", "/mnt", "/usr/bin", "/usr/lib", "/var/lib"} {
		im.dir(dir)
	}
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		im.have[dir] = true
		im.ar.entry(dir[1:], modeTmp, 0, 0, 0)
	}
	// The kernel opens the console for init before any file system is mounted.
	im.ar.entry("dev/console", modeChar, 0, 5, 1)
	im.ar.entry("dev/null", modeChar|0o666, 0, 1, 3)
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if err := im.add(dir); err != nil {
			im.dir(dir)
		}
	}
	im.link("/var/run", "/run")
	im.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
	im.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
	im.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
	im.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
	return im
}

// once tells whether the path is new, and notes it.
func (im *image) once(guest string) bool {
	if im.have[guest] {
		return false
	}
	im.have[guest] = true
	return true
}

// dir makes a directory and those above it.
func (im *image) dir(guest string) {
	if guest = filepath.Clean(guest); im.once(guest) {
		im.dir(filepath.Dir(guest))
		im.ar.entry(guest[1:], modeDir, 0, 0, 0)
	}
}

// text makes a file.
func (im *image) text(guest, content string) {
	if im.once(guest) {
		im.dir(filepath.Dir(guest))
		im.ar.bytes(guest[1:], modeFile, []byte(content))
	}
}

// link makes a symbolic link.
func (im *image) link(guest, target string) {
	if im.once(guest) {
		im.dir(filepath.Dir(guest))
		im.ar.bytes(guest[1:], modeLink, []byte(target))
	}
}

// add copies a file of the host to the same path, with the symbolic links on the way to it, or makes a directory (without what it
// holds). Nobody may ask for what the guest mounts over.
func (im *image) add(path string) error {
	path = filepath.Clean(path)
	for range 40 {
		link, rest, err := firstLink(path)
		if err != nil {
			return err
		}
		if link == "" {
			return im.put(path, path)
		}
		target, err := os.Readlink(link)
		if err != nil {
			return err
		}
		im.link(link, target)
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, rest)
	}
	return fmt.Errorf("%s: too many symbolic links", path)
}

// firstLink splits a path behind its first part that is a symbolic link; link is empty if none is.
func firstLink(path string) (link, rest string, err error) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err != nil {
			return "", "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return path[:i], path[i:], nil
		}
	}
	return "", "", nil
}

// put copies a file of the host to a path of the guest, or makes a directory if it is one.
func (im *image) put(host, guest string) error {
	for _, top := range []string{"/proc/", "/sys/", "/dev/", "/run/"} {
		if strings.HasPrefix(guest, top) {
			return fmt.Errorf("%s: the guest has a file system of its own at %s: give it another place", guest, top)
		}
	}
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		im.dir(guest)
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: neither a file nor a directory", host)
	}
	if !im.once(guest) {
		return nil
	}
	im.dir(filepath.Dir(guest))
	mode := uint32(modeFile)
	if info.Mode()&0o111 != 0 {
		mode = modeProg
	}
	im.ar.copy(guest[1:], mode, info.Size(), f)
	return im.needs(host)
}

// tree copies all below a directory of the host, or one file, to the same paths, or to those below guest if that is given.
func (im *image) tree(root, guest string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case guest == "":
			return im.add(path)
		default:
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			return im.put(path, filepath.Join(guest, rel))
		}
	})
}

// program copies a program, found as a shell does.
func (im *image) program(name string) error {
	path, err := lookPath(name)
	if err != nil {
		return err
	}
	return im.add(path)
}

// lookPath finds a program in PATH and where administrators' programs are.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return filepath.Abs(name)
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: no such program on this machine: install it (tools/setup) or do not ask for it", name)
}

// needs copies what a file needs to run: the interpreter of a script; loader and libraries of a program.
func (im *image) needs(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [256]byte
	n, err := io.ReadFull(f, head[:])
	switch {
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		return err
	case bytes.HasPrefix(head[:n], []byte("#!/")):
		line, _, _ := strings.Cut(string(head[2:n]), "\n")
		return im.add(strings.Fields(line)[0])
	case !bytes.HasPrefix(head[:n], []byte(elf.ELFMAG)):
		return nil
	}
	return im.libraries(path, f)
}

// libraries copies the loader and the libraries that an ELF file names, and what those name.
func (im *image) libraries(path string, f io.ReaderAt) error {
	e, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		loader := make([]byte, p.Filesz)
		if _, err := p.ReadAt(loader, 0); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := im.add(strings.TrimRight(string(loader), "\x00")); err != nil {
			return err
		}
	}
	names, err := e.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(names) == 0 {
		return nil
	}
	run, err := e.DynString(elf.DT_RUNPATH)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range names {
		lib, err := findLibrary(name, path, run)
		if err != nil {
			return err
		}
		if err := im.add(lib); err != nil {
			return err
		}
	}
	return nil
}

// findLibrary finds a library as the loader would (ld.so(8)), by the directories Debian uses. Those of 32 bits are not among them.
func findLibrary(name, user string, run []string) (string, error) {
	var dirs []string
	for _, list := range run {
		dirs = append(dirs, filepath.SplitList(strings.ReplaceAll(list, "$ORIGIN", filepath.Dir(user)))...)
	}
	dirs = append(dirs, "/usr/local/lib")
	for _, pattern := range []string{"/lib/*-linux-gnu", "/usr/lib/*-linux-gnu"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range append(dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib") {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s, which %s needs, is in none of the usual directories", name, user)
}
