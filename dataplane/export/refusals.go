package export

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/crypt"
)

const (
	refusalQuiet = time.Minute // the same refusal of the same client is told again after
	refusalsMax  = 64          // refusals that are told of in that time; more are counted only
)

// refusals tells the log and the subscribers who was turned away, and of a
// client that comes again and again only now and then. All are counted.
type refusals struct {
	sync.Mutex
	told map[refusal]time.Time
}

type refusal struct{ host, why string }

// news reports whether to tell of it.
func (r *refusals) news(host, why string, now time.Time) bool {
	r.Lock()
	defer r.Unlock()
	key := refusal{host, why}
	if last, ok := r.told[key]; ok && now.Sub(last) < refusalQuiet {
		return false
	}
	if r.told == nil {
		r.told = make(map[refusal]time.Time)
	}
	maps.DeleteFunc(r.told, func(_ refusal, last time.Time) bool { return now.Sub(last) >= refusalQuiet })
	if len(r.told) >= refusalsMax {
		return false
	}
	r.told[key] = now
	return true
}

// turnAway ends the connection of a client that none of nodes serves, told why if
// it may be (dismiss). Others are told when it is gone: how long that takes depends
// on what is here, and on what was told before.
func turnAway(st conn.Stream, who caller, err error, nodes ...*Node) {
	forged := unproven(err)
	for _, n := range nodes {
		n.count.refused.Add(1)
		if forged {
			n.count.authErrors.Add(1)
		}
	}
	dismiss(st, who, err)
	_ = st.Close()
	for _, n := range nodes {
		n.turnedAway(who, err)
	}
}

// turnedAway tells that a client is not served, and why.
func (n *Node) turnedAway(who caller, err error) {
	// Without its port and the id of its key, which are others with each try.
	why := strings.ReplaceAll(err.Error(), who.addr.String(), "it")
	if stranger := (*strangerError)(nil); errors.As(err, &stranger) {
		why = stranger.why
	}
	host := who.addr.String()
	if ap, ok := who.addr.AddrPort(); ok {
		host = ap.Addr().String()
	}
	if !n.refusals.news(host, why, time.Now()) {
		return
	}
	why = err.Error()
	if who.proven() {
		why += fmt.Sprintf(" (key id %v)", who.key)
	}
	n.log.Info().Stringer("client", who).Str("error", why).Msg("client refused")
	n.notify(abi.EventKindRefuse, why, who.addr)
}

// unproven tells whether err is a failed authentication, and not only a client
// that went away.
func unproven(err error) bool {
	return errors.Is(err, crypt.ErrRefused) || errors.Is(err, crypt.ErrForged)
}
