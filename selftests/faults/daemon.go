package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a dstd that is killed and started again. Its id is kept in the file "pid" of its directory, so that whoever started this
// program can end it.
type daemon struct {
	ns, dir string // network namespace, directory of run, state and log
	pid     int
	exited  chan struct{} // nil for one that somebody else started
}

// parseDaemon takes "NS DIR PID".
func parseDaemon(words string) (*daemon, error) {
	w := strings.Fields(words)
	if len(w) != 3 {
		return nil, fmt.Errorf("daemon %q: want NAMESPACE DIRECTORY PID", words)
	}
	pid, err := strconv.Atoi(w[2])
	return &daemon{ns: w[0], dir: w[1], pid: pid}, err
}

// kill ends it by SIGKILL and waits until nothing of it is left: what it had asked of its disk has then been done.
func (d *daemon) kill() error {
	if err := d.shoot(); err != nil {
		return err
	}
	return d.gone()
}

func (d *daemon) shoot() error { return unix.Kill(d.pid, unix.SIGKILL) }

func (d *daemon) gone() error {
	end := time.After(time.Minute)
	for d.alive() {
		select {
		case <-end:
			return fmt.Errorf("daemon %d does not die", d.pid)
		case <-d.exited:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// alive tells whether the process runs; a zombie does not, and one whose threads are not all gone does.
func (d *daemon) alive() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.pid))
	return !strings.HasPrefix(rest, "Z") || len(tasks) > 1
}

// start runs it again and returns when it is ready: its nodes are there, and exports listen.
func (d *daemon) start() error {
	path := filepath.Join(d.dir, "notify")
	_ = os.Remove(path)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("nsenter", "--net=/run/netns/"+d.ns, "--", *dstd,
		"-run", d.dir+"/run", "-state", d.dir+"/state", "-dev", d.dir+"/dev")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	d.pid, d.exited = cmd.Process.Pid, make(chan struct{})
	exited := d.exited
	go func() { _ = cmd.Wait(); close(exited) }()
	if err := os.WriteFile(filepath.Join(d.dir, "pid"), []byte(strconv.Itoa(d.pid)), 0o600); err != nil {
		return err
	}
	return d.ready(ready)
}

// ready waits for the daemon's word.
func (d *daemon) ready(c *net.UnixConn) error {
	b := make([]byte, 256)
	end := time.Now().Add(30 * time.Second)
	for time.Now().Before(end) {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(b)
		if err == nil && strings.HasPrefix(string(b[:n]), "READY=1") {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("the daemon of %s ended at its start: see its log", d.dir)
		default:
		}
	}
	return fmt.Errorf("the daemon of %s is not ready after 30 s", d.dir)
}
