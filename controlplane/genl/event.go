package genl

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	maxSubscribers = 64
	tellEvery      = 250 * time.Millisecond // one who lost events is tried again
)

// events are the subscribers, guarded by Server.mu.
type events struct {
	subs    map[uint32]*subscriber // by port
	telling bool                   // the teller runs
}

type subscriber struct {
	want func(cmd uint8, topic string) bool
	seq  uint64 // of the last event meant for it
	lost uint64 // since the last one that it got
}

// Subscribe sends the events that want accepts (all if nil) to port from now
// on; again, it changes want. It ends by Unsubscribe, or with the first event
// after the socket was closed. want is called with the server locked: it must
// be short and must not call the server. Errors: EUSERS if there are too many,
// ESHUTDOWN.
func (s *Server) Subscribe(port uint32, want func(cmd uint8, topic string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("the daemon is stopping: %w", unix.ESHUTDOWN)
	}
	sub, ok := s.events.subs[port]
	if !ok {
		if len(s.events.subs) >= maxSubscribers {
			return fmt.Errorf("%d listeners are subscribed, end one first: %w", maxSubscribers, unix.EUSERS)
		}
		sub = &subscriber{}
		s.events.subs[port] = sub
	}
	sub.want = want
	return nil
}

// Unsubscribe ends the subscription of port and says whether there was one.
func (s *Server) Unsubscribe(port uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.events.subs[port]
	delete(s.events.subs, port)
	return ok
}

// Notify sends an event to those who want it. It never waits: for one who does
// not read the event is lost, and counted; what one gets is in order. topic is
// what the event is about, for the filters; attrs encodes it (nil: nothing).
// Any goroutine may call it, but not from within attrs or a filter.
func (s *Server) Notify(cmd uint8, topic string, attrs func(*netlink.AttributeEncoder)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.events.subs) == 0 {
		return
	}
	body, bad := encode(attrs)
	for port, sub := range s.events.subs {
		if sub.want != nil && !sub.want(cmd, topic) {
			continue
		}
		sub.seq++
		if bad != nil {
			s.lockedLost(sub)
			continue
		}
		s.lockedTell(port, sub, cmd, body)
	}
}

// lockedTell sends an event to one subscriber.
func (s *Server) lockedTell(port uint32, sub *subscriber, cmd uint8, body []byte) {
	stamp, err := encode(func(ae *netlink.AttributeEncoder) {
		if s.family.Stamp != nil {
			s.family.Stamp(ae, sub.seq, sub.lost)
		}
	})
	if err == nil {
		h := header{typ: s.family.ID}
		err = s.conn.Send(port, appendGeneric(nil, h, cmd, s.family.Version, body, stamp))
	}
	switch {
	case err == nil:
		sub.lost = 0
	case errors.Is(err, unix.ECONNREFUSED):
		delete(s.events.subs, port)
	default:
		s.lockedLost(sub)
	}
}

// lockedLost counts an event that sub did not get, and has it told.
func (s *Server) lockedLost(sub *subscriber) {
	sub.lost++
	s.lost.Add(1)
	if s.family.Overrun != 0 && !s.events.telling && s.lockedEnter() {
		s.events.telling = true
		go s.tellLosers()
	}
}

// tellLosers tries again and again to send the Overrun event to those who lost
// events, so that they learn of it even if nothing happens any more.
// Started by the first loss. Owns events.telling. Ends when all have been told
// or are gone, or with Close.
func (s *Server) tellLosers() {
	defer s.wg.Done()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		if !s.tellOnce() {
			return
		}
	}
}

// tellOnce says whether somebody is still to be told.
func (s *Server) tellOnce() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := false
	for port, sub := range s.events.subs {
		if sub.lost == 0 {
			continue
		}
		before := sub.lost
		s.lockedTell(port, sub, s.family.Overrun, nil)
		if sub.lost > before { // the Overrun itself is no event
			sub.lost = before
			s.lost.Add(^uint64(0))
			left = true
		}
	}
	s.events.telling = left
	return left
}
