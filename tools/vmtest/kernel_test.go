package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestModuleOrder adds modules of a small kernel, in which each name stands for what it needs.
func TestModuleOrder(t *testing.T) {
	needs := map[string][2]string{ // hard, soft
		"nbd": {}, "crc32c_generic": {}, "libcrc32c": {"", "crc32c"}, "sctp": {"libcrc32c,ip6-udp-tunnel,udp_tunnel", ""},
		"ip6_udp_tunnel": {}, "udp_tunnel": {"ip6_udp_tunnel"}, "vsock": {}, "virtio_common": {"vsock"},
		"vsock_loopback": {"vsock,virtio_common"}, "bad": {"gone"}, "round": {"about"}, "about": {"round"},
	}
	tests := []struct{ words, want, fault string }{
		{"nbd", "nbd", ""},
		{"nbd nbd", "nbd", ""},
		{"ext4 ipv6", "", ""}, // built in
		{"sctp", "libcrc32c ip6_udp_tunnel udp_tunnel sctp", ""},
		{"vsock-loopback nbd vsock", "vsock virtio_common vsock_loopback nbd", ""},
		{"+vsock_loopback", "+vsock +virtio_common +vsock_loopback", ""},
		{"+vsock_loopback virtio_common", "vsock virtio_common +vsock_loopback", ""},
		{"nbd +nbd", "nbd", ""},
		{"round", "about round", ""},
		{"bad", "", "gone"},
		{"nosuch", "", "nosuch"},
	}
	for _, tt := range tests {
		set := &moduleSet{builtin: map[string]bool{"ext4": true, "ipv6": true}, busy: map[string]bool{}}
		set.read = func(name string) (m module, err error) {
			n, ok := needs[name]
			if !ok {
				return m, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
			}
			m.hard, m.soft = parseModinfo("license=GPL\x00depends=" + n[0] + "\x00softdep=pre: " + n[1] + " post: later\x00")
			return m, nil
		}
		var err error
		for word := range strings.FieldsSeq(tt.words) {
			if err = set.add(parseModule(word)); err != nil {
				break
			}
		}
		if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: error %v, want one about %q", tt.words, err, tt.fault)
			continue
		}
		var got []string
		for _, m := range set.order {
			got = append(got, strings.Repeat("+", 1-count(m.Load))+m.Name)
		}
		if want := strings.Fields(tt.want); err == nil && !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tt.words, got, want)
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestFindKernel(t *testing.T) {
	t.Setenv("DST_VM_CACHE", t.TempDir())
	if _, err := findKernel("qemu"); err == nil || !strings.Contains(err.Error(), "run tools/setup") {
		t.Errorf("an empty cache: %v", err)
	}
	for _, file := range []string{"boot/vmlinuz-6.12", "lib/modules/6.12/modules.builtin"} {
		path := filepath.Join(cacheDir(), "qemu", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("kernel/fs/ext4/ext4.ko\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k, err := findKernel("qemu")
	if err != nil || k.release != "6.12" {
		t.Fatalf("%+v, %v", k, err)
	}
	set, err := newModuleSet(k)
	if err != nil || !set.builtin["ext4"] {
		t.Errorf("%+v, %v", set, err)
	}
	if err := set.add(parseModule("nbd")); err == nil || !strings.Contains(err.Error(), "not in the package of kernel 6.12") {
		t.Errorf("a module that is not there: %v", err)
	}
}
