package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dst/dataplane/crypt"
)

// The file nodes/NAME/keys of the run directory: the keys of a node as crypt
// encodes them, one behind the other, or noKeys. It is replaced in one step, and
// what was in it is overwritten.

// noKeys is in the file of a node that has no keys any more: an empty one is
// damaged, and not a node in clear.
const noKeys = "no keys\n"

func (d *runDir) keys(name string) string { return filepath.Join(d.node(name), "keys") }

// loadKeys reads the keys of a node, and overwrites what a daemon has left that died
// while it changed them. Errors: EUCLEAN if they are damaged, or if there are none
// although some are demanded.
func (d *runDir) loadKeys(name string, demanded bool) (keys []*crypt.Key, err error) {
	shred(d.keys(name) + ".new")
	b, err := os.ReadFile(d.keys(name))
	defer func() { clear(b) }()
	switch {
	case errors.Is(err, os.ErrNotExist) && !demanded:
		return nil, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the remembered keys of node %q are gone: remove the node and add it again: %w", name, unix.EUCLEAN)
	case err != nil:
		return nil, fmt.Errorf("the remembered keys of node %q: %w", name, err)
	case string(b) == noKeys:
		return nil, nil
	}
	for rest := b; len(rest) > 0 || len(keys) == 0; {
		var k *crypt.Key
		if k, rest, err = crypt.ParseKey(rest); err != nil {
			for _, k := range keys {
				k.Wipe()
			}
			return nil, fmt.Errorf("the remembered keys of node %q are damaged: remove the node and add it again: %w", name, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// stagedKeys is the keys of a node, written and not yet in force.
type stagedKeys struct{ path, staged string }

// stageKeys writes keys beside those that are in force: from there on there is
// room for them.
func (d *runDir) stageKeys(name string, keys []*crypt.Key) (*stagedKeys, error) {
	s := &stagedKeys{d.keys(name), d.keys(name) + ".new"}
	var b []byte
	for _, k := range keys {
		grown := k.Append(b)
		if len(b) > 0 && &grown[0] != &b[0] {
			clear(b)
		}
		b = grown
	}
	defer func() { clear(b) }()
	if len(keys) == 0 {
		b = []byte(noKeys)
	}
	shred(s.staged)
	if err := os.WriteFile(s.staged, b, 0o600); err != nil {
		s.drop()
		return nil, fmt.Errorf("the keys of node %q cannot be remembered in %s, make room there: %w", name, d.path, err)
	}
	return s, nil
}

func (s *stagedKeys) drop() { shred(s.staged) }

// commit puts the staged keys in force.
func (s *stagedKeys) commit() error {
	old, err := os.OpenFile(s.path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err == nil {
		defer old.Close()
	}
	if err := os.Rename(s.staged, s.path); err != nil {
		return fmt.Errorf("it is done, but the next daemon will not know of it: %w", err)
	}
	overwrite(old)
	return nil
}

// shred overwrites and removes a file of keys, if there is one.
func shred(path string) {
	if f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0); err == nil {
		overwrite(f)
		f.Close()
	}
	_ = os.Remove(path)
}

// overwrite makes zeroes of what is in f, which may be nil.
func overwrite(f *os.File) {
	if info, err := f.Stat(); err == nil {
		_, _ = f.WriteAt(make([]byte, info.Size()), 0) // best effort: the file goes either way
	}
}
