package crypt

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"dst/abi"

	"golang.org/x/sys/unix"
)

// The handshake is Noise NNpsk0. Message 1 has a part in clear, which selects the
// key and is authenticated with all the rest as the prologue:
//
//	"DST2" | version u8 | suite u8 | key id [8] | length u16 | message 1 of Noise
//
// Payload of message 1: 16 random bytes, features u32. Of message 2: features u32,
// largest record u32. Numbers are big-endian. What may follow in the payload of
// message 1 is of a later version and skipped.
const (
	magic     = "DST2"
	version   = 1
	prologue  = "DST2 prologue"
	freshness = 16 // random bytes of message 1

	payload1 = freshness + 4
	payload2 = 4 + 4
	message1 = pointSize + payload1 + tagSize // at least
	longest1 = 256

	HandshakeHead = 16                             // bytes of message 1 that tell its length
	HandshakeMax  = HandshakeHead + longest1       // bytes of message 1 at most
	ReplySize     = pointSize + payload2 + tagSize // bytes of message 2
)

// featuresMust are the feature bits that mean: refuse if you do not know it. The
// others are skipped. None is defined yet.
const featuresMust = 0xFFFF0000

// ErrRefused is the one error of the handshake, whatever the cause: who is outside
// learns nothing from it, and who is inside compares the configurations.
var ErrRefused = fmt.Errorf("the handshake was refused: both ends need the same key files, names of algorithms and a version that knows the other: %w", unix.EACCES)

// Secrets are the keys of one connection, from this end's point of view: Noise
// transport keys, different in each connection and direction.
type Secrets struct {
	Suite         Suite
	Send, Receive [secretSize]byte
}

// Wipe forgets the keys.
func (s *Secrets) Wipe() { clear(s.Send[:]); clear(s.Receive[:]) }

// Format writes nothing of the keys, whatever the verb.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "secrets") }

// Initiator is the client's end of a handshake that waits for message 2. It is
// for one goroutine.
type Initiator struct {
	suite Suite
	n     *noise
	e     *ecdh.PrivateKey
}

// Initiate begins a handshake: what to send first, HandshakeMax bytes at most.
// Errors: EACCES (ErrRefused) for a wiped key.
func Initiate(k *Key) (*Initiator, []byte, error) {
	e, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, ErrRefused
	}
	var payload [payload1]byte
	rand.Read(payload[:freshness])
	return initiate(k, e, payload[:])
}

// initiate is Initiate with its random numbers.
func initiate(k *Key, e *ecdh.PrivateKey, payload []byte) (*Initiator, []byte, error) {
	size := pointSize + len(payload) + tagSize
	head := appendClear(make([]byte, 0, HandshakeHead+size), k, size)
	n := begin(k, head)
	if n == nil {
		return nil, nil, ErrRefused
	}
	msg1 := n.write1(head, e, payload)
	if n.err != nil {
		return nil, nil, ErrRefused
	}
	return &Initiator{suite: k.suite, n: n, e: e}, msg1, nil
}

// Finish ends the handshake with message 2, of ReplySize bytes: the secrets, which
// the other end has only if it had the key; it proves to have them with its first
// record. Errors: EACCES (ErrRefused), also when it is called again.
func (i *Initiator) Finish(msg2 []byte) (s Secrets, err error) {
	if i.e == nil || len(msg2) != ReplySize {
		i.forget()
		return Secrets{}, ErrRefused
	}
	defer i.forget()
	payload := i.n.read2(i.e, msg2)
	if i.n.err != nil || !understood(payload) || binary.BigEndian.Uint32(payload[4:]) < RecordData {
		return Secrets{}, ErrRefused
	}
	s.Suite = i.suite
	if i.n.split(&s.Send, &s.Receive); i.n.err != nil {
		return Secrets{}, ErrRefused
	}
	return s, nil
}

func (i *Initiator) forget() {
	i.n.wipe()
	i.e = nil
}

// appendClear appends the clear part of a message 1 of n bytes.
func appendClear(b []byte, k *Key, n int) []byte {
	b = append(append(b, magic...), version, k.suite.wire())
	return binary.BigEndian.AppendUint16(append(b, k.id[:]...), uint16(n))
}

// begin is the state of both ends with key k after the clear bytes, nil for a wiped key.
func begin(k *Key, head []byte) (n *noise) {
	suite, ok := suiteOf(head[len(magic)+1])
	if !ok {
		return nil
	}
	k.with(func(psk []byte) {
		n = newNoise(suite.cipher == cipherChaCha, append([]byte(prologue), head[:HandshakeHead]...), psk)
	})
	return n
}

// MessageSize is the size of message 1 in all, in bytes, which its first
// HandshakeHead bytes tell: more is not to be read before it is refused. Errors:
// EACCES (ErrRefused) if head is too short or is not the beginning of one.
func MessageSize(head []byte) (total int, err error) {
	if len(head) < HandshakeHead || string(head[:len(magic)]) != magic || head[len(magic)] != version {
		return 0, ErrRefused
	}
	if _, ok := suiteOf(head[len(magic)+1]); !ok {
		return 0, ErrRefused
	}
	n := int(binary.BigEndian.Uint16(head[HandshakeHead-2:]))
	if n < message1 || n > longest1 {
		return 0, ErrRefused
	}
	return HandshakeHead + n, nil
}

// stranger stands for the key that is not there: a new one in each life of the
// process, and nobody knows it.
var stranger = sync.OnceValue(func() *Key {
	k := &Key{suite: Suite{cipher: cipherGCM}, psk: new([secretSize]byte)}
	rand.Read(k.psk[:])
	return k
})

// Respond answers message 1: the secrets, the key that the other end has, and
// message 2 to be sent. Anybody can repeat a message 1 that he has recorded, and
// gets nothing by that but an answer of no use: only the first record shows that
// the other end lives, and nothing is to be done for it before. find is the key of
// an id or nil; what it does is not to depend on the keys. Errors: EACCES
// (ErrRefused) for every cause, with the same work and in the same time for an
// unknown id and for a wrong key.
func Respond(msg1 []byte, find func(abi.KeyID) *Key) (s Secrets, k *Key, msg2 []byte, err error) {
	if total, err := MessageSize(msg1); err != nil || total != len(msg1) {
		return Secrets{}, nil, nil, ErrRefused
	}
	id := abi.KeyID(msg1[len(magic)+2:])
	nobody := stranger()
	used := nobody
	if k = find(id); k != nil && k.suite.wire() == msg1[len(magic)+1] && subtle.ConstantTimeCompare(k.id[:], id[:]) == 1 {
		used = k
	}
	n := begin(used, msg1)
	if n == nil { // wiped
		used = nobody
		n = begin(nobody, msg1)
	}
	defer n.wipe()
	p, payload := n.read1(msg1[HandshakeHead:])
	if n.err != nil || used == nobody || !understood(payload[freshness:]) {
		return Secrets{}, nil, nil, ErrRefused
	}
	e, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Secrets{}, nil, nil, ErrRefused
	}
	if msg2 = reply(n, e, p, &s); msg2 == nil {
		return Secrets{}, nil, nil, ErrRefused
	}
	s.Suite = k.suite
	return s, k, msg2, nil
}

// reply is message 2 for who has sent p, and the secrets. It is nil if p is of low
// order.
func reply(n *noise, e *ecdh.PrivateKey, p []byte, s *Secrets) []byte {
	var payload [payload2]byte
	binary.BigEndian.PutUint32(payload[4:], RecordData)
	msg2 := n.write2(make([]byte, 0, ReplySize), e, p, payload[:])
	n.split(&s.Receive, &s.Send)
	if n.err != nil {
		return nil
	}
	return msg2
}

// understood tells whether we may go on with a peer that has the features which b
// begins with.
func understood(b []byte) bool {
	return len(b) >= 4 && binary.BigEndian.Uint32(b)&featuresMust == 0
}
