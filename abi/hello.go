package abi

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Handshake limits, in bytes.
const (
	HelloMax = 960 // attributes of a HELLO, so that all before WELCOME stays below 1 KiB
	TLVMax   = 960 // attributes of a WELCOME or REFUSE
	NameMax  = 31  // node name, export name
	TextMax  = 255 // REFUSE's sentence
)

// WireAttr is the type of an attribute in HELLO, WELCOME and REFUSE. The top
// bit on the wire means "must be understood": who does not know such an
// attribute refuses; others are skipped when unknown.
type WireAttr uint16

const mustUnderstand = 0x8000

const (
	WireExport    WireAttr = 1  // HELLO: name of the export, 0 to 31 bytes
	WireClientID  WireAttr = 2  // HELLO: 16 bytes, random for each attachment
	WireEpoch     WireAttr = 3  // HELLO, WELCOME: u64, grows with every connection of a client id, from 1
	WireMode      WireAttr = 4  // HELLO: wanted, WELCOME: granted; u32 of Perm bits
	WireFeatures  WireAttr = 5  // u64 of Feature bits
	WireKeepalive WireAttr = 6  // u32 ms: a PING at the latest every so often
	WireMaxSize   WireAttr = 7  // u32 bytes: largest data of one request
	WireDepth     WireAttr = 8  // u32: most requests in flight
	WireDigest    WireAttr = 9  // name of the digest, "none" or "crc32c"
	WireTenure    WireAttr = 10 // 16 bytes: see Hello.Tenure
	WireVerifier  WireAttr = 11 // WELCOME: 16 bytes
	WireStoreID   WireAttr = 12 // WELCOME: 16 bytes
	WireSize      WireAttr = 13 // WELCOME: u64 bytes
	WireBlockMin  WireAttr = 14 // WELCOME: u32 bytes: alignment of every request
	WireBlockPref WireAttr = 15 // WELCOME: u32 bytes
	WireCode      WireAttr = 16 // REFUSE: u32 of Refuse…
	WireErrno     WireAttr = 17 // REFUSE: u32
	WireText      WireAttr = 18 // REFUSE: sentence, at most 255 bytes
	WireSteal     WireAttr = 19 // HELLO: empty: take the read-write place of a living client
)

// Perm is what a client may do (the original's permission bits).
type Perm uint32

const (
	PermRead  Perm = 1
	PermWrite Perm = 2
	PermRW         = PermRead | PermWrite
)

// String is deny, ro or rw.
func (p Perm) String() string {
	switch {
	case p&PermWrite != 0:
		return "rw"
	case p&PermRead != 0:
		return "ro"
	}
	return "deny"
}

// Feature bits of a WELCOME: what the export really does.
const (
	FeatureFlush       uint64 = 1 << 0
	FeatureFUA         uint64 = 1 << 1
	FeatureDiscard     uint64 = 1 << 2
	FeatureWriteZeroes uint64 = 1 << 3
	FeatureRotational  uint64 = 1 << 4
	FeatureStable      uint64 = 1 << 5 // every answer is STABLE (shared, writethrough)
)

// ID is a random 128-bit name: of a client's attachment, a store, a tenure.
type ID [16]byte

// String is the ID in hex.
func (id ID) String() string { return fmt.Sprintf("%x", id[:]) }

// String is the verifier in hex.
func (v Verifier) String() string { return fmt.Sprintf("%x", v[:]) }

// Hello is what a client says of itself.
type Hello struct {
	Export    string
	ClientID  ID
	Epoch     uint64
	Mode      Perm
	Keepalive uint32 // ms
	MaxSize   uint32
	Depth     uint32
	Digest    string
	// Tenure is the tenure of this client's last WELCOME, zero at first. A
	// read-write client that finds another tenure lost its place to somebody
	// who may have written since: it must not resend.
	Tenure ID
	Steal  bool
}

// Welcome is what an export grants.
type Welcome struct {
	Epoch     uint64
	Mode      Perm
	Features  uint64
	Keepalive uint32
	MaxSize   uint32
	Depth     uint32
	Tenure    ID
	Verifier  Verifier
	StoreID   ID
	Size      uint64
	BlockMin  uint32
	BlockPref uint32
}

// RefuseCode says why an export refuses a HELLO.
type RefuseCode uint32

const (
	RefuseNoAccess  RefuseCode = 1 // not allowed, or no such export: the same answer
	RefuseBusy      RefuseCode = 2 // another client has the read-write place
	RefuseStale     RefuseCode = 3 // a newer epoch of this client id was seen
	RefuseUnknown   RefuseCode = 4 // an attribute that must be understood is not known here
	RefuseMalformed RefuseCode = 5
	RefuseDigest    RefuseCode = 6 // the two ends are configured with different digests
	RefuseShutdown  RefuseCode = 7 // the export is being removed or not started yet: come back
	RefuseLimit     RefuseCode = 8 // no room for another session: come back
)

// Refuse is an export's refusal.
type Refuse struct {
	Code  RefuseCode
	Errno unix.Errno
	Text  string
}

// Error is the refusal's sentence.
func (r *Refuse) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("the export refused (code %d)", r.Code)
	}
	return r.Text
}

// Unwrap is the refusal's errno.
func (r *Refuse) Unwrap() error { return r.Errno }

// Append encodes h behind b.
func (h *Hello) Append(b []byte) []byte {
	b = putBytes(b, WireExport|mustUnderstand, []byte(h.Export))
	b = putBytes(b, WireClientID|mustUnderstand, h.ClientID[:])
	b = putU64(b, WireEpoch|mustUnderstand, h.Epoch)
	b = putU32(b, WireMode|mustUnderstand, uint32(h.Mode))
	b = putU32(b, WireKeepalive, h.Keepalive)
	b = putU32(b, WireMaxSize, h.MaxSize)
	b = putU32(b, WireDepth, h.Depth)
	b = putBytes(b, WireDigest|mustUnderstand, []byte(h.Digest))
	if h.Tenure != (ID{}) {
		b = putBytes(b, WireTenure, h.Tenure[:])
	}
	if h.Steal {
		b = putBytes(b, WireSteal|mustUnderstand, nil)
	}
	return b
}

// Parse decodes the attributes b of a HELLO. Errors are *Refuse: what to
// answer the client.
func (h *Hello) Parse(b []byte) error {
	*h = Hello{}
	return eachAttr(b, uint32(1)<<WireExport|1<<WireClientID|1<<WireEpoch|1<<WireMode|1<<WireDigest,
		func(t WireAttr, v []byte) bool {
			switch t {
			case WireExport:
				h.Export = string(v)
				return len(v) <= NameMax
			case WireClientID:
				return getID(&h.ClientID, v) && h.ClientID != ID{}
			case WireEpoch:
				return getU64(&h.Epoch, v) && h.Epoch != 0
			case WireMode:
				return getU32((*uint32)(&h.Mode), v) && h.Mode&^PermRW == 0 && h.Mode != 0
			case WireKeepalive:
				return getU32(&h.Keepalive, v)
			case WireMaxSize:
				return getU32(&h.MaxSize, v)
			case WireDepth:
				return getU32(&h.Depth, v)
			case WireDigest:
				h.Digest = string(v)
				return len(v) <= NameMax
			case WireTenure:
				return getID(&h.Tenure, v)
			case WireSteal:
				h.Steal = true
				return len(v) == 0
			}
			return false
		}, helloAttrs)
}

// Append encodes w behind b.
func (w *Welcome) Append(b []byte) []byte {
	b = putU64(b, WireEpoch|mustUnderstand, w.Epoch)
	b = putU32(b, WireMode|mustUnderstand, uint32(w.Mode))
	b = putU64(b, WireFeatures, w.Features)
	b = putU32(b, WireKeepalive, w.Keepalive)
	b = putU32(b, WireMaxSize|mustUnderstand, w.MaxSize)
	b = putU32(b, WireDepth|mustUnderstand, w.Depth)
	b = putBytes(b, WireTenure, w.Tenure[:])
	b = putBytes(b, WireVerifier|mustUnderstand, w.Verifier[:])
	b = putBytes(b, WireStoreID|mustUnderstand, w.StoreID[:])
	b = putU64(b, WireSize|mustUnderstand, w.Size)
	b = putU32(b, WireBlockMin|mustUnderstand, w.BlockMin)
	return putU32(b, WireBlockPref, w.BlockPref)
}

// Parse decodes the attributes b of a WELCOME and checks each by itself: a
// size below 2^63, block sizes that are powers of two from 512 to 64 KiB, a
// largest request and a depth above 0. Errors are *Refuse.
func (w *Welcome) Parse(b []byte) error {
	*w = Welcome{}
	return eachAttr(b, uint32(1)<<WireEpoch|1<<WireMode|1<<WireMaxSize|1<<WireDepth|1<<WireVerifier|
		1<<WireStoreID|1<<WireSize|1<<WireBlockMin,
		func(t WireAttr, v []byte) bool {
			switch t {
			case WireEpoch:
				return getU64(&w.Epoch, v)
			case WireMode:
				return getU32((*uint32)(&w.Mode), v) && w.Mode&^PermRW == 0 && w.Mode&PermRead != 0
			case WireFeatures:
				return getU64(&w.Features, v)
			case WireKeepalive:
				return getU32(&w.Keepalive, v)
			case WireMaxSize:
				return getU32(&w.MaxSize, v) && w.MaxSize >= 4096 && w.MaxSize <= MaxRequest
			case WireDepth:
				return getU32(&w.Depth, v) && w.Depth != 0
			case WireTenure:
				return getID(&w.Tenure, v)
			case WireVerifier:
				return getID((*ID)(&w.Verifier), v)
			case WireStoreID:
				return getID(&w.StoreID, v) && w.StoreID != ID{}
			case WireSize:
				return getU64(&w.Size, v) && w.Size < 1<<63
			case WireBlockMin:
				return getU32(&w.BlockMin, v) && blockSize(w.BlockMin)
			case WireBlockPref:
				return getU32(&w.BlockPref, v) && blockSize(w.BlockPref)
			}
			return false
		}, welcomeAttrs)
}

// Append encodes r behind b; a sentence above TextMax is cut.
func (r *Refuse) Append(b []byte) []byte {
	b = putU32(b, WireCode|mustUnderstand, uint32(r.Code))
	b = putU32(b, WireErrno, uint32(r.Errno))
	return putBytes(b, WireText, []byte(r.Text[:min(len(r.Text), TextMax)]))
}

// Parse decodes the attributes b of a REFUSE.
func (r *Refuse) Parse(b []byte) error {
	*r = Refuse{}
	return eachAttr(b, uint32(1)<<WireCode, func(t WireAttr, v []byte) bool {
		switch t {
		case WireCode:
			return getU32((*uint32)(&r.Code), v)
		case WireErrno:
			var n uint32
			ok := getU32(&n, v) && n <= 0xffff
			r.Errno = unix.Errno(n)
			return ok
		case WireText:
			r.Text = string(v)
			return len(v) <= TextMax
		}
		return false
	}, refuseAttrs)
}

const (
	helloAttrs = uint32(1)<<WireExport | 1<<WireClientID | 1<<WireEpoch | 1<<WireMode | 1<<WireKeepalive |
		1<<WireMaxSize | 1<<WireDepth | 1<<WireDigest | 1<<WireTenure | 1<<WireSteal
	welcomeAttrs = uint32(1)<<WireEpoch | 1<<WireMode | 1<<WireFeatures | 1<<WireKeepalive | 1<<WireMaxSize |
		1<<WireDepth | 1<<WireTenure | 1<<WireVerifier | 1<<WireStoreID | 1<<WireSize | 1<<WireBlockMin | 1<<WireBlockPref
	refuseAttrs = uint32(1)<<WireCode | 1<<WireErrno | 1<<WireText
)

// eachAttr walks attributes (type u16, length u16, value; big-endian, no
// padding), hands the known ones to take and refuses what is malformed, given
// twice, missing, or unknown and must be understood.
func eachAttr(b []byte, need uint32, take func(WireAttr, []byte) bool, known uint32) error {
	seen := uint32(0)
	for len(b) > 0 {
		if len(b) < 4 {
			return malformed("%d bytes left over behind the attributes", len(b))
		}
		raw, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		t := WireAttr(raw &^ mustUnderstand)
		if n > len(b)-4 {
			return malformed("attribute %d says %d bytes where %d follow", t, n, len(b)-4)
		}
		value := b[4 : 4+n]
		b = b[4+n:]
		if t >= 32 || known&(1<<t) == 0 {
			if raw&mustUnderstand != 0 {
				return &Refuse{Code: RefuseUnknown, Errno: unix.EOPNOTSUPP,
					Text: fmt.Sprintf("attribute %d must be understood and is not known to this version: use the same version at both ends", t)}
			}
			continue
		}
		if seen&(1<<t) != 0 {
			return malformed("attribute %d is given twice", t)
		}
		seen |= 1 << t
		if !take(t, value) {
			return malformed("attribute %d has a value that is not allowed", t)
		}
	}
	if missing := need &^ seen; missing != 0 {
		return malformed("attributes %#x are missing", missing)
	}
	return nil
}

func malformed(format string, args ...any) *Refuse {
	return &Refuse{Code: RefuseMalformed, Errno: unix.EPROTO, Text: "malformed handshake: " + fmt.Sprintf(format, args...)}
}

func blockSize(n uint32) bool { return n >= SectorSize && n <= 64<<10 && n&(n-1) == 0 }

func putBytes(b []byte, t WireAttr, v []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}

func putU32(b []byte, t WireAttr, v uint32) []byte {
	return putBytes(b, t, binary.BigEndian.AppendUint32(nil, v))
}

func putU64(b []byte, t WireAttr, v uint64) []byte {
	return putBytes(b, t, binary.BigEndian.AppendUint64(nil, v))
}

func getU32(p *uint32, v []byte) bool {
	if len(v) != 4 {
		return false
	}
	*p = binary.BigEndian.Uint32(v)
	return true
}

func getU64(p *uint64, v []byte) bool {
	if len(v) != 8 {
		return false
	}
	*p = binary.BigEndian.Uint64(v)
	return true
}

func getID(p *ID, v []byte) bool {
	if len(v) != len(p) {
		return false
	}
	copy(p[:], v)
	return true
}
