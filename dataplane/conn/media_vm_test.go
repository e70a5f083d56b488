//go:build vm

// VM: qemu
// MODULES: sctp vsock vsock_loopback

package conn_test

import (
	"net/netip"
	"testing"

	"dst/abi"
	"dst/dataplane/conn"

	"golang.org/x/sys/unix"
)

// What hosts of tests lack joins the media of every test here.
func init() {
	media = append(media,
		medium{"sctp", sctp("127.0.0.1:0"), unix.ECONNREFUSED},
		medium{"vsock", abi.VsockAddr(unix.VMADDR_CID_LOCAL, unix.VMADDR_PORT_ANY), unix.ECONNRESET})
}

func sctp(s string) abi.Addr { return abi.NetAddr(unix.IPPROTO_SCTP, netip.MustParseAddrPort(s)) }

// TestSCTPMessages: no send is larger than what the kernel takes as one message,
// however small the buffer, and nothing waits for more to send.
func TestSCTPMessages(t *testing.T) {
	l := listen(t, sctp("127.0.0.1:0"))
	s := dial(t, l.Addr())
	r, _ := accept(t, l)
	const noDelay = 3
	for _, x := range []*conn.Sock{s, r} {
		if on := x.Option(t, unix.IPPROTO_SCTP, noDelay); on != 1 {
			t.Errorf("%s: SCTP_NODELAY is %d", x.PeerAddr(), on)
		}
		if room := x.Option(t, unix.SOL_SOCKET, unix.SO_SNDBUF); x.Most() > 64<<10 || x.Most() > room {
			t.Errorf("%s: sends %d bytes at once, with a buffer of %d", x.PeerAddr(), x.Most(), room)
		}
	}
}

// TestVsockAny listens on all CIDs and is called by one's own.
func TestVsockAny(t *testing.T) {
	l := listen(t, abi.VsockAddr(unix.VMADDR_CID_ANY, unix.VMADDR_PORT_ANY))
	_, port, _ := l.Addr().Vsock()
	dial(t, abi.VsockAddr(unix.VMADDR_CID_LOCAL, port))
	if _, peer := accept(t, l); peer.Family() != unix.AF_VSOCK {
		t.Errorf("called by %s", peer)
	} else if cid, _, _ := peer.Vsock(); cid != unix.VMADDR_CID_LOCAL {
		t.Errorf("called by CID %d", cid)
	}
}
