package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// undo is what is to be done at the end, in reverse order.
type undo []func() error

func (u *undo) later(f func() error) { *u = append(*u, f) }

func (u *undo) run() (err error) {
	for i := len(*u) - 1; i >= 0; i-- {
		err = errors.Join(err, (*u)[i]())
	}
	*u = nil
	return err
}

// call runs a command to its end. Its output is part of the error.
func call(ctx context.Context, words ...string) (string, error) {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// host is a network namespace, by name.
type host string

// in is a command to be run there. ip becomes the command, so that the process number is the command's own.
func (h host) in(words ...string) []string {
	return append([]string{"ip", "netns", "exec", string(h)}, words...)
}

// The two ends of the cable.
const (
	nearAddr = "10.77.0.2"
	farAddr  = "10.77.0.1"
	network  = "10.77.0.0/24"
	cable    = "bench0"
)

// connect makes two hosts with a cable between them, for the system of that name. congestion is the TCP congestion control of both,
// or "".
func connect(ctx context.Context, u *undo, name, congestion string) (near, far host, err error) {
	prefix := fmt.Sprintf("dst-bench-%d-%s-", os.Getpid(), name)
	near, far = host(prefix+"near"), host(prefix+"far")
	for _, h := range []host{near, far} {
		if _, err := call(ctx, "ip", "netns", "add", string(h)); err != nil {
			return near, far, err
		}
		u.later(func() error {
			_, err := call(context.Background(), "ip", "netns", "del", string(h))
			return err
		})
	}
	steps := [][]string{{"ip", "link", "add", cable, "netns", string(near), "type", "veth", "peer", "name", cable, "netns", string(far)}}
	for _, h := range []host{near, far} {
		addr := nearAddr
		if h == far {
			addr = farAddr
		}
		steps = append(steps, []string{"ip", "-n", string(h), "addr", "add", addr + "/24", "dev", cable},
			[]string{"ip", "-n", string(h), "link", "set", "lo", "up"}, []string{"ip", "-n", string(h), "link", "set", cable, "up"})
		if congestion != "" {
			// By the route: a namespace may only choose among the allowed for all its connections.
			steps = append(steps, []string{"ip", "-n", string(h), "route", "replace", network, "dev", cable, "proto", "kernel",
				"scope", "link", "src", addr, "congctl", congestion})
		}
	}
	for _, step := range steps {
		if _, err := call(ctx, step...); err != nil {
			return near, far, err
		}
	}
	return near, far, nil
}

// process is a server that runs until it is stopped.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// start runs a command on a host; its output goes to the file log. It dies with this program, whatever ends that.
func start(u *undo, h host, log string, words ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	words = h.in(words...)
	p := &process{cmd: exec.Command(words[0], words[1:]...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own: the terminal's interrupt is for this program, which then stops its servers in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.wait()
	u.later(p.stop)
	return p, nil
}

// wait takes the process's end. Started by start. Owns cmd.Wait. Ends when the process ends.
func (p *process) wait() {
	_ = p.cmd.Wait() // how it ended is in cmd.ProcessState
	close(p.done)
}

// stop ends the process, by force if it does not go within 5 s.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}

// fault is an error if the process has ended, with the last lines of what it said.
func (p *process) fault() error {
	select {
	case <-p.done:
		text, _ := os.ReadFile(p.log)
		return fmt.Errorf("%s ended (%v): %s", strings.Join(p.cmd.Args, " "), p.cmd.ProcessState, tail(string(text), 5))
	default:
		return nil
	}
}

// tail is the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// retry calls f until it succeeds, for up to 10 s, while the processes live.
func retry(ctx context.Context, f func() error, alive ...*process) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return nil
		}
		for _, p := range alive {
			if fault := p.fault(); fault != nil {
				return fault
			}
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
