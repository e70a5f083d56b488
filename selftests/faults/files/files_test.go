package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is two files, and a raw disk with both behind a gap.
func made(t *testing.T) (f *Files, raw string) {
	t.Helper()
	dir := t.TempDir()
	raw = filepath.Join(dir, "raw")
	f, err := New(dir, raw, 0)
	if err != nil {
		t.Fatal(err)
	}
	save(t, raw)
	if err := f.Find(); err != nil {
		t.Fatal(err)
	}
	return f, raw
}

// save makes the raw disk what the files are.
func save(t *testing.T, raw string) {
	t.Helper()
	disk := make([]byte, 1536)
	for _, name := range []string{"through", "past"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(raw), name))
		if err != nil {
			t.Fatal(err)
		}
		disk = append(disk, b...)
	}
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
}

func says(t *testing.T, f *Files, order, want string) {
	t.Helper()
	if got, err := f.Do(order); err != nil || !strings.HasPrefix(got, want) {
		t.Errorf("%s: %q, %v; want %q", order, got, err, want)
	}
}

func complains(t *testing.T, f *Files, order, about string) {
	t.Helper()
	if _, err := f.Do(order); err == nil || !strings.Contains(err.Error(), about) {
		t.Errorf("%s: %v, want something about %q", order, err, about)
	}
	f.bad = nil
}

func TestGoodFiles(t *testing.T) {
	f, _ := made(t)
	says(t, f, "check", "ok 0 writes 0 flushes 0 reads")
	says(t, f, "lost", "ok 0 of 0")
	f.Start()
	for f.writes.Load() < 100 || f.reads.Load() < 10 {
		says(t, f, "check", "ok ")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestLosses(t *testing.T) {
	f, raw := made(t)
	defer func() { _ = f.Close() }()
	one := f.files[0]
	if err := f.write(one, aligned(2), 7); err != nil {
		t.Fatal(err)
	}
	says(t, f, "check", "ok ")
	says(t, f, "lost", "ok 16 of 16")
	save(t, raw)
	says(t, f, "lost", "ok 0 of 16")
	if err := f.write(one, aligned(1), 7); err != nil {
		t.Fatal(err)
	}
	if err := one.flush(unix.Fdatasync); err != nil {
		t.Fatal(err)
	}
	complains(t, f, "lost", "was durable")
	save(t, raw)
	says(t, f, "lost", "ok 0 of 0")
	complains(t, f, "look", "not understood")
}

func TestBadFiles(t *testing.T) {
	f, raw := made(t)
	defer func() { _ = f.Close() }()
	one, old := f.files[1], aligned(1)
	if _, err := unix.Pread(one.fd, old, 5*blockSize); err != nil {
		t.Fatal(err)
	}
	if err := f.write(one, aligned(1), 5); err != nil {
		t.Fatal(err)
	}
	save(t, raw)
	for _, bad := range []struct {
		what  string
		bytes []byte
		at    int64
	}{
		{"want", old[:512], 5*blockSize + 1024}, // an older version
		{"stamp", old[512:1024], 5 * blockSize}, // of another sector
		{"stamp", old[:300], 5 * blockSize},     // torn
		{"stamp", make([]byte, 512), 5 * blockSize},
	} {
		if bad.what == "want" {
			bad.bytes = old[1024:1536]
		}
		good := make([]byte, len(bad.bytes))
		_, _ = unix.Pread(one.fd, good, bad.at)
		_, _ = unix.Pwrite(one.fd, bad.bytes, bad.at)
		complains(t, f, "check", bad.what)
		_, _ = unix.Pwrite(one.fd, good, bad.at)
		says(t, f, "check", "ok ")
	}
}
