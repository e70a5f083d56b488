package export

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if tests leave goroutines or descriptors behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(descriptors{m}) }

type descriptors struct{ m *testing.M }

func (d descriptors) Run() int {
	before := openFiles()
	code := d.m.Run()
	for name := range openFiles() {
		if _, ok := before[name]; !ok && code == 0 && !strings.Contains(name, "anon_inode") { // the runtime's poller
			fmt.Fprintln(os.Stderr, "left open: "+name)
			code = 1
		}
	}
	return code
}

// openFiles is what is behind each descriptor of the process.
func openFiles() map[string]struct{} {
	all := make(map[string]struct{})
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range dir {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			all[e.Name()+" "+to] = struct{}{}
		}
	}
	return all
}

// Unfence takes the fence out: old sessions' requests run on.
func (n *Node) Unfence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.core.unfenced = true
}
