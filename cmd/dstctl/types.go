package main

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"dst/abi"
)

// kind is a type of value: what help calls it, how it is written, and where
// completion finds some.
type kind struct {
	name  string
	doc   string
	files bool     // completed with paths
	live  bool     // completed with the names that the daemon knows
	hints []string // completed with these
}

var (
	kindName = &kind{name: "NAME", live: true,
		doc: "1 to 31 letters, digits and _ . : -, beginning with a letter or a digit"}
	kindPath = &kind{name: "PATH", files: true,
		doc: "a path on the daemon's host; a relative one is taken from the current directory"}
	kindFile = &kind{name: "FILE", files: true,
		doc: "a file that the daemon opens; key bytes never travel on the command line"}
	kindSocket = &kind{name: "PATH", files: true, doc: kindPath.doc}
	kindAddrs  = &kind{name: "ADDR[,ADDR...]", hints: media(),
		doc: "{ " + strings.Join(abi.AddrForms(), " | ") + " }, IPv6 hosts in brackets; host names are looked up once, by dstctl; CID a number or any"}
	kindWho = &kind{name: "WHO", hints: []string{"any", "unix", "vsock"},
		doc: "{ any | PREFIX | unix[:UID] | vsock[:CID] }, PREFIX an address or ADDRESS/LENGTH"}
	kindSize = &kind{name: "SIZE", hints: []string{"1G", "10G", "100G"},
		doc: "bytes, or with K M G T P (also KiB, MiB, ...) in powers of 1024"}
	kindTime = &kind{name: "TIME", hints: []string{"1s", "5s", "30s"},
		doc: "a number with ms, s, m or h: 500ms, 5s, 1m30s"}
	kindNumber = &kind{name: "N", doc: "a decimal number"}
	kindAlg    = &kind{name: "ALG", hints: []string{"crc32c", "none"},
		doc: "an algorithm by its name in the kernel: crc32c, or none; ciphers gcm(aes), rfc7539(chacha20,poly1305), and, slower, cbc(aes) and ctr(aes); " +
			"digests with a key hmac(sha256), hmac(sha384), hmac(sha512)"}
	kindCipher = &kind{name: "ALG", hints: []string{"gcm(aes)", "rfc7539(chacha20,poly1305)", "cbc(aes)", "ctr(aes)"}, doc: kindAlg.doc}
	kindHash   = &kind{name: "ALG", hints: []string{"crc32c", "none", "hmac(sha256)", "hmac(sha384)", "hmac(sha512)"}, doc: kindAlg.doc}
	kindKeyID  = &kind{name: "ID", doc: "the id of a key, 16 hex digits, as crypto show prints it"}
)

// term is the name of one such value.
func (k *kind) term() string {
	name, _, _ := strings.Cut(k.name, "[")
	return name
}

// kinds are all of them, in the order of the manual.
var kinds = []*kind{kindName, kindAddrs, kindWho, kindSize, kindTime, kindNumber, kindAlg, kindKeyID, kindPath, kindFile}

// media is what addresses begin with: tcp: and so on.
func media() (words []string) {
	for _, form := range abi.AddrForms() {
		word, _, _ := strings.Cut(form, ":")
		words = append(words, word+":")
	}
	return words
}

// parsePath makes s absolute. most is the longest path in bytes.
func parsePath(s string, most int) (string, error) {
	if s == "" || strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("%q is not a path", s)
	}
	path, err := filepath.Abs(s)
	if err != nil {
		return "", fmt.Errorf("%q can not be made absolute: %v", s, err)
	}
	if len(path) > most {
		return "", fmt.Errorf("the path has %d bytes, at most %d are possible: use a shorter one", len(path), most)
	}
	return path, nil
}

var sizeRule = regexp.MustCompile(`^([0-9]+)([KkMmGgTtPpEe]?)(?:(i?)([Bb]))?$`)

// parseSize reads bytes: 512, 10G, 10GiB.
func parseSize(s string) (uint64, error) {
	m := sizeRule.FindStringSubmatch(s)
	if m == nil || m[2] == "" && m[3] != "" {
		return 0, fmt.Errorf("%q is not a size: write bytes, or a whole number with K, M, G or T, like 10G", s)
	}
	if m[2] != "" && m[4] != "" && m[3] == "" {
		return 0, fmt.Errorf("%q could mean powers of 1000 or of 1024: write %s for 1024, or plain bytes", s, m[1]+strings.ToUpper(m[2])+"iB")
	}
	shift := 0
	if m[2] != "" {
		shift = 10 * (1 + strings.IndexByte("KMGTPE", strings.ToUpper(m[2])[0]))
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	switch {
	case err != nil || n > math.MaxInt64>>shift:
		return 0, fmt.Errorf("size %q is too large: at most 8E less one byte", s)
	case n == 0:
		return 0, fmt.Errorf("size 0 holds nothing: say \"all\" in set, or leave out \"size\" in add, to use all of the storage")
	}
	return n << shift, nil
}

var timeRule = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)

// parseTime reads a duration in whole milliseconds.
func parseTime(s string) (uint64, error) {
	d, err := time.ParseDuration(s)
	switch {
	case !timeRule.MatchString(s):
		return 0, fmt.Errorf("%q is not a time: write a number with ms, s, m or h, like 5s", s)
	case err != nil || d/time.Millisecond > math.MaxUint32:
		return 0, fmt.Errorf("time %q is too long: at most %s", s, textTime(math.MaxUint32))
	case d%time.Millisecond != 0:
		return 0, fmt.Errorf("time %q is finer than a millisecond", s)
	}
	return uint64(d / time.Millisecond), nil
}

// parseNumber reads a decimal number.
func parseNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// parseWho reads whom a security rule names.
func parseWho(s string) (abi.Rule, error) {
	medium, id, given := strings.Cut(s, ":")
	switch {
	case s == "any":
		return abi.Rule{Kind: abi.RuleKindAny}, nil
	case medium == "unix" || medium == "vsock":
		r := abi.Rule{Kind: abi.RuleKindUnix}
		if medium == "vsock" {
			r.Kind = abi.RuleKindVsock
		}
		if given {
			n, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return abi.Rule{}, fmt.Errorf("%q: write %s:NUMBER, or %s for all of them", s, medium, medium)
			}
			r.ID = new(uint32(n))
		}
		return r, nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return abi.Rule{}, err
	}
	if p.Addr().Is4() {
		return abi.Rule{Kind: abi.RuleKindInet, Prefix: p}, nil
	}
	return abi.Rule{Kind: abi.RuleKindInet6, Prefix: p}, nil
}

// parsePrefix reads an address or prefix; a bare address is a prefix of one.
func parsePrefix(s string) (netip.Prefix, error) {
	host, length, slash := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && zeroRule.MatchString(host):
		return netip.Prefix{}, fmt.Errorf("%q has leading zeros, which some read as octal: write it without them", s)
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not whom a rule can name: write any, an address or prefix like 10.0.0.0/8, unix[:UID] or vsock[:CID]", s)
	case ip.Zone() != "":
		return netip.Prefix{}, fmt.Errorf("%q: a rule has no interface: write %s", s, ip.WithZone(""))
	case ip.Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q: IPv4 clients are known by their IPv4 address: write %s", s, ip.Unmap())
	case !slash:
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(bits) > ip.BitLen() || len(length) > 1 && length[0] == '0' {
		return netip.Prefix{}, fmt.Errorf("%q: the prefix length is a number from 0 to %d", s, ip.BitLen())
	}
	p := netip.PrefixFrom(ip, int(bits))
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind the prefix: write %s", s, p.Masked())
	}
	return p, nil
}

var zeroRule = regexp.MustCompile(`^([0-9]+\.)*0[0-9]+(\.[0-9]+)*$`)
