package dataplane

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/crypt"
)

// keyring is the keys of a node. The run directory has them too, so that the
// next daemon serves with the very same ones; nobody else gets to see them.
type keyring struct {
	run  *runDir
	node string
	keys []*crypt.Key
}

// keyring is the keys that the run directory remembers for n, which has had some
// if its Status says so. Errors: EUCLEAN if they are gone or damaged: a node that
// had keys must not come back without.
func (d *runDir) keyring(n *abi.Node) (*keyring, error) {
	r := &keyring{run: d, node: n.Name}
	var err error
	r.keys, err = d.loadKeys(n.Name, n.Status != nil && len(n.Status.Keys) > 0)
	return r, err
}

// change does ch to the keys: they are remembered, apply puts them in force, and
// those that are not among them any more end. After an error nothing has changed.
func (r *keyring) change(ch *cryptoChange, apply func([]*crypt.Key) error) error {
	next, err := r.next(ch)
	if err != nil || slices.Equal(next, r.keys) {
		return err
	}
	kept, err := r.run.stageKeys(r.node, next)
	if err != nil {
		return err
	}
	if err := apply(next); err != nil {
		kept.drop()
		return err
	}
	was := r.keys
	r.keys = next
	for _, k := range was {
		if !slices.Contains(next, k) {
			k.Wipe()
		}
	}
	if slices.Contains(next, ch.key) {
		ch.key = nil // the ring's from now on
	}
	return kept.commit()
}

// next is what the keys become with ch. One that is there already stays the same
// one. Errors: EEXIST, ENOENT, EBUSY for the last one.
func (r *keyring) next(ch *cryptoChange) ([]*crypt.Key, error) {
	has := func(id abi.KeyID) int {
		return slices.IndexFunc(r.keys, func(k *crypt.Key) bool { return k.ID() == id })
	}
	switch {
	case ch.op == abi.CryptoOpDel:
		i := has(ch.id)
		if i < 0 {
			return nil, abi.Blame(abi.AttrCryptoKeyID, fmt.Errorf("node %q has no key %v: see dstctl crypto show: %w", r.node, ch.id, unix.ENOENT))
		}
		if len(r.keys) == 1 {
			return nil, abi.Blame(abi.AttrCryptoKeyID, fmt.Errorf("key %v is the last one of %q, which would speak in clear without it: add another first, or say crypto set hash crc32c if clear is meant: %w", ch.id, r.node, unix.EBUSY))
		}
		return slices.Delete(slices.Clone(r.keys), i, i+1), nil
	case ch.key == nil && ch.plain == "":
		return r.keys, nil
	case ch.key == nil:
		return nil, nil
	}
	i := has(ch.key.ID())
	switch {
	case ch.op == abi.CryptoOpAdd && i >= 0:
		return nil, fmt.Errorf("node %q has that key already, as %v: %w", r.node, ch.key.ID(), unix.EEXIST)
	case ch.op == abi.CryptoOpAdd && len(r.keys) == 0:
		return nil, fmt.Errorf("node %q speaks in clear: set its first key, add is for more of them: %w", r.node, unix.EINVAL)
	case ch.op == abi.CryptoOpAdd && len(r.keys) == maxKeys:
		return nil, fmt.Errorf("node %q has %d keys: remove one that is not used any more: %w", r.node, maxKeys, unix.ENOSPC)
	case ch.op == abi.CryptoOpAdd:
		return append(slices.Clone(r.keys), ch.key), nil
	case i >= 0:
		return r.keys[i : i+1 : i+1], nil
	}
	return []*crypt.Key{ch.key}, nil
}

// maxKeys of one export: an answer of GET has room for them.
const maxKeys = 256

// only is the key of a node that has at most one, nil if it has none.
func (r *keyring) only() *crypt.Key { return first(r.keys) }

func first(keys []*crypt.Key) *crypt.Key {
	if len(keys) == 0 {
		return nil
	}
	return keys[0]
}

// wipe ends the keys for this daemon; what is remembered stays.
func (r *keyring) wipe() {
	for _, k := range r.keys {
		k.Wipe()
	}
}

// shown is what may be told of the keys.
func (r *keyring) shown() (all []abi.Key) {
	for _, k := range r.keys {
		all = append(all, abi.Key{ID: k.ID(), Cipher: k.Suite().Cipher(), Hash: k.Suite().Hash()})
	}
	return all
}

// describe is what show tells of how n's data is protected; n has its Status.
// With keys there is no digest to speak of: the records are authenticated.
func (r *keyring) describe(n *abi.Node, digest crypt.Digest) {
	if len(r.keys) == 0 {
		n.Knobs.CryptoThreads = nil
		if digest == crypt.DigestNone {
			n.Status.Warnings = append(n.Status.Warnings, "hash none: data is not checked on its way")
		}
		return
	}
	n.Hash = ""
	n.Default = slices.DeleteFunc(n.Default, func(attr uint16) bool { return attr == abi.AttrNodeHash })
	if n.Knobs.CryptoThreads == nil {
		n.Knobs.CryptoThreads = new(uint32)
		n.Default = append(n.Default, abi.AttrNodeCryptoThreads)
	}
	for _, k := range r.keys {
		if w := k.Suite().Warning(); w != "" && !slices.Contains(n.Status.Warnings, w) {
			n.Status.Warnings = append(n.Status.Warnings, w)
		}
	}
}
