package main

import (
	"fmt"
	"strings"

	"dst/abi"
)

func nodeObject() *object {
	return &object{name: "node", doc: "a node, whatever it is", verbs: []*verb{
		{name: "why", doc: "Say why the I/O of a node waits, or that it does not.", run: runWhy,
			more: "One paragraph: what the oldest unanswered request waits for, since when, why, and what can be done.",
			args: []*arg{argName}, example: []string{"node why vol0"}},
		{name: "show", also: []string{"list", "lst"}, optional: true, doc: "Show a node, or all.", run: runShow, args: []*arg{argSome}},
	}}
}

// whyView is what node why says.
type whyView struct {
	Schema int    `json:"schema"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Wait   string `json:"wait"` // of the oldest request
	Oldest uint64 `json:"oldest_ms"`
	Text   string `json:"text"`
}

func runWhy(s *session, r *request) error {
	nodes, err := s.nodes(r)
	if err != nil {
		return err
	}
	n := nodes[0]
	v := whyView{Schema: schema, Name: n.Name, State: n.Status.State.String(), Wait: waitWord(n.Status.Wait), Oldest: n.Status.Oldest, Text: why(n)}
	if s.opts.json {
		return s.emit(v)
	}
	s.printf("%s\n", clean(v.Text))
	return nil
}

func waitWord(w abi.Wait) string {
	if w == 0 {
		w = abi.WaitNothing
	}
	return w.String()
}

// notRestored is in the reason of a node that the daemon could not make again
// when it started: such a one has lost nothing yet.
const notRestored = "start tries again"

// why is the paragraph.
func why(n *abi.Node) string {
	st := n.Status
	text := []string{fmt.Sprintf("%s has been in state %s for %s.", n.Name, st.State, textAge(st.StateAge))}
	if st.Reason != "" {
		text = append(text, "Reason: "+ended(st.Reason))
	}
	switch {
	case strings.Contains(st.Reason, notRestored):
		text = append(text, "Nothing is served, and what was acknowledged and not flushed is kept: mend what the reason says, then start the node again (dstctl start). To remove it gives that up, and its rules and keys.")
	case st.State == abi.StateFailed:
		text = append(text, "Every request is answered with EIO, and that does not end by itself: remove the node (dstctl del) and add it again.")
	case n.Kind == abi.KindExport:
		text = append(text, whyExport(n))
	case st.InFlight == 0 || st.Wait == abi.WaitNothing:
		text = append(text, "No request waits.")
	default:
		text = append(text, fmt.Sprintf("%s, the oldest for %s: it waits for %s.", requests(st.InFlight), textAge(st.Oldest), whatFor(n)))
	}
	if st.LogBytes > 0 || st.Unflushed > 0 {
		text = append(text, fmt.Sprintf("The replay log keeps %d changes of %d bytes until they are flushed.", st.Unflushed, st.LogBytes))
	}
	return strings.Join(text, " ")
}

// ended is s with a mark at its end.
func ended(s string) string {
	if s = strings.TrimRight(s, ". "); strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

func requests(n uint32) string {
	if n == 1 {
		return "1 request is unanswered"
	}
	return fmt.Sprintf("%d requests are unanswered", n)
}

// whatFor is what the oldest request of a remote waits for, and what can be done.
func whatFor(n *abi.Node) string {
	peer := "the peer"
	if !n.Status.Peer.IsZero() {
		peer = n.Status.Peer.String()
	}
	switch n.Status.Wait {
	case abi.WaitLink:
		return "a connection to " + strings.Join(addrWords(n.Addrs), " or ") + ", which is tried again about every second" + limitOf(n)
	case abi.WaitFence:
		return peer + " to finish what an earlier connection had started on its disk; nothing newer may run before that"
	case abi.WaitReplay:
		return "acknowledged changes that " + peer + " had lost and that are being written again"
	case abi.WaitOrder:
		return "an older change of the same bytes"
	case abi.WaitLog:
		return "room in the replay log, which is being flushed: a faster disk there or a larger arena here avoids it"
	case abi.WaitKernel:
		return "the kernel, which must first send again what it had given to an earlier daemon (about 5 s)"
	case abi.WaitWindow:
		return peer + ", which takes no more requests at a time: its depth is reached"
	case abi.WaitWire:
		return peer + ", which is silent: the link breaks when three keepalives were missed, and is made anew"
	case abi.WaitDisk:
		return "the disk of " + peer + ": the peer lives, so the link is kept; see dstctl node why there"
	}
	return "something that this dstctl does not know"
}

// limitOf says when waiting for a connection ends.
func limitOf(n *abi.Node) string {
	if f := n.Knobs.FailAfter; f != nil && *f > 0 {
		return ", until fail-after (" + textTime(uint64(*f)) + ") is over"
	}
	return ", for ever (fail-after never)"
}

// whyExport tells of an export's sessions and of its disk.
func whyExport(n *abi.Node) string {
	st := n.Status
	for _, s := range st.Sessions {
		if s.Draining {
			return fmt.Sprintf("%s has lost its place and its last requests are with the disk: whoever comes next waits for them.", s.Peer)
		}
	}
	for _, s := range st.Sessions {
		if s.Perm == 0 {
			return fmt.Sprintf("%s waits to be let in: whoever had the read-write place before is asked, or awaited, first; start NAME steal there does not wait.", s.Peer)
		}
	}
	if st.InFlight == 0 {
		return "No request waits here."
	}
	return fmt.Sprintf("%s, the oldest for %s: it is with the disk, %s.", requests(st.InFlight), textAge(st.Oldest), n.Device)
}
