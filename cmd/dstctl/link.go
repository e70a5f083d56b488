package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"dst/controlplane/client"
)

// errSilent says that a daemon is there but does not answer in time.
var errSilent = errors.New("no answer")

// link is a daemon behind netlink.
type link struct{ *client.Client }

// Subscribe implements api.
func (l link) Subscribe(ctx context.Context) (events, error) {
	e, err := l.Client.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Watch implements api.
func (l link) Watch(ctx context.Context) (updates, error) {
	w, err := l.Client.Watch(ctx)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// dialDaemon finds the daemon of this network namespace.
func dialDaemon(ctx context.Context) (api, error) {
	var o client.Options
	if end, ok := ctx.Deadline(); ok {
		o.Timeout = time.Until(end)
	}
	c, err := client.Dial(o)
	if isErrno(err, unix.ETIMEDOUT) {
		return nil, errSilent
	}
	if err != nil {
		return nil, err
	}
	return link{c}, nil
}

// blamed is the attribute that err blames, and how many of its type stand
// before it.
func blamed(err error) (attr uint16, nth int, ok bool) {
	if e, is := errors.AsType[*client.Error](err); is && len(e.Attr) > 0 {
		return e.Attr[0], e.Nth, true
	}
	return 0, 0, false
}

// isErrno tells whether the daemon or kernel answered with errno.
func isErrno(err error, errno unix.Errno) bool {
	found, ok := errors.AsType[unix.Errno](err)
	return ok && found == errno
}
