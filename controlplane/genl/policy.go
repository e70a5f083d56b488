package genl

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is the type of an attribute's payload.
type Kind uint8

const (
	U8     Kind = iota + 1
	U16         // host byte order, as all integers here
	U32         //
	U64         //
	S32         //
	String      // NUL-terminated, no NUL inside
	Binary      //
	Flag        // no payload: there or not
	Nest        // attributes, with NLA_F_NESTED
)

// Rule says what one attribute must look like.
type Rule struct {
	Name string // as in the family's specification, for sentences
	Kind Kind
	// Min and Max bound the value of an integer (of an S32 as sign-extended
	// int64, where both 0 mean unbounded), or the length of a String without its
	// NUL or of a Binary, in bytes. Max 0 means no bound.
	Min, Max uint64
	Enum     []Value // if given, the only values allowed
	Mask     uint64  // if given, the only bits allowed
	Multi    bool    // may be there more than once
	Nest     *Policy // of a Nest
}

// Value is a number and its word in the family's specification.
type Value struct {
	Number uint64
	Word   string
}

// Policy is what may be in a request or in a nest. A nil *Policy allows nothing.
type Policy struct {
	Name  string // of the operation or attribute set, for sentences
	Attrs map[uint16]Rule
}

// Parse checks the attributes of msg, a whole message, from the offset from to
// its end, and returns them in the order of the message; they alias msg.
// It is as strict as NL_VALIDATE_STRICT: unknown and duplicate attributes,
// wrong lengths, values and flags, and left-over bytes are refused.
// Errors: *Error with the Offset of the first attribute that is wrong, EINVAL
// for what is malformed and ERANGE for what is out of its limits.
func (p *Policy) Parse(msg []byte, from int) (Attrs, error) {
	as, e := p.parse(msg, min(from, len(msg)), 1)
	if e != nil {
		return nil, e
	}
	return as, nil
}

func (p *Policy) parse(msg []byte, from, depth int) (Attrs, *Error) {
	var as Attrs
	at := from
	for len(msg)-at >= unix.NLA_HDRLEN {
		n := int(native.Uint16(msg[at:]))
		if n < unix.NLA_HDRLEN || n > len(msg)-at {
			return nil, refuse(unix.EINVAL, at, "attribute of %d bytes where %d are left", n, len(msg)-at)
		}
		a, e := p.attr(msg[:at+n], at, depth, as)
		if e != nil {
			return nil, e
		}
		as = append(as, a)
		at = min(at+align4(n), len(msg)) // the last one needs no padding, as in the kernel
	}
	if at < len(msg) {
		return nil, refuse(unix.EINVAL, at, "%d bytes are left over after the attributes", len(msg)-at)
	}
	return as, nil
}

// attr checks the attribute that is msg[at:], those before it being as.
func (p *Policy) attr(msg []byte, at, depth int, as Attrs) (Attr, *Error) {
	raw := native.Uint16(msg[at+2:])
	a := Attr{
		Type:   raw &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER),
		Offset: uint32(at),
		Data:   msg[at+unix.NLA_HDRLEN:],
	}
	rule, known := p.rule(a.Type)
	switch {
	case !known:
		return a, refuse(unix.EINVAL, at, "attribute %d is not known in %s", a.Type, p.name())
	case raw&unix.NLA_F_NET_BYTEORDER != 0:
		return a, refuse(unix.EINVAL, at, "attribute %s is in host byte order: NLA_F_NET_BYTEORDER is wrong", rule.Name)
	case rule.Kind == Nest && raw&unix.NLA_F_NESTED == 0:
		return a, refuse(unix.EINVAL, at, "attribute %s is a nest: NLA_F_NESTED is missing", rule.Name)
	case rule.Kind != Nest && raw&unix.NLA_F_NESTED != 0:
		return a, refuse(unix.EINVAL, at, "attribute %s is not a nest: NLA_F_NESTED is wrong", rule.Name)
	case !rule.Multi && as.Has(a.Type):
		return a, refuse(unix.EINVAL, at, "attribute %s is given twice", rule.Name)
	}
	if rule.Kind != Nest {
		return a, rule.check(a)
	}
	if depth >= maxDepth {
		return a, refuse(unix.EINVAL, at, "attribute %s is nested too deep", rule.Name)
	}
	var e *Error
	a.Nest, e = rule.Nest.parse(msg, at+unix.NLA_HDRLEN, depth+1)
	return a, e
}

func (p *Policy) rule(t uint16) (Rule, bool) {
	if p == nil {
		return Rule{}, false
	}
	r, ok := p.Attrs[t]
	return r, ok
}

func (p *Policy) name() string {
	if p == nil || p.Name == "" {
		return "this request"
	}
	return p.Name
}

// missing is the refusal of a request without the attribute t.
func (p *Policy) missing(t uint16) *Error {
	name := fmt.Sprint(t)
	if r, ok := p.rule(t); ok && r.Name != "" {
		name = r.Name
	}
	return &Error{Errno: unix.EINVAL, Miss: t, Msg: fmt.Sprintf("attribute %s is missing in %s", name, p.name())}
}

// sizes are the payload lengths of the kinds that have only one.
var sizes = map[Kind]int{U8: 1, U16: 2, U32: 4, U64: 8, S32: 4, Flag: 0}

// check refuses a payload that is not as the rule says.
func (r Rule) check(a Attr) *Error {
	size, fixed := sizes[r.Kind]
	at, n := int(a.Offset), len(a.Data)
	switch {
	case fixed && n != size:
		return refuse(unix.EINVAL, at, "attribute %s has %d bytes instead of %d", r.Name, n, size)
	case r.Kind == Flag:
		return nil
	case r.Kind == S32:
		return r.checkSigned(at, a.Int())
	case fixed:
		return r.checkValue(at, a.Uint())
	case r.Kind == String:
		n-- // without the NUL
		if n < 0 || bytes.IndexByte(a.Data, 0) != n {
			return refuse(unix.EINVAL, at, "attribute %s is not a string that ends with its only NUL", r.Name)
		}
	case r.Kind != Binary:
		return refuse(unix.EINVAL, at, "attribute %s has no type in %d", r.Name, r.Kind)
	}
	if uint64(n) < r.Min || uint64(n) > r.top() {
		return refuse(unix.ERANGE, at, "attribute %s is %d bytes long: %s", r.Name, n, limits(r.Min, r.top()))
	}
	return nil
}

func (r Rule) checkValue(at int, v uint64) *Error {
	if v < r.Min || v > r.top() {
		return refuse(unix.ERANGE, at, "attribute %s is %d: %s", r.Name, v, limits(r.Min, r.top()))
	}
	if r.Mask != 0 && v&^r.Mask != 0 {
		return refuse(unix.EINVAL, at, "attribute %s has unknown bits %#x", r.Name, v&^r.Mask)
	}
	if r.Enum == nil {
		return nil
	}
	words := make([]string, len(r.Enum))
	for i, e := range r.Enum {
		if e.Number == v {
			return nil
		}
		words[i] = fmt.Sprintf("%d (%s)", e.Number, e.Word)
	}
	return refuse(unix.EINVAL, at, "attribute %s is %d: allowed are %s", r.Name, v, strings.Join(words, ", "))
}

func (r Rule) checkSigned(at int, v int64) *Error {
	low, high := int64(r.Min), int64(r.Max)
	if (low != 0 || high != 0) && (v < low || v > high) {
		return refuse(unix.ERANGE, at, "attribute %s is %d: allowed are %d to %d", r.Name, v, low, high)
	}
	return nil
}

func (r Rule) top() uint64 {
	if r.Max == 0 {
		return math.MaxUint64
	}
	return r.Max
}

func limits(low, high uint64) string {
	if high == math.MaxUint64 {
		return fmt.Sprintf("at least %d", low)
	}
	return fmt.Sprintf("allowed are %d to %d", low, high)
}

func refuse(errno unix.Errno, at int, format string, args ...any) *Error {
	return &Error{Errno: errno, Msg: fmt.Sprintf(format, args...), Offset: uint32(at)}
}
