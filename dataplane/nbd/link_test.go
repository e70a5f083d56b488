package nbd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLink(t *testing.T) {
	for name, tt := range map[string]struct {
		there func(h host, link string) error // before
		errno error
		words string
	}{
		"nothing there":   {func(host, string) error { return nil }, nil, ""},
		"udev was faster": {func(_ host, link string) error { return os.Symlink("../nbd0", link) }, nil, ""},
		"absolute":        {func(h host, link string) error { return os.Symlink(h.dev+"/nbd0", link) }, nil, ""},
		"stale":           {func(_ host, link string) error { return os.Symlink("../nbd2", link) }, nil, ""},
		"stale, left-over": {func(h host, link string) error {
			return errors.Join(os.Symlink("../nbd77", link), os.Symlink("x", h.dev+"/dst/.vol0~"))
		}, nil, ""},
		"somebody's device":  {func(_ host, link string) error { return os.Symlink("../nbd1", link) }, unix.EEXIST, "in use by other"},
		"a link to a disk":   {func(h host, link string) error { return os.Symlink("../sda", link) }, unix.EEXIST, "remove it"},
		"a link to far away": {func(h host, link string) error { return os.Symlink("/srv/nbd2", link) }, unix.EEXIST, "remove it"},
		"a file":             {func(_ host, link string) error { return os.WriteFile(link, nil, 0o600) }, unix.EEXIST, "not a link"},
		"a directory":        {func(_ host, link string) error { return os.Mkdir(link, 0o700) }, unix.EEXIST, "not a link"},
		"no directory":       {func(_ host, link string) error { return os.Remove(filepath.Dir(link)) }, nil, ""},
		"no directory above": {func(h host, _ string) error { return os.RemoveAll(h.dev) }, unix.ENOENT, "device link"},
	} {
		t.Run(name, func(t *testing.T) {
			h := tree(t)
			link := h.dev + "/dst/vol0"
			if err := errors.Join(os.Mkdir(h.dev+"/dst", 0o700), tt.there(h, link)); err != nil {
				t.Fatal(err)
			}
			before := follow(link)
			err := h.makeLink(link, "dst:vol0:1", 0)
			if !errors.Is(err, tt.errno) || !strings.Contains(fmt.Sprint(err), tt.words) {
				t.Errorf("%v, want %v with %q", err, tt.errno, tt.words)
			}
			want := h.dev + "/nbd0"
			if tt.errno != nil {
				want = before
			}
			if got := follow(link); got != want {
				t.Errorf("leads to %q, want %q", got, want)
			}
			if err := RemoveLink(link, h.dev+"/nbd0"); err != nil {
				t.Error(err)
			}
			if got := follow(link); tt.errno == nil && got != "" || tt.errno != nil && got != before {
				t.Errorf("leads to %q when it should be gone, or untouched", got)
			}
		})
	}
	if err := errors.Join(tree(t).makeLink("", "dst:vol0:1", 0), RemoveLink("", "/dev/nbd0")); err != nil {
		t.Errorf("no link wanted: %v", err)
	}
}
