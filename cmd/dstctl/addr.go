package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// resolveTime is how long a host name is looked up.
const resolveTime = 10 * time.Second

// names turns names of hosts and interfaces into numbers: the ABI carries only
// those.
type names struct {
	host  func(ctx context.Context, host string) ([]netip.Addr, error)
	iface func(name string) (int, error)
}

// systemNames asks the system's resolver and the kernel.
func systemNames() names {
	return names{
		host: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		iface: func(name string) (int, error) {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return 0, err
			}
			return i.Index, nil
		},
	}
}

// parseAddrs reads ADDR[,ADDR...]. Names of hosts and interfaces are resolved
// here and now, each host to the first of its addresses.
func (n names) parseAddrs(ctx context.Context, s string) (all []abi.Addr, err error) {
	for word := range strings.SplitSeq(s, ",") {
		if word == "" {
			return nil, fmt.Errorf("%q has an empty address between the commas", s)
		}
		a, err := n.parseAddr(ctx, word)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, a) {
			return nil, fmt.Errorf("address %q is given twice", word)
		}
		all = append(all, a)
	}
	return all, nil
}

func (n names) parseAddr(ctx context.Context, word string) (abi.Addr, error) {
	numeric, err := n.scope(word)
	if err != nil {
		return abi.Addr{}, err
	}
	a, err := abi.ParseAddr(numeric, func(host string) (netip.Addr, error) { return n.lookup(ctx, host) })
	if err != nil {
		return abi.Addr{}, plain(err)
	}
	return a, nil
}

// scope puts the interface's number where its name stands: tcp:[fe80::1%eth0]:9.
func (n names) scope(word string) (string, error) {
	from := strings.IndexByte(word, '%')
	to := strings.LastIndexByte(word, ']')
	if strings.HasPrefix(word, "unix:") || from < 0 || to < from {
		return word, nil
	}
	zone := word[from+1 : to]
	if _, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return word, nil
	}
	index, err := n.iface(zone)
	if err != nil {
		return "", fmt.Errorf("address %q: there is no interface %q here", word, zone)
	}
	return word[:from+1] + strconv.Itoa(index) + word[to:], nil
}

// lookup is the first address of a host. What cannot be a host name is not
// looked up.
func (n names) lookup(ctx context.Context, host string) (netip.Addr, error) {
	if strings.Trim(host, "0123456789.") == "" || strings.ContainsAny(host, ":/[]%@ \t\x00") {
		return netip.Addr{}, fmt.Errorf("host %q is not an address", host)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	found, err := n.host(ctx, host)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return netip.Addr{}, fmt.Errorf("host %q is not known to the resolver", host)
	}
	if err != nil || len(found) == 0 {
		return netip.Addr{}, fmt.Errorf("host %q could not be looked up (%v): write its address", host, err)
	}
	return found[0].Unmap(), nil
}

// plain is err without the errno's text at its end: the mistake is in the
// command, and the sentence says it already.
func plain(err error) error {
	text := err.Error()
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		text = strings.TrimSuffix(text, ": "+errno.Error())
	}
	return errors.New(text)
}
