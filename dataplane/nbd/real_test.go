//go:build !vm

package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dst/abi"
	"dst/dataplane/trans"
)

const realSize = 16 << 20

// realClients is a served device, full of random bytes, for other people's
// clients.
type realClients struct {
	*memory
	uri, dir string
}

// run runs a client and returns what it printed.
func (r *realClients) run(t *testing.T, tool string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed: run tools/setup", tool)
		}
		t.Skipf("%s is not installed: run tools/setup", tool)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = r.dir
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", tool, strings.Join(args, " "), err, out.Bytes(), errors.Bytes())
	}
	return out.Bytes()
}

// content is the device's bytes now.
func (r *realClients) content() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.mem)
}

// asked reports whether the device was asked exactly that since the last call,
// among other things.
func (r *realClients) asked(want asked) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := slices.Contains(r.log, want)
	r.log = r.log[:0]
	return found
}

func (r *realClients) file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestRealClients(t *testing.T) {
	m := newMemorySized(t, realSize, 1<<20, 128, 32<<20)
	copy(m.mem, noise(realSize))
	m.logged = true
	s, path := serve(t, m)
	r := &realClients{m, "nbd+unix:///vol0?socket=" + path, t.TempDir()}
	for name, f := range map[string]func(*testing.T, *realClients){
		"nbdinfo": withNbdinfo, "nbdcopy": withNbdcopy, "qemu-img": withQemuImg, "qemu-io": withQemuIO, "fio": withFio,
	} {
		t.Run(name, func(t *testing.T) { f(t, r) })
		until(t, "the client is gone", func() bool { return s.Clients() == 0 })
	}
}

func withNbdinfo(t *testing.T, r *realClients) {
	var info struct {
		Exports []struct {
			Name string `json:"export-name"`
			Text string `json:"description"`
			Size uint64 `json:"export-size"`
			RO   bool   `json:"is_read_only"`
			FUA  bool   `json:"can_fua"`
			Trim bool   `json:"can_trim"`
			Zero bool   `json:"can_zero"`
			Many bool   `json:"can_multi_conn"`
			Min  uint64 `json:"block_size_minimum"`
			Pref uint64 `json:"block_size_preferred"`
			Max  uint64 `json:"block_size_maximum"`
		}
	}
	for _, args := range [][]string{{"--json", r.uri}, {"--json", "--list", strings.Replace(r.uri, "/vol0", "/", 1)}} {
		if err := json.Unmarshal(r.run(t, "nbdinfo", args...), &info); err != nil || len(info.Exports) != 1 {
			t.Fatalf("%d exports, %v", len(info.Exports), err)
		}
		e := info.Exports[0]
		if e.Name != "vol0" || e.Text != "dst remote vol0" || e.Size != realSize || e.RO || !e.FUA || !e.Trim || !e.Zero || !e.Many ||
			e.Min != 512 || e.Pref != 4096 || e.Max != 1<<20 {
			t.Errorf("nbdinfo sees %+v", e)
		}
	}
}

func withNbdcopy(t *testing.T, r *realClients) {
	out := filepath.Join(r.dir, "out")
	r.run(t, "nbdcopy", "--flush", r.uri, out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, r.content()) {
		t.Errorf("nbdcopy read other bytes than there are (%v)", err)
	}
	data := noise(realSize + 1)[1:]
	clear(data[1<<20 : 4<<20]) // becomes zeroes or a trim
	r.run(t, "nbdcopy", "--flush", "--connections=4", "--requests=64", r.file(t, "in", data), r.uri)
	if !bytes.Equal(r.content(), data) {
		t.Error("nbdcopy wrote other bytes than it read")
	}
	if !r.asked(asked{op: trans.Flush}) {
		t.Error("its flush did not arrive")
	}
}

func withQemuImg(t *testing.T, r *realClients) {
	out := filepath.Join(r.dir, "out.qcow2")
	r.run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", r.uri, out)
	r.run(t, "qemu-img", "compare", r.uri, out)
	data := noise(realSize)
	slices.Reverse(data)
	clear(data[8<<20 : 9<<20])
	in := r.file(t, "in", data)
	r.run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, r.uri)
	r.run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, r.uri)
	if !bytes.Equal(r.content(), data) {
		t.Error("qemu-img wrote other bytes than it read")
	}
}

func withQemuIO(t *testing.T, r *realClients) {
	for _, tt := range []struct {
		command string
		want    asked
	}{
		{"write -P 0x5a 4096 8192", asked{trans.Write, 0, 4096, 8192}},
		{"write -f -P 0x5b 64k 128k", asked{trans.Write, abi.FlagFUA, 64 << 10, 128 << 10}},
		{"write -z 1M 4M", asked{trans.Zero, abi.FlagNoHole, 4 << 20, 1 << 20}},
		{"write -z -u 1M 4M", asked{trans.Zero, 0, 4 << 20, 1 << 20}},
		{"discard 2M 8M", asked{trans.Discard, 0, 2 << 20, 8 << 20}},
		{"flush", asked{trans.Flush, 0, 0, 0}},
		{"read -P 0x5a 4096 8192", asked{trans.Read, 0, 4096, 8192}},
		{"read -P 0 1M 9M", asked{trans.Read, 0, 1 << 20, 1 << 20}},
	} {
		out := r.run(t, "qemu-io", "-f", "raw", "-t", "writeback", "-d", "unmap", "-c", tt.command, r.uri)
		if bytes.Contains(out, []byte("failed")) {
			t.Errorf("%s: %s", tt.command, out)
		}
		r.mu.Lock()
		log := slices.Clone(r.log)
		r.mu.Unlock()
		if !r.asked(tt.want) {
			t.Errorf("%s: the device was asked %+v, want %+v among them", tt.command, log, tt.want)
		}
	}
}

func withFio(t *testing.T, r *realClients) {
	for _, rw := range []string{"randrw", "write"} {
		r.run(t, "fio", "--name="+rw, "--ioengine=nbd", "--uri="+r.uri, "--rw="+rw, "--size=16m", "--bsrange=4k-256k", "--bs_unaligned=0",
			"--iodepth=16", "--fsync=8", "--verify=crc32c", "--verify_fatal=1", "--output-format=terse")
	}
	if !r.asked(asked{op: trans.Flush}) {
		t.Error("its flushes did not arrive")
	}
}
