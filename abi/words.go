package abi

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// medium is one kind of stream in the words of dstctl.
type medium struct {
	word, form string // word:form
	proto      uint32 // of its sockets
	parse      func(s string, proto uint32, resolve func(host string) (netip.Addr, error)) (Addr, error)
	text       func(a Addr) (s string, ok bool) // not ok: another family
}

// media are all of them. Of several with one family the first is meant where an
// address does not say its protocol: the original's rules do not.
var media = []medium{
	{"tcp", "HOST:PORT", unix.IPPROTO_TCP, parseInet, inetText},
	{"mptcp", "HOST:PORT", unix.IPPROTO_MPTCP, parseInet, inetText},
	{"sctp", "HOST:PORT", unix.IPPROTO_SCTP, parseInet, inetText},
	{"unix", "PATH", 0, parseUnix, unixText},
	{"vsock", "CID:PORT", 0, parseVsock, vsockText},
}

// AddrForms is how addresses are written, a form for each medium: tcp:HOST:PORT
// and so on.
func AddrForms() (forms []string) {
	for _, m := range media {
		forms = append(forms, m.word+":"+m.form)
	}
	return forms
}

// writeForms is AddrForms as the end of a sentence.
func writeForms() string {
	forms := AddrForms()
	last := len(forms) - 1
	return "write " + strings.Join(forms[:last], ", ") + " or " + forms[last]
}

// medium is the medium of a and the text behind its word; nil if it has none.
func (a Addr) medium() (*medium, string) {
	if a.Type != 0 && a.Type != unix.SOCK_STREAM {
		return nil, ""
	}
	for i := range media {
		m := &media[i]
		if s, ok := m.text(a); ok && (a.Proto == m.proto || a.Proto == 0) {
			return m, s
		}
	}
	return nil, ""
}

// Medium is the word of a's medium (tcp, mptcp, sctp, unix or vsock), "" if it
// has none.
func (a Addr) Medium() string {
	if m, _ := a.medium(); m != nil {
		return m.word
	}
	return ""
}

// String is the address in the words of dstctl, as ParseAddr reads them; what has
// no words there in hex.
func (a Addr) String() string {
	if a.IsZero() {
		return "none"
	}
	if m, s := a.medium(); m != nil {
		return m.word + ":" + s
	}
	return fmt.Sprintf("family:%d:%x", a.Family(), a.Sockaddr[min(2, len(a.Sockaddr)):])
}

// ParseAddr reads an address in the words of dstctl: one of AddrForms. HOST is a
// numeric address, IPv6 in brackets, a scope as the interface's number; resolve
// looks a name up and may be nil. PATH is absolute. CID is a number or "any".
// Errors are sentences with EINVAL, or what resolve says.
func ParseAddr(s string, resolve func(host string) (netip.Addr, error)) (Addr, error) {
	word, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Addr{}, fmt.Errorf("address %q has no medium: %s: %w", s, writeForms(), unix.EINVAL)
	}
	for _, m := range media {
		if m.word != word {
			continue
		}
		a, err := m.parse(rest, m.proto, resolve)
		if err != nil {
			return Addr{}, fmt.Errorf("address %q: %w", s, err)
		}
		return a, nil
	}
	return Addr{}, fmt.Errorf("address %q: unknown medium %q: %s: %w", s, word, writeForms(), unix.EINVAL)
}

func parseInet(s string, proto uint32, resolve func(string) (netip.Addr, error)) (Addr, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return Addr{}, fmt.Errorf("no port: write HOST:PORT: %w", unix.EINVAL)
	}
	host, word := s[:i], s[i+1:]
	port, err := strconv.ParseUint(word, 10, 16)
	if err != nil || port == 0 {
		return Addr{}, fmt.Errorf("port %q is not a number from 1 to 65535: %w", word, unix.EINVAL)
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if bracketed {
		host = host[1 : len(host)-1]
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Is6() != bracketed:
		return Addr{}, fmt.Errorf("write an IPv6 host, and only that, in brackets: [%s]:%d: %w", host, port, unix.EINVAL)
	case err == nil && ip.Zone() != "" && !decimal(ip.Zone()):
		return Addr{}, fmt.Errorf("scope %q: the ABI carries the interface's number, not its name: %w", ip.Zone(), unix.EINVAL)
	case err == nil:
		return NetAddr(proto, netip.AddrPortFrom(ip, uint16(port))), nil
	case host == "" || bracketed || resolve == nil:
		return Addr{}, fmt.Errorf("host %q is not an address: %w", host, unix.EINVAL)
	}
	if ip, err = resolve(host); err != nil {
		return Addr{}, err
	}
	return NetAddr(proto, netip.AddrPortFrom(ip, uint16(port))), nil
}

func decimal(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

func inetText(a Addr) (string, bool) {
	ap, ok := a.AddrPort()
	return ap.String(), ok
}

func parseUnix(s string, _ uint32, _ func(string) (netip.Addr, error)) (Addr, error) {
	if len(s) == 0 || s[0] != '/' || len(s) > 107 || strings.ContainsRune(s, 0) {
		return Addr{}, fmt.Errorf("unix: takes an absolute path of at most 107 bytes: %w", unix.EINVAL)
	}
	return UnixAddr(s), nil
}

func unixText(a Addr) (string, bool) {
	path := a.Path()
	if strings.HasPrefix(path, "\x00") {
		path = "@" + path[1:] // abstract, as other tools show it
	}
	return path, a.Family() == unix.AF_UNIX
}

// anyCID is the word for all context ids of a host: its number says nothing.
const anyCID = "any"

func parseVsock(s string, _ uint32, _ func(string) (netip.Addr, error)) (Addr, error) {
	word, number, ok := strings.Cut(s, ":")
	if !ok {
		return Addr{}, fmt.Errorf("write vsock:CID:PORT: %w", unix.EINVAL)
	}
	cid, err := strconv.ParseUint(word, 10, 32)
	if word == anyCID {
		cid, err = unix.VMADDR_CID_ANY, nil
	}
	if err != nil {
		return Addr{}, fmt.Errorf("CID %q is not a number: write that of the guest, 2 for the host, 1 for one's own, or, to listen on all, %s: %w", word, anyCID, unix.EINVAL)
	}
	port, err := strconv.ParseUint(number, 10, 32)
	if err != nil || port == unix.VMADDR_PORT_ANY {
		return Addr{}, fmt.Errorf("port %q is not a number from 0 to %d: %w", number, uint32(unix.VMADDR_PORT_ANY-1), unix.EINVAL)
	}
	return VsockAddr(uint32(cid), uint32(port)), nil
}

func vsockText(a Addr) (string, bool) {
	cid, port, ok := a.Vsock()
	word := strconv.FormatUint(uint64(cid), 10)
	if cid == unix.VMADDR_CID_ANY {
		word = anyCID
	}
	return word + ":" + strconv.FormatUint(uint64(port), 10), ok
}

// Who is whom r names, in the words of dstctl: any, a prefix, unix[:UID] or
// vsock[:CID].
func (r Rule) Who() string {
	word := r.Prefix.String()
	switch r.Kind {
	case RuleKindAny:
		return "any"
	case RuleKindUnix:
		word = "unix"
	case RuleKindVsock:
		word = "vsock"
	}
	if r.ID != nil {
		word += ":" + strconv.FormatUint(uint64(*r.ID), 10)
	}
	return word
}
