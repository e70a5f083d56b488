// Command faults lets the two daemons of a device suffer and looks whether it keeps its promises.
//
//	faults disk DIRECTORY SIZE CONTROL      a disk that can be lost, as the file DIRECTORY/disk; orders at the Unix socket CONTROL
//	faults files DIRECTORY DISK CONTROL     writers of files of a mounted file system, which lie on that disk in the end; orders likewise
//	faults load [OPTION...] SOCKET NAME     writers at the socket of a remote, and faults of one kind; "faults load -h" lists them
//
// Every sector that the writers write bears a stamp, and every answer is held against all that was answered before: see package
// history. A disk takes the words of disk.Usage, a line each, and answers each ("cutproxy -send CONTROL WORDS" sends one); writers of
// files know "check", which holds the files against what was acknowledged, and "lost", which holds the disk against it after a loss of
// power. Both end at SIGTERM; "load" ends by itself, prints what it saw, and exits 1 if that must not be.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dst/selftests/faults/disk"
	"dst/selftests/faults/files"
	"dst/selftests/faults/history"
	"dst/tools/cutproxy"
)

var dstd *string

func main() {
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[1] == "disk":
		err = serveDisk(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "files":
		err = serveFiles(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) > 1 && os.Args[1] == "load":
		err = runLoad(os.Args[2:])
	default:
		fmt.Fprintf(os.Stderr, "Usage: faults disk DIRECTORY SIZE CONTROL\n       faults files DIRECTORY DISK CONTROL\n       faults load [OPTION...] SOCKET NAME\nOrders of a disk:\n%s\n", disk.Usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Println("faults:", err)
		os.Exit(1)
	}
}

// serveDisk is a disk until SIGTERM.
func serveDisk(dir, size, control string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	d, err := disk.New(dir, n)
	if err != nil {
		return err
	}
	return errors.Join(serve(control, d.Do), d.Close())
}

// serveFiles is writers of files until SIGTERM.
func serveFiles(dir, raw, control string) error {
	f, err := files.New(dir, raw, unix.O_DIRECT)
	if err != nil {
		return err
	}
	if err := f.Find(); err != nil {
		return err
	}
	f.Start()
	return errors.Join(serve(control, f.Do), f.Close())
}

// serve takes orders at a socket until SIGTERM.
func serve(control string, do func(line string) (string, error)) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	ln, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = disk.Serve(c, c, do); c.Close() }()
		}
	}()
	fmt.Println("ready")
	<-stop
	return ln.Close()
}

// runLoad is a campaign.
func runLoad(args []string) error {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	kind := f.String("fault", "", "that `kind`: cut, hole, damage (of the connection); export, client, both (daemons killed); read, write, sync, erase (errors of the disk); mix (connection and daemons)")
	count := f.Int("n", 10, "that many")
	writers, depth := f.Int("writers", 8, "clients"), f.Int("depth", 32, "requests in flight of each")
	gap := f.Duration("gap", 80*time.Millisecond, "between their bursts, on average")
	span := f.Duration("for", 2*time.Second, "how long, without faults")
	export, client := f.String("export", "", "its daemon: `\"NAMESPACE DIRECTORY PID\"`"), f.String("client", "", "the remote's daemon")
	proxy := f.String("proxy", "", "`LISTEN=TARGET`: be a proxy between them")
	control := f.String("disk", "", "the `socket` that the export's disk takes orders at")
	most := f.Uint64("errors", 0, "answers that may be errors")
	seed := f.Uint64("seed", rand.Uint64(), "of all that is random")
	every := f.String("each", "", "for `FROM:TO:STEP`: the k-th such operation of the disk fails, for each of these k in a load of its own (-n is not used, -errors is for one k)")
	dstd = f.String("dstd", "dstd", "the daemon's program")
	_ = f.Parse(args)
	if f.NArg() != 2 || *kind != "" && *kind != "mix" && faults[*kind] == nil {
		f.Usage()
		os.Exit(2)
	}
	c := &campaign{rnd: rand.New(rand.NewPCG(*seed, 0)), disk: *control,
		first: map[string][]time.Duration{}, all: map[string][]time.Duration{}}
	var err error
	if *export != "" {
		if c.export, err = parseDaemon(*export); err != nil {
			return err
		}
	}
	if *client != "" {
		if c.client, err = parseDaemon(*client); err != nil {
			return err
		}
	}
	if from, to, ok := strings.Cut(*proxy, "="); ok {
		if c.proxy, err = cutproxy.New(from, to); err != nil {
			return err
		}
		defer func() { _ = c.proxy.Close() }()
	}
	dial := func(seed uint64) (*load, error) { return dialLoad(f.Arg(0), f.Arg(1), *writers, *depth, *gap, seed) }
	fmt.Println("seed:", *seed)
	if *every != "" {
		e, err := parseEach(*every)
		if err != nil {
			return err
		}
		e.campaign, e.op = *c, *kind
		return e.run(dial, *most, *seed)
	}
	if c.l, err = dial(*seed); err != nil {
		return err
	}
	c.l.h.Lenient, c.l.h.Mortal = *most > 0, *kind == "client" || *kind == "both" || *kind == "mix"
	c.l.start()
	if *kind == "" {
		time.Sleep(*span)
	} else {
		err = c.run(*kind, *count)
	}
	return c.judge(err, *most)
}

// dialLoad is newLoad, for a socket that may still have to appear.
func dialLoad(sock, name string, writers, depth int, gap time.Duration, seed uint64) (l *load, err error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if l, err = newLoad(sock, name, writers, depth, gap, seed); err == nil {
			return l, nil
		}
	}
	return nil, err
}

// judge ends the load, looks at all that is left and tells of it.
func (c *campaign) judge(err error, most uint64) error {
	err = c.settle(err, most)
	c.tell()
	ended := c.l.h.Ended()
	fmt.Printf("time: %d requests answered, %d of them with an error, %d never; %d sectors lost by the disk\n",
		ended[history.Done]+ended[history.Failed], ended[history.Failed], ended[history.Unknown], c.lost)
	return err
}

// settle ends the load and looks at all that is left.
func (c *campaign) settle(err error, most uint64) error {
	l := c.l
	if err != nil {
		l.h.Complain(err.Error())
	}
	if !l.end(recoveryLimit) {
		l.h.Complain(fmt.Sprintf("%d requests were not answered within %v", l.h.Open(), recoveryLimit))
	} else if err := l.readAll(); err != nil {
		l.h.Complain("reading all in the end: " + err.Error())
	}
	if n := l.errs.Load(); n > most {
		l.h.Complain(fmt.Sprintf("%d answers were errors, %d may be:\n    %s", n, most, strings.Join(l.firstErrors, "\n    ")))
	}
	n, first := l.h.Violations()
	for _, v := range first {
		fmt.Println("violation:", v)
	}
	if n > 0 {
		return fmt.Errorf("%d violations", n)
	}
	return nil
}
