package genl

import "bytes"

// Attr is one attribute that its policy has checked.
type Attr struct {
	Type   uint16 // without flags
	Offset uint32 // of the attribute from the start of the message, for Error
	Data   []byte // payload: part of the request, gone when the handler returns
	Nest   Attrs  // of a Nest
}

// Uint is the value of a U8, U16, U32 or U64.
func (a Attr) Uint() uint64 {
	switch len(a.Data) {
	case 1:
		return uint64(a.Data[0])
	case 2:
		return uint64(native.Uint16(a.Data))
	case 4:
		return uint64(native.Uint32(a.Data))
	case 8:
		return native.Uint64(a.Data)
	}
	return 0
}

// Int is the value of an S32.
func (a Attr) Int() int64 { return int64(int32(a.Uint())) }

// String is the value of a String, without its NUL: a copy.
func (a Attr) String() string { return string(bytes.TrimSuffix(a.Data, []byte{0})) }

// Bytes is the value of a Binary: a copy.
func (a Attr) Bytes() []byte { return bytes.Clone(a.Data) }

// Attrs are the attributes of a request or a nest, in the order of the message.
type Attrs []Attr

// Get finds the first attribute of type t. Without one it returns the zero
// Attr, whose values are all zero.
func (as Attrs) Get(t uint16) (Attr, bool) {
	for _, a := range as {
		if a.Type == t {
			return a, true
		}
	}
	return Attr{}, false
}

// Has says whether there is an attribute of type t.
func (as Attrs) Has(t uint16) bool {
	_, ok := as.Get(t)
	return ok
}

// Offset is the place of the attribute at path, the last type being inside the
// nests of those before it; 0 if there is none.
func (as Attrs) Offset(path ...uint16) uint32 {
	var a Attr
	for _, t := range path {
		found, ok := as.Get(t)
		if !ok {
			return 0
		}
		a, as = found, found.Nest
	}
	return a.Offset
}
