package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadWants(t *testing.T) {
	tests := []struct {
		name, text string
		want       wants
		fault      string
	}{
		{"a script", "#!/bin/bash\n# It says: something.\n# VM: qemu\n# MODULES: nbd veth\n# PROGRAMS: fio\n# MODULES: +sctp\n# MEM: 512\n# TIMEOUT: 60\n# CPUS: 4\n. lib.sh\n# VM: uml\n",
			wants{VM: "qemu", Modules: []string{"nbd", "veth", "+sctp"}, Programs: []string{"fio"}, Mem: 512, CPUs: 4, Timeout: time.Minute}, ""},
		{"a test", "//go:build vm\n\n// VM: uml\n// FILES: bin/dstd a:/b\n\npackage p\n// MODULES: no\n", wants{VM: "uml", Files: []string{"bin/dstd", "a:/b"}}, ""},
		{"nothing", "package p\n", wants{}, ""},
		{"no such machine", "# VM: xen\n", wants{}, "file:1: VM"},
		{"no machine", "#\n# VM:\n", wants{}, "file:2: VM"},
		{"no number", "# MEM: much\n", wants{}, "MEM"},
	}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readWants(file)
		if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.fault)
		}
		if err == nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestPackageWants(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_vm_test.go": "// VM: qemu\n// MODULES: nbd\n// MEM: 512\n",
		"b_vm_test.go": "// VM: uml\n// MODULES: veth\n// MEM: 2048\n",
		"c_test.go":    "// MODULES: other\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := packageWants(dir)
	if want := (wants{VM: "qemu", Modules: []string{"nbd", "veth"}, Mem: 2048}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestParseOptions(t *testing.T) {
	o, args := parseOptions(strings.Fields("-qemu -m nbd,veth -m +sctp -b fio -f a:/b,c -t 3s -mem 99 -kmsg log -v prog -test.v -uml"))
	want := options{wants: wants{VM: "qemu", Modules: []string{"nbd", "veth", "+sctp"}, Programs: []string{"fio"}, Files: []string{"a:/b", "c"},
		Timeout: 3 * time.Second, Mem: 99}, kmsg: "log", verbose: true}
	if !reflect.DeepEqual(o, want) || strings.Join(args, " ") != "prog -test.v -uml" {
		t.Errorf("%+v %q, want %+v", o, args, want)
	}
}

// TestNewJob puts together what the command line, the source and go test say.
func TestNewJob(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DST_VM_CACHE", dir)
	t.Setenv("CI", "true")
	for _, path := range []string{"uml/usr/bin/linux.uml", "qemu/boot/vmlinuz-1", "uml/usr/lib/uml/modules/6.1/x", "qemu/lib/modules/6.12/x", "go.mod", "sub/script", "sub/prog"} {
		text := ""
		if strings.HasSuffix(path, "script") {
			text = "#!/bin/bash -e\n# VM: qemu\n# MODULES: nbd\n# TIMEOUT: 7\n"
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir + "/sub")
	tests := []struct {
		asked     wants
		args      string
		vm, argv  string
		modules   string
		timeout   time.Duration
		mem, cpus int
	}{
		{wants{VM: "uml"}, "prog -test.timeout=1m0s", "uml", dir + "/sub/prog -test.timeout=1m0s", "", 80 * time.Second, 1024, 2},
		{wants{VM: "uml"}, "./prog -test.timeout=0s", "uml", dir + "/sub/prog -test.timeout=0s", "", 5 * time.Minute, 1024, 2},
		{wants{VM: "qemu", Timeout: time.Second, Mem: 5, CPUs: 1}, "prog", "qemu", dir + "/sub/prog", "", time.Second, 5, 1},
		{wants{}, "script a b", "qemu", "/bin/bash -e " + dir + "/sub/script a b", "nbd", 7 * time.Second, 1024, 2},
		{wants{VM: "uml", Modules: []string{"veth"}}, dir + "/sub/script", "uml", "/bin/bash -e " + dir + "/sub/script", "nbd veth", 7 * time.Second, 1024, 2},
	}
	for _, tt := range tests {
		j, err := newJob(tt.asked, strings.Fields(tt.args))
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if j.VM != tt.vm || strings.Join(j.order.Argv, " ") != tt.argv || strings.Join(j.Modules, " ") != tt.modules ||
			j.Timeout != tt.timeout || j.Mem != tt.mem || j.CPUs != tt.cpus || j.top != dir || j.order.Dir != dir+"/sub" {
			t.Errorf("%s: %+v, want %+v", tt.args, j, tt)
		}
		if env := strings.Join(j.order.Env, " "); !strings.Contains(env, "CI=true") || !strings.Contains(env, "IN_VM=1") {
			t.Errorf("environment: %s", env)
		}
	}
	for program, fault := range map[string]string{"nosuch": "no such file", "prog": "in which machine"} {
		if _, err := newJob(wants{}, []string{program}); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", program, err, fault)
		}
	}
}
