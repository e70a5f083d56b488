package main

import (
	"fmt"
	"strings"
)

// printNode writes one node the way ip-link(8) writes a link.
func (s *session) printNode(v nodeView) {
	if s.opts.brief {
		s.printBrief(v)
		return
	}
	lines := append([]string{s.firstLine(v), secondLine(v)}, usersOf(v)...)
	lines = append(lines, reasons(v)...)
	if v.Details != nil {
		lines = append(lines, s.details(v.Details)...)
	}
	if v.Counters != nil {
		lines = append(lines, s.counters(*v.Counters)...)
	}
	s.record(lines)
}

// firstLine is: vol0: <started> export size 10GiB state serving 3h12m
func (s *session) firstLine(v nodeView) string {
	text := fmt.Sprintf("%s: <%s> %s size %s state %s %s", v.Name, strings.Join(v.Flags, ","), v.Kind, s.bytes(v.Size), v.State, textAge(v.StateAge))
	if v.Size == 0 { // nobody told it yet, or the storage was lost
		text = strings.Replace(text, "size "+s.bytes(0), "size unknown", 1)
	}
	if v.Allowed != "" {
		text += " permission " + v.Allowed
	}
	return text
}

// secondLine says what it is made of, in the words that made it.
func secondLine(v nodeView) string {
	if v.Clients != nil {
		return fmt.Sprintf("device %s listen %s clients %d", v.Device, strings.Join(v.Listen, ","), *v.Clients) + cryptoText(v)
	}
	text := "peer " + strings.Join(v.Peers, ",")
	if v.Export != "" {
		text += " export " + v.Export
	}
	text += " attach " + v.Attach
	if v.Socket != "" {
		text += " " + v.Socket
	}
	if v.Kernel != "" {
		text += " " + v.Kernel
	}
	if v.Link != "" {
		text += " link " + v.Link
	}
	return text + cryptoText(v)
}

func cryptoText(v nodeView) string {
	if v.Crypto == "" {
		return ""
	}
	return " crypto " + v.Crypto
}

// usersOf says who has the kernel's device.
func usersOf(v nodeView) []string {
	if len(v.Users) == 0 {
		return nil
	}
	return []string{"in use: " + strings.Join(v.Users, ", ")}
}

func reasons(v nodeView) (lines []string) {
	if v.Reason != "" {
		lines = append(lines, "reason: "+v.Reason)
	}
	for _, w := range v.Warnings {
		lines = append(lines, "warning: "+w)
	}
	return lines
}

// printBrief is one row of the table of -br.
func (s *session) printBrief(v nodeView) {
	where := v.Peers
	if v.Clients != nil {
		where = v.Listen
	}
	size := s.bytes(v.Size)
	if v.Size == 0 {
		size = "unknown"
	}
	s.printf("%s\n", clean(fmt.Sprintf("%-16s %-7s %-12s %10s %s", v.Name, v.Kind, v.State, size, strings.Join(where, ","))))
}

// details are the lines of -d.
func (s *session) details(d *detailsView) (lines []string) {
	for chunk := d.Settings; len(chunk) > 0; {
		n := min(len(chunk), 5)
		words := make([]string, n)
		for i, one := range chunk[:n] {
			words[i] = fmt.Sprintf("%s (%s)", settingText(one), one.Origin)
		}
		lines = append(lines, strings.Join(words, " "))
		chunk = chunk[n:]
	}
	lines = append(lines, fmt.Sprintf("block-min %d max-size %d in-flight %d oldest %s wait %s unflushed %d log-bytes %d epoch %d",
		d.BlockMin, d.MaxSize, d.InFlight, textTime(d.Oldest), d.Wait, d.Unflushed, d.LogBytes, d.Epoch))
	ids := ""
	for _, id := range [][2]string{{"peer", d.Peer}, {"client-id", d.ClientID}, {"store-id", d.StoreID}, {"verifier", d.Verifier}} {
		if id[1] != "" {
			ids += " " + id[0] + " " + id[1]
		}
	}
	if ids != "" {
		lines = append(lines, ids[1:])
	}
	for _, c := range d.Sessions {
		text := fmt.Sprintf("client %s permission %s epoch %d age %s in-flight %d workers %d", c.Peer, c.Allowed, c.Epoch, textAge(c.Age), c.InFlight, c.Workers)
		if c.Draining {
			text += " draining"
		}
		if c.Key != "" {
			text += " key " + c.Key
		}
		lines = append(lines, text+" client-id "+c.ClientID)
	}
	for _, r := range d.Rules {
		lines = append(lines, "rule "+ruleText(r))
	}
	for _, k := range d.Keys {
		lines = append(lines, keyText(k))
	}
	if len(d.Keys) == 0 {
		lines = append(lines, "no key: the data travels in clear")
	}
	for _, h := range d.History {
		text := fmt.Sprintf("history: %s ago %s", textAge(h.Age), h.State)
		if h.Reason != "" {
			text += ": " + h.Reason
		}
		lines = append(lines, text)
	}
	return lines
}

// ruleText is a rule in the words that made it.
func ruleText(r ruleView) string {
	text := r.Who + " " + r.Allowed
	if r.Key != "" {
		text += " key " + r.Key
	}
	return text
}

// settingText is a knob in the words of the grammar.
func settingText(v settingView) string {
	name, timed := strings.CutSuffix(v.name, "_ms")
	word := strings.ReplaceAll(name, "_", "-")
	if !timed {
		return fmt.Sprintf("%s %v", word, v.Value)
	}
	ms, _ := v.Value.(uint32)
	if ms == 0 {
		for _, a := range []*arg{argTimeout, argFail} {
			if a.word == word {
				return word + " " + a.zero
			}
		}
	}
	return word + " " + textTime(uint64(ms))
}

// counters are the lines of -s.
func (s *session) counters(c countersView) []string {
	n := s.count
	return append(
		columns("I/O:", "reads", n(c.Reads), "writes", n(c.Writes), "flushes", n(c.Flushes), "discards", n(c.Discards), "zeroes", n(c.Zeroes),
			"errors", n(c.Errors), "read-bytes", n(c.ReadBytes), "written-bytes", n(c.WrittenBytes), "memory-waits", n(c.MemoryWaits)),
		columns("Link:", "connects", n(c.Connects), "breaks", n(c.Breaks), "resent", n(c.Resent), "replayed", n(c.Replayed), "refused", n(c.Refused),
			"digest-errors", n(c.DigestErrors), "protocol-errors", n(c.ProtocolErrors), "auth-errors", n(c.AuthErrors))...)
}
