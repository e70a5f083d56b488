// Command bench measures what a user of dst sees, beside what a user of nbdkit sees: an NBD client on a Unix socket, a process that
// carries its requests over TCP, and a process that serves a file.
//
//	dst      client - attach socket - dstd  - veth, TCP - dstd   - file
//	nbdkit   client - Unix socket   - nbdkit nbd - the same - nbdkit file - a file of the same size
//
// Each pair of processes stays up for the whole run, in two network namespaces that the program makes and removes. The client is its
// own (engine): it keeps DEPTH requests in flight, parses all replies of a receive and sends all new requests at once. Rounds of the
// two are interleaved, A B, B A, A B; what is shown is the median of the rounds. CPU is what the two serving processes used, the
// client's is not counted; what the kernel does for them in ksoftirqd is nobody's and is not counted either.
//
// -against compares two builds of dst in the same way, -channels what one build costs with and without checksum, authentication and
// encryption; each is held against the first.
//
// Before anything is timed, every byte read and written is verified, and afterwards every block of the files is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes.
const (
	exitDone  = 0
	exitUsage = 1
	exitFail  = 2
)

// options are the command line.
type options struct {
	bin, against        string
	dir, only, op       string
	congestion, profile string
	blocks, depths      []int
	channels            []string
	rounds, threads     int
	time, warm          time.Duration
	size                int64
	json                bool
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "Error: %v.\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := bench(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "Error: %v.\n", err)
		return exitFail
	}
	return exitDone
}

// parse reads the command line; flag.ErrHelp after the help was printed.
func parse(args []string, out io.Writer) (*options, error) {
	o := &options{size: 256 << 20}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.bin, "bin", "bin", "`directory` of dstd and dstctl")
	f.StringVar(&o.against, "against", "", "compare with dstd of another `directory` instead of nbdkit")
	f.Func("channels", "compare dst with itself over these `channels`: all, or some of "+strings.Join(channelNames(), ","), func(s string) (err error) {
		o.channels, err = parseChannels(s)
		return err
	})
	f.StringVar(&o.dir, "dir", "", "`directory` for the files that are served (default: a tmpfs of its own)")
	f.StringVar(&o.only, "only", "", "measure one `system` alone: dst or nbdkit")
	f.StringVar(&o.op, "op", "", "`read` or write cases alone")
	f.Func("bs", "cases of these block `sizes` alone: 4k,128k", func(s string) (err error) {
		o.blocks, err = parseList(s, parseBytes)
		return err
	})
	f.Func("depth", "cases of these `depths` alone: 1,16,64", func(s string) (err error) {
		o.depths, err = parseList(s, parseBytes)
		return err
	})
	f.Func("size", "`size` of each file (default 256m)", func(s string) error {
		n, err := parseBytes(s)
		o.size = int64(n)
		return err
	})
	f.IntVar(&o.rounds, "rounds", 3, "`number` of rounds")
	f.DurationVar(&o.time, "time", 3*time.Second, "`time` of one measurement")
	f.DurationVar(&o.warm, "warm", 300*time.Millisecond, "`time` before it that does not count")
	f.IntVar(&o.threads, "threads", 0, "`number` of threads of nbdkit (default: its own)")
	f.StringVar(&o.congestion, "congestion", "", "TCP congestion control, by `name` (default: the machine's)")
	f.StringVar(&o.profile, "profile", "", "`directory` for CPU profiles by perf, of runs that are not measured")
	f.BoolVar(&o.json, "json", false, "JSON instead of a table")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "Usage: bench [ OPTIONS ]")
			f.SetOutput(out)
			f.PrintDefaults()
		}
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("bench takes options only, not %q: see -h", f.Arg(0))
	}
	return o, o.check()
}

// check refuses options that cannot be carried out.
func (o *options) check() error {
	switch {
	case o.channels != nil && (o.only != "" || o.against != ""):
		return errors.New("-channels compares dst with itself: leave -only and -against out")
	case o.only != "" && len(o.names()) == 0:
		return fmt.Errorf("-only %s is nothing that is measured", o.only)
	case o.op != "" && o.op != "read" && o.op != "write":
		return fmt.Errorf("-op %s is neither read nor write", o.op)
	case o.rounds < 1 || o.time <= 0 || o.warm < 0 || o.threads < 0:
		return errors.New("-rounds, -time, -warm and -threads are positive")
	case o.size < verifySize || o.size%blockMax != 0:
		return fmt.Errorf("-size is a multiple of %d KiB and at least %d MiB", blockMax>>10, verifySize>>20)
	case len(o.cases()) == 0:
		return errors.New("no case is left: they are 4k depth 1, 16, 64 and 128k depth 16, read and write")
	}
	return nil
}

// Names of systems.
const (
	nameDST    = "dst"
	nameNbdkit = "nbdkit"
	nameOther  = "other" // another build of dst
)

// names are the systems to measure, in order.
func (o *options) names() (list []string) {
	if o.channels != nil {
		return o.channels
	}
	list = []string{nameDST, nameNbdkit}
	if o.against != "" {
		list[1] = nameOther
	}
	return slices.DeleteFunc(list, func(name string) bool { return o.only != "" && o.only != name })
}

// shape is what is measured: one kind of request, so many in flight.
type shape struct {
	op     string // read or write
	block  int    // bytes
	depth  int
	random bool
}

func (s shape) String() string {
	access := "sequential"
	if s.random {
		access = "random"
	}
	return fmt.Sprintf("%d KiB %s %s, depth %d", s.block>>10, access, s.op, s.depth)
}

// slug is the shape as part of a file's name.
func (s shape) slug() string { return fmt.Sprintf("%dk-%s-%d", s.block>>10, s.op, s.depth) }

// cases are the shapes to measure, in order.
func (o *options) cases() (list []shape) {
	for _, block := range []int{4 << 10, 128 << 10} {
		for _, op := range []string{"read", "write"} {
			for _, depth := range []int{1, 16, 64} {
				s := shape{op, block, depth, block == 4<<10}
				if (s.random || depth == 16) && wanted(o.blocks, block) && wanted(o.depths, depth) && (o.op == "" || o.op == op) {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

// wanted tells whether a filter lets v pass; an empty one lets everything.
func wanted(filter []int, v int) bool { return len(filter) == 0 || slices.Contains(filter, v) }

func parseList[T any](s string, one func(string) (T, error)) (list []T, err error) {
	for word := range strings.SplitSeq(s, ",") {
		n, err := one(word)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// parseBytes reads a positive number with an optional k, m or g (1024 each).
func parseBytes(s string) (int, error) {
	digits := strings.TrimRight(strings.ToLower(s), "kmg")
	shift, ok := map[string]int{"": 0, "k": 10, "m": 20, "g": 30}[strings.ToLower(s[len(digits):])]
	n, err := strconv.Atoi(digits)
	if err != nil || !ok || n < 1 || n > math.MaxInt>>shift {
		return 0, fmt.Errorf("%q is no size: write 4096, 4k, 256m or 1g", s)
	}
	return n << shift, nil
}
