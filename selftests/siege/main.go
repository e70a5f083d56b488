// Command siege has good clients at work on an export, alone and beside bad ones, and prints, as JSON, what the good ones felt and
// what the export's daemon took.
//
//	siege [-bad N] [-rate N] [-from PREFIX] [-good N] [-at ADDRESS] [-key FILE] [-pid PID] [-alone TIME] HOST:PORT EXPORT
//
// A bad client says nothing, sends a byte every 4 s, has a wrong key (without -key: a wrong name) or sends garbage, in turn, and goes when the
// export closes its connection. The good ones are at one address, and so is a newcomer, who connects again and again. The bad ones are a
// process of their own, as they would be on other hosts: what good ones feel is not to depend on how this program serves its bad ones.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

// siege is what the command line asks for.
type siege struct {
	addr, export string
	from         netip.Prefix // of the bad
	at           netip.Addr   // of the good
	key, wrong   *crypt.Key   // nil: a plain export
	pool         *crypt.Pool
	bad, rate    int
	good, pid    int
	alone        time.Duration
	strangers    bool // this is the process of the bad
}

// result is what is printed. Times are in microseconds but where they say so.
type result struct {
	Quiet    felt  `json:"quiet"` // before and after
	During   felt  `json:"during"`
	Newcomer visit `json:"newcomer"`
	Breaks   int   `json:"breaks"` // links of good clients that were cut
	Bad      count `json:"bad"`
	Seconds  int   `json:"seconds"` // of the siege
	Daemon   taken `json:"daemon"`
}

func main() {
	s, err := parse()
	switch {
	case err != nil:
	case s.strangers:
		err = json.NewEncoder(os.Stdout).Encode(s.attack())
	default:
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "siege:", err)
		os.Exit(1)
	}
}

func parse() (s *siege, err error) {
	s = &siege{pool: crypt.NewPool(1)}
	flag.IntVar(&s.bad, "bad", 1000, "bad clients in all")
	flag.IntVar(&s.rate, "rate", 1000, "of them in a second")
	flag.TextVar(&s.from, "from", netip.MustParsePrefix("127.0.1.0/24"), "their addresses")
	flag.IntVar(&s.good, "good", 8, "good clients")
	flag.TextVar(&s.at, "at", netip.MustParseAddr("127.0.2.1"), "their address")
	file := flag.String("key", "", "the key of the export")
	flag.IntVar(&s.pid, "pid", 0, "the export's daemon")
	flag.DurationVar(&s.alone, "alone", 3*time.Second, "how long the good ones are alone before and after")
	flag.BoolVar(&s.strangers, "strangers", false, "only the bad clients; prints what became of them")
	flag.Parse()
	s.addr, s.export = flag.Arg(0), flag.Arg(1)
	if flag.NArg() != 2 || s.pid == 0 {
		return nil, fmt.Errorf("want -pid PID HOST:PORT EXPORT")
	}
	if *file == "" {
		return s, nil
	}
	suite, err := crypt.ParseSuite("gcm(aes)", "", false)
	if err != nil {
		return nil, err
	}
	key, err := crypt.ReadKeyFile(*file)
	if err != nil {
		return nil, err
	}
	if s.key, err = crypt.NewKey(suite, key, nil); err != nil {
		return nil, err
	}
	key[0] ^= 1
	s.wrong, err = crypt.NewKey(suite, key, nil)
	return s, err
}

// run is the whole of it.
func (s *siege) run() error {
	var r result
	var all sync.WaitGroup
	stop, clients := make(chan struct{}), make([]*client, s.good)
	for i := range clients {
		c, err := s.connect(s.at)
		if err != nil {
			return fmt.Errorf("good client %d: %w", i, err)
		}
		clients[i] = c
		all.Go(func() { s.work(c, uint64(i), stop) })
	}
	d := daemon{pid: s.pid}
	d.look()
	r.Daemon = taken{RSSBefore: d.rss, FDsBefore: d.fds}
	time.Sleep(s.alone) // the length of the first measurement
	for _, c := range clients {
		r.Quiet.add(c.take())
	}
	began := time.Now()
	over := make(chan struct{})
	all.Go(func() { d.watch(over) })
	all.Go(func() { r.Newcomer = s.visits(over) })
	err := strangers(&r.Bad)
	r.Seconds = int(time.Since(began).Seconds() + 0.5)
	close(over)
	for _, c := range clients {
		r.During.add(c.take())
	}
	time.Sleep(s.alone) // the length of the last measurement
	for _, c := range clients {
		r.Quiet.add(c.take())
	}
	close(stop)
	all.Wait()
	for _, c := range clients {
		r.Breaks += c.breaks
	}
	r.Quiet.sum()
	r.During.sum()
	r.Daemon.RSSMost, r.Daemon.FDsMost = d.mostRSS, d.mostFDs
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&r)
}

// strangers runs the attack in a process that goes when this one does.
func strangers(n *count) error {
	runtime.LockOSThread() // the death of this thread is what the other is told of
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, append([]string{"-strangers"}, os.Args[1:]...)...) //nolint:gosec // it is this program
	c.Stderr, c.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("the bad clients: %w", err)
	}
	return json.Unmarshal(out, n)
}

// secure makes a secure channel of a connection, as a client with that key.
func (s *siege) secure(st conn.Stream, k *crypt.Key) (conn.Stream, error) {
	c, err := conn.Initiate(st, k, s.pool)
	if err != nil {
		return nil, err
	}
	return c, c.Ready()
}
