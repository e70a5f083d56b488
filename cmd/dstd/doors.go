package main

import (
	"errors"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane"
	"dst/controlplane/connector"
	"dst/controlplane/genl"
)

// sockets are where the doors listen. They are taken before anything else is
// touched, so that a second daemon changes nothing.
type sockets struct {
	control *genl.Socket
	legacy  *genl.Socket // nil: the kernel has no connector
}

// listen takes both ports. Only a kernel without the connector is no error: a
// stranger at its port would be sent the keys that are meant for the daemon.
func listen(log zerolog.Logger) (s sockets, err error) {
	if s.control, err = genl.Listen(abi.Port); err != nil {
		return s, err
	}
	s.legacy, err = connector.Listen()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		log.Warn().Err(err).Msg("tools of the original driver cannot be served: the kernel has no connector")
		return s, nil
	}
	if err != nil {
		s.close()
	}
	return s, err
}

// close gives the ports back, if no door owns them yet.
func (s sockets) close() {
	_ = s.control.Close()
	if s.legacy != nil {
		_ = s.legacy.Close()
	}
}

// doors are the ways into the daemon.
type doors struct {
	control *controlplane.Door
	legacy  *connector.Door // nil: none
}

// open makes the doors to p, which own the sockets from now on.
func open(p controlplane.Plane, s sockets, log zerolog.Logger) (d doors, err error) {
	if d.control, err = controlplane.New(p, s.control); err != nil {
		return d, err
	}
	if s.legacy != nil {
		d.legacy = connector.New(p, s.legacy, log)
	}
	return d, nil
}

// serve serves at all doors. broken gets a door's error, or nil once it is
// closed.
func (d doors) serve() (broken <-chan error) {
	ended := make(chan error, 2)
	// Started here. Ends when its door breaks or is closed.
	go func() { ended <- d.control.Serve() }()
	if d.legacy != nil {
		// Started here. Ends when its door breaks or is closed.
		go func() { ended <- d.legacy.Serve() }()
	}
	return ended
}

// close ends the service and waits for the requests in work.
func (d doors) close() error {
	if d.legacy == nil {
		return d.control.Close()
	}
	return errors.Join(d.legacy.Close(), d.control.Close())
}
