package conn

import (
	"errors"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// advice says what to do about a failed connect, listen or socket call.
func advice(err error, a abi.Addr) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	if s := familyAdvice(errno, a); s != "" {
		return s
	}
	switch errno {
	case unix.ECONNREFUSED:
		return ": is dstd running there and the export started?"
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN:
		return ": is the host up, and do routes and firewalls let this port through?"
	case unix.EACCES, unix.EPERM:
		return ": a firewall or a security policy of this host forbids it"
	case unix.EADDRINUSE:
		return ": somebody listens there already: choose another address, or stop them"
	case unix.EADDRNOTAVAIL:
		return ": this host has no such address"
	case unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.EPROTOTYPE, unix.ENOPROTOOPT:
		return lacking(a)
	case unix.EMFILE, unix.ENFILE:
		return ": raise the limit of open files"
	}
	return ""
}

// familyAdvice is what an error means in a's family only.
func familyAdvice(errno unix.Errno, a abi.Addr) string {
	switch a.Family() {
	case unix.AF_UNIX:
		switch errno {
		case unix.ENOENT:
			return ": does the daemon behind it run, and is the path right?"
		case unix.EACCES, unix.EPERM:
			return ": the permissions of the socket or of a directory above it forbid it"
		}
	case unix.AF_VSOCK:
		switch errno {
		case unix.ECONNRESET: // how vsock refuses
			return ": is dstd running there and the export started?"
		case unix.ENODEV, unix.ETIMEDOUT:
			return ": nothing has that CID: does the guest run? If it should be reached, load vhost_vsock on a host, " +
				"vmw_vsock_virtio_transport in a guest, vsock_loopback for CID 1 (modprobe NAME)"
		case unix.EADDRNOTAVAIL:
			return ": no such CID here: write vsock:any:PORT, or load the module that brings CID 1 (modprobe vsock_loopback)"
		case unix.EACCES:
			return ": ports below 1024 need the capability CAP_NET_BIND_SERVICE"
		}
	}
	return ""
}

// lacking says how a kernel gets the sockets that it lacks. It loads most modules
// by itself when a socket is made, unless somebody forbade it.
func lacking(a abi.Addr) string {
	switch a.Medium() {
	case "sctp":
		return ": this kernel has no SCTP: modprobe sctp (distributions may forbid the module, or keep it in an extra package)"
	case "mptcp":
		return ": this kernel has no MPTCP, or it is switched off: sysctl net.mptcp.enabled=1"
	case "vsock":
		return ": this kernel has no vsock: modprobe vsock, and vsock_loopback for CID 1"
	}
	if a.Family() == unix.AF_INET6 {
		return ": this kernel has no IPv6, or it is switched off"
	}
	return ": this kernel has no such sockets"
}
