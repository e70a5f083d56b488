package dataplane

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// TestSocketPlaceIsCheckedAtAdd: what would fail when the device appears fails now.
func TestSocketPlaceIsCheckedAtAdd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := remoteNode{conf: abi.Node{Name: "vol0", Attach: abi.AttachSocket, Socket: filepath.Join(dir, "sock")}}
	if err := r.checkSocket(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := r.checkSocket(); !errors.Is(err, unix.EPERM) {
		t.Errorf("a directory that others can write to: %v", err)
	}
}
