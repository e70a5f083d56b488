package conn

// Looks is how often in a keepalive interval an end looks for life: so much of
// an interval a dead peer lives longer than it may miss.
const Looks = 4

// Pulse is how long a connection has been still, in each direction, as its
// keeper sees it: in looks, of which there are Looks in an interval. It belongs
// to that one goroutine.
type Pulse struct {
	Idle   int // nothing was sent
	Silent int // nothing was received

	sent, heard uint64
}

// Look takes what has been sent and received so far, each as any count that
// grows, and tells whether a PING is due: no peer waits for a sign of life for
// longer than the interval that it was told, whatever was sent when, and a peer
// that was silent for an interval is asked. That a PING has left shows at the
// next look as something sent.
func (p *Pulse) Look(sent, heard uint64) (ping bool) {
	p.Idle, p.Silent = p.Idle+1, p.Silent+1
	if sent != p.sent {
		p.Idle, p.sent = 0, sent
	}
	if heard != p.heard {
		p.Silent, p.heard = 0, heard
	}
	return p.Idle >= Looks-1 || p.Silent > 0 && p.Silent%Looks == 0
}
