package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// sniff copies every packet that this network namespace sends or receives, from
// its link header on, to w until SIGTERM. It says "listening" on stderr, and at
// the end how much it was and how much was missed.
func sniff(w io.Writer) error {
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "listening")
	var bytes int64
	for buf := make([]byte, 1<<17); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == nil:
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			bytes += int64(n)
			continue
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return err
		}
		select { // all that came is read
		case <-stop:
			stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err == nil {
				fmt.Fprintf(os.Stderr, "%d bytes, %d packets missed\n", bytes, stats.Drops)
			}
			return err
		default:
		}
	}
}
