package export

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Unfence takes the fence out: old sessions' requests run on.
func (n *Node) Unfence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.core.unfenced = true
}
