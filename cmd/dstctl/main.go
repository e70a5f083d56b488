// Dstctl configures dstd, the daemon of the network block device dst, over
// netlink, in the manner of ip(8). `dstctl help` says what it understands.
package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dst/dataplane/crypt"
)

//go:generate sh -c "go run . __man > ../../tools/man/dstctl.8"

// version is set by the linker.
var version = "unknown"

// world is what a run of dstctl touches outside itself.
type world struct {
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // both stdin and stdout are one
	names    names
	dial     dialer
	enter    func(netns string, args []string) error // go on in another network namespace
	open     func(path string) (io.ReadCloser, error)
	now      func() time.Time
	makeKey  func(path string) error
}

func main() {
	os.Exit(run(context.Background(), world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		terminal: isTerminal(os.Stdin) && isTerminal(os.Stdout),
		names:    systemNames(),
		dial:     dialDaemon,
		enter:    enterNetns,
		open:     func(path string) (io.ReadCloser, error) { return os.Open(path) },
		now:      time.Now,
		makeKey:  crypt.MakeKeyFile,
	}, os.Args[1:]))
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// run is one run of dstctl with the words behind its name. It returns the exit
// code.
func run(ctx context.Context, w world, args []string) int {
	s := &session{world: w, ctx: ctx, out: bufio.NewWriter(w.stdout)}
	defer s.close()
	code := s.hidden(args)
	if code < 0 {
		code = s.main(args)
	}
	if err := s.out.Flush(); err != nil && code == exitDone {
		(&fault{text: "the answer could not be written: " + err.Error(), at: -1}).report(w.stderr)
		code = exitRefused
	}
	return code
}

// hidden runs what is not for people: the answers for completion, and the
// manual page. It returns -1 if args are something else.
func (s *session) hidden(args []string) int {
	if len(args) == 0 {
		return -1
	}
	switch args[0] {
	case "__complete":
		words := args[1:]
		if len(words) > 0 && words[0] == "--" {
			words = words[1:]
		}
		s.complete(words)
	case "__man":
		writeManual(s.out)
	default:
		return -1
	}
	return exitDone
}

// main understands args and carries them out.
func (s *session) main(args []string) int {
	l := line{words: args}
	opts, pos, err := parseOptions(l)
	s.opts = opts
	switch {
	case err != nil:
		return s.fail(err, nil)
	case opts.help:
		writeUsage(s.out)
		return exitDone
	case opts.version:
		s.printf("dstctl %s\n", version)
		return exitDone
	case opts.netns != "" && s.enter != nil:
		return s.fail(s.enter(opts.netns, args), nil)
	case opts.batch != "":
		return s.batch()
	case pos == len(args) && pos > 0 && opts.human:
		writeUsage(s.out)
		return exitDone
	case pos == len(args):
		writeUsage(s.stderr)
		return exitMistake
	}
	r, err := parse(s.ctx, s.names, l, pos, s.terminal && !opts.json)
	if err == nil {
		err = s.do(r)
	}
	if err == nil {
		err = errors.Join(s.await(opts.wait)...) // of one command, at most one
	}
	return s.fail(err, r)
}
