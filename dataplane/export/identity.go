package export

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// Names of a file's extended attributes: 16 bytes, and 32 bytes.
const (
	xattrStore  = "trusted.dst.store"
	xattrTenure = "trusted.dst.tenure"
)

// Identity is what of a store outlives the daemon: its id, and who wrote last.
type Identity struct {
	ID abi.ID
	// Tenure names the time in which Last, a client id, held the read-write
	// place; Last is zero if nobody is known.
	Tenure, Last abi.ID
	// Save makes Tenure and Last durable. nil: nothing is kept (tests).
	Save func(tenure, last abi.ID) error
	// Resized keeps the identity of a store whose size is part of how it is
	// recognised. nil: it is not.
	Resized func(size uint64) error
}

// identify finds or makes the identity of the store behind fd: extended
// attributes on files; what the hardware or the partition table says on block
// devices; else a file in the state directory.
func identify(fd int, block bool, st *unix.Stat_t, c *Config) (*Identity, error) {
	if !block {
		if id, err := identifyXattr(fd); err == nil {
			return id, nil
		}
	}
	keys := []string{sizeKey(c, uint64(st.Size))}
	if block {
		keys = deviceKeys(fd, c)
	}
	return keepIdentity(keys[0], c, keys[1:]...)
}

// keepIdentity finds or makes the identity of the store with that name in the
// state directory. What is kept there under one of the lesser names, because the
// best was not known or not asked for then, is kept under the best from now on:
// nothing else that has the lesser name may pass for this store.
func keepIdentity(key string, c *Config, lesser ...string) (*Identity, error) {
	if c.StateDir == "" {
		return nil, fmt.Errorf("device %s cannot keep an id of its own and there is no state directory: start the daemon with -state: %w",
			c.Device, unix.EINVAL)
	}
	id := new(Identity)
	k := &keeper{path: keptAt(c, key)}
	err := k.load(id)
	for i := 0; i < len(lesser) && errors.Is(err, os.ErrNotExist); i++ {
		old := &keeper{path: keptAt(c, lesser[i])}
		if err = old.load(id); err == nil {
			err = old.move(k.path)
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist):
		id.ID, id.Tenure = randomID(), randomID()
		if strings.HasPrefix(key, "wwid ") || strings.HasPrefix(key, "partition ") {
			id.ID = digestOf(key)
		}
		err = k.save(id.ID, id.Tenure, id.Last)
	}
	if err != nil {
		return nil, fmt.Errorf("the id of device %s: %w", c.Device, err)
	}
	id.Save = func(tenure, last abi.ID) error { return k.save(id.ID, tenure, last) }
	if strings.HasPrefix(key, "path ") {
		id.Resized = func(size uint64) error { return k.move(keptAt(c, sizeKey(c, size))) }
	}
	return id, nil
}

// sizeKey is the name of a store that has no better one.
func sizeKey(c *Config, size uint64) string { return fmt.Sprintf("path %s size %d", c.Device, size) }

// keptAt is the file that keeps the identity of the store with that name.
func keptAt(c *Config, key string) string {
	return filepath.Join(c.StateDir, "store-"+digestOf(key).String())
}

// identifyXattr keeps the identity in attributes of the file itself, so that it
// travels with it. Errors: the file system or our rights do not allow it.
func identifyXattr(fd int) (*Identity, error) {
	id := &Identity{Save: func(tenure, last abi.ID) error {
		if err := setTenure(fd, tenure, last); err != nil {
			return fmt.Errorf("keeping the tenure in the file's attributes: %w", err)
		}
		return syncApart(fd)
	}}
	var b [32]byte
	fresh := false
	if n, err := unix.Fgetxattr(fd, xattrTenure, b[:]); err == nil && n == 32 {
		id.Tenure, id.Last = abi.ID(b[:16]), abi.ID(b[16:])
	} else {
		// Kept at once: clients who share the place never change it.
		id.Tenure, fresh = randomID(), true
		if err := setTenure(fd, id.Tenure, id.Last); err != nil {
			return nil, err
		}
	}
	var made bool
	var err error
	if id.ID, made, err = storeAttr(fd); err != nil {
		return nil, err
	}
	if fresh || made {
		return id, syncApart(fd)
	}
	return id, nil
}

// storeAttr is the id in a file's attributes, made if there is none: then it is
// not durable yet.
func storeAttr(fd int) (id abi.ID, made bool, err error) {
	var b [len(id) + 1]byte
	switch n, err := unix.Fgetxattr(fd, xattrStore, b[:]); {
	case err == nil && n == len(id):
		return abi.ID(b[:len(id)]), false, nil
	case err == nil, errors.Is(err, unix.ENODATA), errors.Is(err, unix.ERANGE):
		id = randomID()
		return id, true, unix.Fsetxattr(fd, xattrStore, id[:], 0)
	default:
		return id, false, err
	}
}

func setTenure(fd int, tenure, last abi.ID) error {
	return unix.Fsetxattr(fd, xattrTenure, append(append([]byte(nil), tenure[:]...), last[:]...), 0)
}

// syncApart makes the file's attributes durable through a description of its
// own: an fsync of ours could take a write error that a FLUSH has to report.
func syncApart(fd int) error {
	apart, err := reopen(fd, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(apart)
	return retry(func() error { return unix.Fsync(apart) })
}

func digestOf(key string) abi.ID {
	sum := sha256.Sum256([]byte("dst store " + key))
	return abi.ID(sum[:16])
}

func randomID() (id abi.ID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// keeper keeps an identity in a file of the state directory: three ids in hex,
// a line each.
type keeper struct {
	mu   sync.Mutex
	path string
}

func (k *keeper) load(id *Identity) error {
	b, err := os.ReadFile(k.path)
	if err != nil {
		return err
	}
	lines := strings.Fields(string(b))
	if len(lines) != 3 {
		return fmt.Errorf("%s is damaged: remove it, or restore it from a backup: %w", k.path, unix.EINVAL)
	}
	for i, p := range []*abi.ID{&id.ID, &id.Tenure, &id.Last} {
		raw, err := hex.DecodeString(lines[i])
		if err != nil || len(raw) != len(p) {
			return fmt.Errorf("%s is damaged: remove it, or restore it from a backup: %w", k.path, unix.EINVAL)
		}
		*p = abi.ID(raw)
	}
	return nil
}

// save replaces the file so that after a crash the old or the new one is there.
func (k *keeper) save(id, tenure, last abi.ID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	tmp, err := os.OpenFile(k.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(tmp, "%v\n%v\n%v\n", id, tenure, last)
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), k.path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return err
	}
	return k.syncDir()
}

// move keeps the identity in another file.
func (k *keeper) move(path string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := os.Rename(k.path, path); err != nil {
		return err
	}
	k.path = path
	return k.syncDir()
}

func (k *keeper) syncDir() error {
	dir, err := os.Open(filepath.Dir(k.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
