// Command dstd is the data-plane daemon: it owns the exports and remotes of a
// network namespace, their sockets, memory and devices. dstctl configures it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/diode"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane"
	"dst/dataplane"
	"dst/dataplane/nbd"
)

// version is set by the linker, see the Makefile.
var version = "devel"

// Exit codes.
const (
	exitDone  = 0
	exitUsage = 1 // the command line was not understood
	exitFail  = 2 // the kernel or another daemon refused
)

// options are the command line.
type options struct {
	run, state, dev     string
	logLevel, logFormat string
	version             bool
}

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "Error: %v.\n", err)
		return exitUsage
	case o.version:
		fmt.Println("dstd", version)
		return exitDone
	}
	log, flush, err := newLog(o, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "Error: %v.\n", err)
		return exitUsage
	}
	defer flush()
	if err := serve(o, log); err != nil {
		log.Error().Msg(err.Error())
		return exitFail
	}
	return exitDone
}

const usage = `Usage: dstd [ OPTIONS ]
The daemon of dst: exports local storage and attaches remote storage. It is
configured by dstctl(8). One daemon runs per network namespace.

  -run DIR          what must outlive the daemon but not the host, on tmpfs
                    (default /run/dst)
  -state DIR        what must outlive the host (default /var/lib/dst)
  -dev DIR          links to the devices (default /dev/dst)
  -log-level LEVEL  debug, info, warn or error (default info)
  -log-format FMT   console or json (default console)
  -V                print the version
  -h                print this help
`

// parse reads the command line; flag.ErrHelp after the help was printed.
func parse(args []string, out io.Writer) (o options, err error) {
	f := flag.NewFlagSet("dstd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.run, "run", "/run/dst", "")
	f.StringVar(&o.state, "state", "/var/lib/dst", "")
	f.StringVar(&o.dev, "dev", "/dev/dst", "")
	f.StringVar(&o.logLevel, "log-level", "info", "")
	f.StringVar(&o.logFormat, "log-format", "console", "")
	f.BoolVar(&o.version, "V", false, "")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
		return o, flag.ErrHelp
	case err != nil:
		return o, fmt.Errorf("%w: see dstd -h", err)
	case f.NArg() > 0:
		return o, fmt.Errorf("dstd takes options only, not %q: see dstd -h", f.Arg(0))
	}
	for name, dir := range map[string]*string{"-run": &o.run, "-state": &o.state, "-dev": &o.dev} {
		if *dir == "" {
			return o, fmt.Errorf("%s needs the path of a directory: see dstd -h", name)
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return o, fmt.Errorf("%s %q can not be made absolute: %w", name, *dir, err)
		}
	}
	return o, nil
}

// levels are those that -log-level takes.
var levels = []string{"debug", "info", "warn", "error"}

// newLog makes the log. It never blocks who writes to it: what a stuck reader
// does not take is counted and lost. flush ends it.
func newLog(o options, stderr io.Writer) (log zerolog.Logger, flush func(), err error) {
	level, err := zerolog.ParseLevel(o.logLevel)
	if err != nil || !slices.Contains(levels, o.logLevel) {
		return log, nil, fmt.Errorf("log level %q is none of %s", o.logLevel, strings.Join(levels, ", "))
	}
	switch o.logFormat {
	case "json":
	case "console":
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.RFC3339, NoColor: true, FormatMessage: oneLine}
	default:
		return log, nil, fmt.Errorf("log format %q is none of console, json", o.logFormat)
	}
	ring := diode.NewWriter(stderr, 1024, 0, func(missed int) {
		fmt.Fprintf(stderr, `{"level":"warn","message":"%d log lines were lost"}`+"\n", missed)
	})
	return zerolog.New(ring).Level(level).With().Timestamp().Logger(), func() { _ = ring.Close() }, nil
}

// oneLine is a message for people: what a peer or a file's name put into it
// moves no cursor and begins no line. zerolog quotes the fields itself.
func oneLine(message any) string {
	text, _ := message.(string)
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// serve runs the daemon until it is told to stop.
func serve(o options, log zerolog.Logger) error {
	if err := needNetAdmin(); err != nil {
		return err
	}
	if err := startAgain(loadModules); err != nil {
		return err
	}
	unix.Umask(0o077)
	protections := protect(shields, log)
	socks, err := listen(log)
	if err != nil {
		return err
	}
	var door doors // opened before the plane has anything to tell
	plane, err := dataplane.New(dataplane.Config{Version: version, RunDir: o.run, StateDir: o.state, DevDir: o.dev,
		Log: log, Notify: func(e abi.Event) { door.control.Notify(e) }})
	if err != nil {
		socks.close()
		return err
	}
	defer plane.Close()
	protections = append(protections, protect(lateShields, log)...)
	self := &daemonPlane{Plane: plane, protections: protections}
	if door, err = open(self, socks, log); err != nil {
		socks.close()
		return err
	}
	self.door = door.control
	plane.Restore()
	broken := door.serve()
	// Neither the end of a terminal nor that of a reader of the log is a reason
	// to stop serving storage.
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	log.Info().Str("version", version).Int("pid", os.Getpid()).Msg("serving")
	notify(log, daemon.SdNotifyReady)
	select {
	case s := <-stop:
		log.Info().Stringer("signal", s).Msg("stopping")
	case err = <-broken:
		log.Error().Err(err).Msg("a control door broke")
	}
	notify(log, daemon.SdNotifyStopping)
	if cerr := door.close(); cerr != nil {
		log.Warn().Err(cerr).Msg("the control doors did not close cleanly")
	}
	return err
}

// loadModules loads what the kernel's devices need as long as that is allowed. A
// kernel without it is no error: who wants a device is told then.
func loadModules() { _ = nbd.LoadModule() }

// notify tells the service manager, if there is one.
func notify(log zerolog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Msg("the service manager was not told")
	}
}

// daemonPlane is the Plane with what only the daemon knows of itself.
type daemonPlane struct {
	*dataplane.Plane
	protections []abi.Protection
	door        *controlplane.Door
}

// Sys adds the protections and the door's subscribers.
func (p *daemonPlane) Sys() abi.Sys {
	s := p.Plane.Sys()
	s.Protections = p.protections
	s.Subscribers = uint32(p.door.Counts().Subscribers)
	return s
}
