package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// volume is the name of what is served.
const volume = "vol0"

// system is one of those that are compared, up and running.
type system struct {
	name      string
	version   string
	near, far *process // the one the client speaks to, and the one that has the file
	socket    string
	file      string
	engine    *engine
}

// site is where a system is built: two hosts, and files of the system's name.
type site struct {
	name      string
	near, far host
	dir       string // on tmpfs: sockets, logs, what the daemons keep
	data      string // the files that are served
	undo      *undo
}

// path is a file of the system's in the directory dir.
func (s *site) path(dir, ending string) string { return filepath.Join(dir, s.name+ending) }

// newDST starts two daemons of the directory bin, an export and a remote, over a channel if one is given.
func (s *site) newDST(ctx context.Context, bin string, c *channel) (*system, error) {
	y := &system{name: s.name, socket: s.path(s.dir, ".sock"), file: s.path(s.data, ".img")}
	dstd, dstctl := filepath.Join(bin, "dstd"), filepath.Join(bin, "dstctl")
	version, err := call(ctx, dstd, "-V")
	if err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	y.version = strings.TrimSpace(version)
	daemon := func(h host, end string) (*process, error) {
		dir := s.path(s.dir, end)
		p, err := start(s.undo, h, dir+".log", dstd, "-run", filepath.Join(dir, "run"), "-state", filepath.Join(dir, "state"),
			"-dev", filepath.Join(dir, "dev"))
		if err != nil {
			return nil, err
		}
		return p, retry(ctx, func() error { _, err := call(ctx, h.in(dstctl, "sys", "show")...); return err }, p)
	}
	if y.far, err = daemon(s.far, "-far"); err != nil {
		return nil, err
	}
	if y.near, err = daemon(s.near, "-near"); err != nil {
		return nil, err
	}
	addr := "tcp:" + farAddr + ":9876"
	steps := [][]string{
		s.far.in(dstctl, "export", "add", volume, "device", y.file, "listen", addr),
		s.far.in(dstctl, "security", "add", volume, "any", "rw"),
		s.near.in(dstctl, "remote", "add", volume, "peer", addr, "attach", "socket", y.socket),
	}
	if c != nil {
		key := s.path(s.dir, ".key")
		if c.keyed {
			steps = append(steps, []string{dstctl, "key", "gen", key})
		}
		words := append([]string{dstctl}, c.words(key)...)
		steps = append(steps, s.far.in(words...), s.near.in(words...))
	}
	for _, step := range append(steps, s.far.in(dstctl, "start", volume), s.near.in(dstctl, "start", volume)) {
		if _, err := call(ctx, step...); err != nil {
			return nil, errors.Join(err, y.near.fault(), y.far.fault())
		}
	}
	return y, nil
}

// newNbdkit starts nbdkit's file plugin, and before it nbdkit's nbd plugin. threads is how many each has, 0: as it likes.
func (s *site) newNbdkit(ctx context.Context, threads int) (*system, error) {
	y := &system{name: s.name, socket: s.path(s.dir, ".sock"), file: s.path(s.data, ".img")}
	version, err := call(ctx, "nbdkit", "--version")
	if err != nil {
		return nil, fmt.Errorf("%w (tools/setup installs it)", err)
	}
	y.version = strings.TrimSpace(version)
	const port = "10809"
	nbdkit := []string{"nbdkit", "-f"}
	if threads > 0 {
		nbdkit = append(nbdkit, "-t", strconv.Itoa(threads))
	}
	with := func(words ...string) []string { return append(nbdkit[:len(nbdkit):len(nbdkit)], words...) }
	y.far, err = start(s.undo, s.far, s.path(s.dir, "-far.log"), with("-i", farAddr, "-p", port, "-e", volume, "file", y.file)...)
	if err != nil {
		return nil, err
	}
	y.near, err = start(s.undo, s.near, s.path(s.dir, "-near.log"),
		with("-U", y.socket, "nbd", "hostname="+farAddr, "port="+port, "export="+volume)...)
	return y, err
}

// open connects the client.
func (y *system) open(ctx context.Context, u *undo, p pattern, size int64) error {
	return retry(ctx, func() error {
		c, err := dial(y.socket, volume)
		if err != nil {
			return err
		}
		if c.size != uint64(size) {
			c.close()
			return fmt.Errorf("%s shows a device of %d bytes instead of %d", y.name, c.size, size)
		}
		y.engine = newEngine(c, p)
		u.later(func() error { c.leave(); c.close(); return nil })
		return nil
	}, y.near, y.far)
}

// verifySize is how much of a device is written and read again before anything is timed, bytes.
const verifySize = 16 << 20

// verify writes and reads with a look at every byte: first what the file holds, then what the client wrote.
func (y *system) verify() error {
	area, whole := uint64(verifySize), y.engine.c.size
	jobs := []job{
		{shape: shape{"read", blockMin, 64, true}, area: whole, count: 8192, check: true},
		{shape: shape{"read", blockMax, 16, false}, area: whole, count: whole / blockMax, check: true},
		{shape: shape{"write", blockMin, 64, false}, area: area / 2, count: area / 2 / blockMin, gen: genVerified},
		{shape: shape{"write", blockMax, 16, false}, area: area, count: area / blockMax, gen: genVerified},
		{shape: shape{"write", blockMin, 16, false}, area: area / 2, count: area / 2 / blockMin, gen: genVerified},
		{shape: shape{"read", blockMin, 64, true}, area: area, count: 8192, gen: genVerified, check: true},
		{shape: shape{"read", blockMax, 16, false}, area: area, count: area / blockMax, gen: genVerified, check: true},
		{shape: shape{"read", blockMin, 1, true}, area: area, count: 64, gen: genVerified, check: true},
	}
	for _, j := range jobs {
		if err := y.engine.run(j); err != nil {
			return fmt.Errorf("%s, verifying: %w", y.name, errors.Join(err, y.near.fault(), y.far.fault()))
		}
	}
	return nil
}
