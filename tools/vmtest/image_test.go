package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// entry is what an archive holds under one name.
type entry struct {
	mode uint64
	data string
}

// unpack reads an archive as the kernel does: a header of 13 fields of 8 hexadecimal digits, everything padded to 4.
func unpack(t *testing.T, b []byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for off := 0; ; {
		if string(b[off:off+6]) != "070701" {
			t.Fatalf("no magic at %d", off)
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(b[off+110 : off+110+nameSize-1])
		data := (off + 110 + nameSize + 3) &^ 3
		off = (data + size + 3) &^ 3
		if name == "TRAILER!!!" {
			if off != len(b) {
				t.Errorf("%d bytes behind the end", len(b)-off)
			}
			return all
		}
		if _, twice := all[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		if up := filepath.Dir(name); up != "." && all[up].mode&0o170000 != 0o040000 {
			t.Errorf("%s comes before its directory", name)
		}
		all[name] = entry{uint64(mode), string(b[data : data+size])}
	}
}

func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := newArchive(&out)
	a.entry("dev", modeDir, 0, 0, 0)
	a.entry("dev/console", modeChar, 0, 5, 1)
	for _, text := range []string{"", "1", "12", "123", "1234", "12345"} {
		a.bytes("f"+text, modeFile, []byte(text))
		a.copy("copy"+text, modeProg, int64(len(text)), strings.NewReader(text+"more"))
	}
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	all := unpack(t, out.Bytes())
	for _, text := range []string{"", "1", "12", "123", "1234", "12345"} {
		if all["f"+text] != (entry{modeFile, text}) || all["copy"+text] != (entry{modeProg, text}) {
			t.Errorf("%q: %v %v", text, all["f"+text], all["copy"+text])
		}
	}
	const console = "0707010000000200002180000000000000000000000001000000000000000000000000000000000000000500000001" + "0000000C00000000dev/console\x00"
	if !bytes.Contains(out.Bytes(), []byte(console)) {
		t.Errorf("the console's header is not %q in %q", console, out.Bytes()[:400])
	}
}

func TestArchiveShortFile(t *testing.T) {
	a := newArchive(&bytes.Buffer{})
	a.copy("file", modeFile, 10, strings.NewReader("short"))
	if err := a.end(); err == nil || !strings.Contains(err.Error(), "file") {
		t.Errorf("a file that became shorter while it was read: %v", err)
	}
}

// TestImage looks at an image of a script behind two links, with its interpreter and that one's libraries.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/real/below", 0o755))
	must(os.WriteFile(dir+"/real/script", []byte("#!/bin/bash -e\necho hello\n"), 0o755))
	must(os.WriteFile(dir+"/real/below/text", []byte("text"), 0o644))
	must(os.Symlink("real", dir+"/way"))
	must(os.Symlink(dir+"/way/script", dir+"/real/also"))
	must(os.Symlink("circle", dir+"/circle"))

	var out bytes.Buffer
	im := newImage(&out)
	must(im.add(dir + "/way/also"))
	must(im.tree(dir+"/real", "/opt"))
	must(im.program("awk"))
	for path, want := range map[string]string{
		dir + "/circle": "too many symbolic links", dir + "/nosuch": "no such file", "/dev/null": "file system of its own",
	} {
		if err := im.add(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if err := im.program("no-such-program"); err == nil || !strings.Contains(err.Error(), "tools/setup") {
		t.Errorf("a program that is not there: %v", err)
	}
	must(im.ar.end())
	all := unpack(t, out.Bytes())
	in := func(path string) entry { return all[strings.TrimPrefix(path, "/")] }
	if in(dir+"/way") != (entry{modeLink, "real"}) || in(dir+"/real/also") != (entry{modeLink, dir + "/way/script"}) {
		t.Errorf("links: %v %v", in(dir+"/way"), in(dir+"/real/also"))
	}
	if got := in(dir + "/real/script"); got.mode != modeProg || !strings.HasSuffix(got.data, "hello\n") {
		t.Errorf("script: %v", got)
	}
	if in("/opt/below/text") != (entry{modeFile, "text"}) {
		t.Errorf("tree: %v", in("/opt/below/text"))
	}
	for _, name := range []string{"bash", "libc.so.6", "libtinfo.so.6", "awk"} {
		if !holds(all, name) {
			t.Errorf("no %s", name)
		}
	}
	if all["tmp"].mode != modeTmp {
		t.Errorf("/tmp: %o", all["tmp"].mode)
	}
}

func holds(all map[string]entry, base string) bool {
	for name := range all {
		if filepath.Base(name) == base {
			return true
		}
	}
	return false
}
