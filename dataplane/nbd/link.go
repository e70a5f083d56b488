package nbd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// linkTries is how often makeLink tries against what changes meanwhile.
const linkTries = 5

// The link /dev/dst/NAME leads to the device of a remote. udev may make the
// same one by its rule: a link that leads where it should is left alone, and
// whoever of the two comes first made it.

// checkLink refuses a link that would take the place of something that is not
// ours: anything but a symbolic link to an NBD device, or a link to a device
// that bears another backend.
func (h host) checkLink(link, backend string) error {
	if link == "" {
		return nil
	}
	info, err := os.Lstat(link)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("device link: %w", err)
	}
	if info.Mode().Type() != os.ModeSymlink {
		return fmt.Errorf("%s is not a link to a device: remove it: %w", link, unix.EEXIST)
	}
	target := follow(link)
	index, ok := indexOf(target)
	if !ok || filepath.Dir(target) != h.dev {
		return fmt.Errorf("%s leads to %s: remove it: %w", link, target, unix.EEXIST)
	}
	if b := h.backend(index); b != "" && b != backend {
		return fmt.Errorf("%s leads to %s, which is in use by %s: free that one first: %w", link, target, b, unix.EEXIST)
	}
	return nil
}

// makeLink makes link lead to the device, in one step and in place of a link
// that nobody needs any more. udev may be at work at the same time.
func (h host) makeLink(link, backend string, index int) (err error) {
	if link == "" {
		return nil
	}
	node := h.node(index)
	target := node
	if near, rerr := filepath.Rel(filepath.Dir(link), node); rerr == nil && strings.HasPrefix(link, h.dev+"/") {
		target = near // as udev writes it
	}
	for range linkTries {
		if follow(link) == node {
			return nil
		}
		if err = h.checkLink(link, backend); err != nil {
			return err
		}
		if err = os.Symlink(target, link); os.IsExist(err) {
			err = replace(link, target)
		}
		if os.IsNotExist(err) { // udev removes a directory with the last link in it
			merr := os.Mkdir(filepath.Dir(link), 0o755)
			if merr == nil {
				merr = os.Chmod(filepath.Dir(link), 0o755) // whatever the umask
			}
			if merr != nil && !os.IsExist(merr) {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("device link: %w", err)
	}
	return nil
}

// replace puts a link in the place of another in one step.
func replace(link, target string) error {
	made := filepath.Join(filepath.Dir(link), "."+filepath.Base(link)+"~")
	if err := os.Remove(made); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Symlink(target, made); err != nil {
		return err
	}
	return os.Rename(made, link)
}

// RemoveLink removes link if it leads to the device at path, and anything else
// never. Anybody may call it.
func RemoveLink(link, path string) error {
	if link == "" || follow(link) != path {
		return nil
	}
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("device link: %w", err)
	}
	return nil
}

// follow is where a link leads, one step, empty if it is none.
func follow(link string) string {
	target, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(link), target)
	}
	return filepath.Clean(target)
}
