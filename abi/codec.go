package abi

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message is a value of the control ABI that one set of netlink attributes
// holds (dst.yaml). A zero number, an empty string, a nil pointer and an empty
// list are left out by Encode, so what is not given reads as zero.
type Message interface {
	// Encode adds the attributes of the value to ae.
	Encode(ae *netlink.AttributeEncoder)
	// Decode replaces the value by what ad holds; attributes that this version
	// does not know are skipped. Errors: EBADMSG for what is malformed.
	Decode(ad *netlink.AttributeDecoder) error
}

// Marshal is the attributes of m as bytes. Errors: EMSGSIZE if one is too
// large for netlink.
func Marshal(m Message) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	m.Encode(ae)
	b, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EMSGSIZE)
	}
	return b, nil
}

// Unmarshal decodes the attributes b into m. Errors: EBADMSG.
func Unmarshal(b []byte, m Message) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return malformedAttr(err)
	}
	return m.Decode(ad)
}

func malformedAttr(err error) error {
	var errno unix.Errno
	if err == nil || errors.As(err, &errno) {
		return err
	}
	return fmt.Errorf("%w: %w", err, unix.EBADMSG)
}

// field is one attribute of a value: its number, how it is written and how it
// is read. Both directions share one list of fields, so that neither forgets one.
type field struct {
	attr uint16
	put  func(*netlink.AttributeEncoder)
	get  func(*netlink.AttributeDecoder)
}

type fields []field

// nest is a value that lists its fields: what an attribute may nest.
type nest[T any] interface {
	*T
	fields() fields
}

func (fs fields) encode(ae *netlink.AttributeEncoder) {
	for _, f := range fs {
		f.put(ae)
	}
}

func (fs fields) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		for _, f := range fs {
			if f.attr == ad.Type() {
				f.get(ad)
			}
		}
	}
	return malformedAttr(ad.Err())
}

// num32 is a u32 that is left out when it is zero.
func num32[T ~uint32](attr uint16, p *T) field {
	f := must32(attr, p)
	put := f.put
	f.put = func(ae *netlink.AttributeEncoder) {
		if *p != 0 {
			put(ae)
		}
	}
	return f
}

// must32 is a u32 that is always there.
func must32[T ~uint32](attr uint16, p *T) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) { ae.Uint32(attr, uint32(*p)) },
		func(ad *netlink.AttributeDecoder) { *p = T(ad.Uint32()) }}
}

// opt32 is a u32 that is there when its pointer is not nil.
func opt32(attr uint16, p **uint32) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != nil {
				ae.Uint32(attr, **p)
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = new(ad.Uint32()) }}
}

func num64(attr uint16, p *uint64) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != 0 {
				ae.Uint64(attr, *p)
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = ad.Uint64() }}
}

func opt64(attr uint16, p **uint64) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != nil {
				ae.Uint64(attr, **p)
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = new(ad.Uint64()) }}
}

func boolean(attr uint16, p *bool) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) { ae.Flag(attr, *p) },
		func(ad *netlink.AttributeDecoder) { *p = ad.Flag() }}
}

func text(attr uint16, p *string) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != "" {
				ae.String(attr, *p)
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = readText(ad) }}
}

// readText is the current string attribute; a NUL inside is malformed.
func readText(ad *netlink.AttributeDecoder) string {
	s := ad.String()
	if strings.IndexByte(s, 0) >= 0 {
		ad.Do(func([]byte) error { return fmt.Errorf("attribute %d has a NUL inside a string", ad.Type()) })
		return ""
	}
	return s
}

// raw is bytes in a string: a socket address.
func raw(attr uint16, p *string) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != "" {
				ae.Bytes(attr, []byte(*p))
			}
		},
		func(ad *netlink.AttributeDecoder) { *p = string(ad.Bytes()) }}
}

// secret is a key. The decoder's own copy of it is wiped.
func secret(attr uint16, p *[]byte) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if len(*p) != 0 {
				ae.Bytes(attr, *p)
			}
		},
		func(ad *netlink.AttributeDecoder) {
			*p = ad.Bytes()
			ad.Do(func(b []byte) error {
				clear(b)
				return nil
			})
		}}
}

// exact is a binary value of fixed length that is left out when it is zero.
func exact(attr uint16, p []byte) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
				ae.Bytes(attr, p)
			}
		},
		func(ad *netlink.AttributeDecoder) {
			ad.Do(func(b []byte) error {
				if len(b) != len(p) {
					return fmt.Errorf("attribute %d has %d bytes instead of %d", ad.Type(), len(b), len(p))
				}
				copy(p, b)
				return nil
			})
		}}
}

// one is a nested value that is left out when it is zero.
func one[T comparable, P nest[T]](attr uint16, p P) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			if *p != *new(T) {
				putNest(ae, attr, p)
			}
		},
		func(ad *netlink.AttributeDecoder) { getNest(ad, p) }}
}

// list is a nested value that may be there any number of times.
func list[T any, P nest[T]](attr uint16, p *[]T) field {
	return field{attr,
		func(ae *netlink.AttributeEncoder) {
			for i := range *p {
				putNest(ae, attr, P(&(*p)[i]))
			}
		},
		func(ad *netlink.AttributeDecoder) {
			*p = append(*p, *new(T))
			getNest(ad, P(&(*p)[len(*p)-1]))
		}}
}

func putNest[T any, P nest[T]](ae *netlink.AttributeEncoder, attr uint16, p P) {
	ae.Nested(attr, func(ae *netlink.AttributeEncoder) error {
		p.fields().encode(ae)
		return nil
	})
}

func getNest[T any, P nest[T]](ad *netlink.AttributeDecoder, p P) {
	*p = *new(T)
	ad.Nested(func(ad *netlink.AttributeDecoder) error { return p.fields().decode(ad) })
}
