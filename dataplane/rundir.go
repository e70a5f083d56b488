package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/dataplane/mempool"
	"dst/dataplane/remote"
	"dst/dataplane/trans"
)

// runDir is what a daemon leaves for the next one of the same boot:
//
//	boot                 boot id of the host
//	lock                 held by the living daemon
//	nodes/NAME/config    the node as it was configured (attributes of the control ABI)
//	nodes/NAME/keys      its keys, see keyring
//	nodes/NAME/page      a remote's attachment, see remote.Saved
//	nodes/NAME/log       its payload memory, and what of it is acknowledged and not durable, see trans.Memory
//
// It lies on tmpfs, so that nothing in it outlives the host.
type runDir struct {
	path string
	lock *os.File
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// openRunDir makes, checks and locks the run directory. What another boot
// wrote is erased. Errors: EBUSY if another daemon has it.
func openRunDir(path string) (*runDir, error) {
	if err := makeDir(path); err != nil {
		return nil, err
	}
	if err := ensureTmpfs(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("run directory %s belongs to another dstd: stop it or choose another -run: %w", path, unix.EBUSY)
	}
	d := &runDir{path, lock}
	if err := d.checkBoot(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *runDir) close() { d.lock.Close() }

// checkBoot erases the nodes of another boot: what their logs and pages say is
// as untrue as after a crash of the host, which it was.
func (d *runDir) checkBoot() error {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	file := filepath.Join(d.path, "boot")
	if old, err := os.ReadFile(file); err != nil || !bytes.Equal(old, boot) {
		if err := os.RemoveAll(filepath.Join(d.path, "nodes")); err != nil {
			return err
		}
		if err := writeFile(file, boot); err != nil {
			return err
		}
	}
	return makeDir(filepath.Join(d.path, "nodes"))
}

func (d *runDir) node(name string) string { return filepath.Join(d.path, "nodes", name) }

// save remembers n's configuration, replacing what was remembered in one step.
func (d *runDir) save(n *abi.Node) error {
	b, err := abi.Marshal(n)
	if err != nil {
		return err
	}
	if err = makeDir(d.node(n.Name)); err == nil {
		err = writeFile(filepath.Join(d.node(n.Name), "config"), b)
	}
	if err != nil {
		return fmt.Errorf("node %q cannot be remembered in %s, make room there: %w", n.Name, d.path, err)
	}
	return nil
}

// erase forgets a node; from its first step on the next daemon does not make it
// again.
func (d *runDir) erase(name string) {
	_ = os.Remove(filepath.Join(d.node(name), "config"))
	shred(d.keys(name))
	shred(d.keys(name) + ".new")
	_ = os.RemoveAll(d.node(name))
}

// load reads all remembered configurations; a damaged one is logged and
// skipped.
func (d *runDir) load(log zerolog.Logger) (nodes []*abi.Node) {
	entries, err := os.ReadDir(filepath.Join(d.path, "nodes"))
	if err != nil {
		log.Error().Err(err).Msg("run directory cannot be read")
	}
	for _, e := range entries {
		n := new(abi.Node)
		b, err := os.ReadFile(filepath.Join(d.node(e.Name()), "config"))
		if errors.Is(err, os.ErrNotExist) {
			d.erase(e.Name()) // a daemon died while it added this node
			continue
		}
		if err == nil {
			err = abi.Unmarshal(b, n)
		}
		if err == nil && (n.Name != e.Name() || abi.ValidName(n.Name) != nil || n.Status == nil || n.Kind != abi.KindRemote && n.Kind != abi.KindExport) {
			err = unix.EUCLEAN
		}
		if err != nil {
			log.Error().Err(err).Str("node", e.Name()).Msg("remembered configuration cannot be read: add the node again")
			continue
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// page maps the page that remembers a remote's attachment, making it if the
// node is new. The mapping is shared with the file, so that it outlives the
// daemon. Errors: EUCLEAN if the page of a remembered node is not whole: an
// empty one would pass for a client that has written nothing.
func (d *runDir) page(name string) ([]byte, error) {
	if err := makeDir(d.node(name)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.node(name), "page"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(d.node(name), "config")); err == nil && info.Size() != remote.SavedSize {
		return nil, fmt.Errorf("the remembered attachment of node %q is damaged: remove the node and add it again: %w", name, unix.EUCLEAN)
	}
	// allocated, not sparse: a page that cannot be had later would be a SIGBUS
	if err := mempool.Allocate(f, 0, remote.SavedSize); err != nil {
		return nil, fmt.Errorf("the run directory has no room for a node: %w", err)
	}
	return unix.Mmap(int(f.Fd()), 0, remote.SavedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// memory opens the payload memory of a remote with its replay log, making it if
// the node is new. A damaged log is made anew and told of: whether the node can go
// on without it is decided when its peer is asked.
func (d *runDir) memory(name string, b *mempool.Budget, s trans.Sizes, owner abi.ID, log zerolog.Logger) (*trans.Memory, error) {
	path := filepath.Join(d.node(name), "log")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := trans.OpenMemory(f, b, s, owner)
	if errors.Is(err, unix.EUCLEAN) {
		log.Error().Err(err).Str("node", name).Msg("the replay log can not be used: going on without what it held")
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
		m, err = trans.OpenMemory(f, b, s, owner)
	}
	return m, err
}

// readPage is the page of a node that is not mapped; an empty one if there is
// none, or if it is not whole.
func (d *runDir) readPage(name string) []byte {
	b, err := os.ReadFile(filepath.Join(d.node(name), "page"))
	if err != nil || len(b) != remote.SavedSize {
		return make([]byte, remote.SavedSize)
	}
	return b
}

// makeDir makes a directory of the daemon, for its user only. A symlink in its
// place, and a directory that others may write to, are refused: who can exchange
// files there commands the daemon.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("directory %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory: choose another: %w", path, unix.ENOTDIR)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("directory %s belongs to uid %d: give it to uid %d or choose another: %w", path, owner, os.Geteuid(), unix.EPERM)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("directory %s can be written by others: chmod go-w it or choose another: %w", path, unix.EPERM)
	}
	return nil
}

// makeOpenDir makes the directory of the links unless it is there. Others may follow
// them, whatever the umask of the daemon: the devices have modes of their own.
func makeOpenDir(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// ensureTmpfs mounts a tmpfs on path unless one is there.
func ensureTmpfs(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("directory %s: %w", path, err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("%s is not on tmpfs and none can be mounted there: choose a -run on tmpfs: %w", path, err)
	}
	return nil
}

// writeFile replaces a file in one step.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	err := os.WriteFile(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // half of it would only take room
	}
	return err
}
