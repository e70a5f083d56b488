package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestMain lets the test binary be the daemon, or try what it may not do, for
// tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("DSTD_TEST_RUN") != "" {
		os.Exit(run(os.Args[1:], os.Stderr))
	}
	if os.Getenv("DSTD_TEST_DENIED") != "" {
		tryDenied()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-h"}, exitDone, "Usage: dstd"},
		{[]string{"-V"}, exitDone, ""},
		{[]string{"-lgo-level", "info"}, exitUsage, "see dstd -h"},
		{[]string{"start"}, exitUsage, "options only"},
		{[]string{"-log-level", "loud"}, exitUsage, "none of debug"},
		{[]string{"-log-level", "disabled"}, exitUsage, "none of debug"},
		{[]string{"-run", ""}, exitUsage, "-run needs the path"},
		{[]string{"-log-format", "xml"}, exitUsage, "none of console"},
	} {
		var out bytes.Buffer
		if code := run(c.args, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("dstd %q: exit %d, %q", c.args, code, out.String())
		}
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{"json": `"message":"hello"`, "console": "hello"} {
		var out bytes.Buffer
		log, flush, err := newLog(options{logLevel: "info", logFormat: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Msg("hello")
		log.Debug().Msg("quiet")
		flush()
		if s := out.String(); !strings.Contains(s, want) || strings.Contains(s, "quiet") {
			t.Errorf("%s: %q", format, s)
		}
	}
}

// TestLogIsOneLine: text of others neither begins a line nor moves a cursor.
func TestLogIsOneLine(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out bytes.Buffer
		log, flush, err := newLog(options{logLevel: "info", logFormat: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		evil := "x\n2026 ERR all is lost\x1b[2J\u009b2J\r"
		log.Error().Err(errors.New(evil)).Str("name", evil).Msg(evil)
		flush()
		if s := out.String(); strings.Count(s, "\n") != 1 || strings.ContainsAny(s, "\x1b\r") || format == "console" && strings.ContainsRune(s, '\u009b') {
			t.Errorf("%s: %q", format, s)
		}
	}
}

func TestDirectoriesAreAbsolute(t *testing.T) {
	o, err := parse([]string{"-run", "here"}, io.Discard)
	if here, _ := os.Getwd(); err != nil || o.run != here+"/here" || o.state != "/var/lib/dst" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestRefusesWithoutNetAdmin runs the daemon as nobody.
func TestRefusesWithoutNetAdmin(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become nobody")
	}
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "/proc/self/exe", "-run", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// nobody may not read the test's own directory: the binary is copied to a place he can read
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/dstd", b, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/tmp" && d != "/"; d = d[:strings.LastIndex(d, "/")] {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Args[len(cmd.Args)-3] = dir + "/dstd"
	cmd.Env = append(os.Environ(), "DSTD_TEST_RUN=1")
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitFail || !strings.Contains(string(out), "CAP_NET_ADMIN") {
		t.Fatalf("%v, exit %d: %s", err, code, out)
	}
}

// TestLogReaderMayGo: the daemon outlives its terminal and whoever reads its
// log, and still stops in order.
func TestLogReaderMayGo(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-run", dir+"/run", "-state", dir+"/state", "-dev", dir+"/dev")
	cmd.Env = append(os.Environ(), "DSTD_TEST_RUN=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS} // its mounts stay its own
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the daemon runs in namespaces of its own, which needs root: %v", err)
	}
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), "serving") {
			break
		}
	}
	if err := errors.Join(log.Close(), cmd.Process.Signal(unix.SIGHUP), cmd.Process.Signal(unix.SIGTERM), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}

func TestEveryProtectionIsReported(t *testing.T) {
	got := protect([]shield{
		{"helmet", "buy one", func() error { return nil }},
		{"boots", "buy two", func() error { return unix.EPERM }},
	}, zerolog.Nop())
	want := []abi.Protection{{Name: "helmet", Active: true}, {Name: "boots", Reason: "operation not permitted: buy two"}}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v", got)
	}
}
