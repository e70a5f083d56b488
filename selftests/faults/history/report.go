package history

import (
	"fmt"
	"strings"
)

// violationsMax is how many violations are told in full.
const violationsMax = 20

// Complain notes something that must not happen and is no matter of sectors.
func (h *History) Complain(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.complain(what)
}

func (h *History) complain(what string) {
	if h.count++; h.count <= violationsMax {
		h.violations = append(h.violations, what)
	}
}

func (h *History) accuse(op *Op, lba uint64, what string) {
	h.complain(fmt.Sprintf("sector %d: %s found %s", lba, h.tell(op), what))
}

// tell describes an operation, in seconds since the beginning.
func (h *History) tell(op *Op) string {
	s := fmt.Sprintf("%s of %d sectors at %d", op.Kind, op.N, op.LBA)
	if op.ID != 0 {
		s += fmt.Sprintf(" (writer %d, its change %d)", op.ID.Writer(), op.ID.Number())
	}
	s += fmt.Sprintf(" from %.6f", op.begun.Sub(h.origin).Seconds())
	if op.outcome != Pending {
		s += fmt.Sprintf(" to %.6f", op.ended.Sub(h.origin).Seconds())
	}
	return s + ", " + op.outcome.String()
}

func (h *History) name(vs []version, id ID) string {
	for i := range vs {
		if vs[i].op.ID == id {
			return h.tell(vs[i].op)
		}
	}
	if id == 0 {
		return "zeroes, which were forgotten long ago"
	}
	return fmt.Sprintf("change %d of writer %d, which was forgotten long ago", id.Number(), id.Writer())
}

// list is what could be in a sector.
func (h *History) list(vs []version) string {
	var b strings.Builder
	for i := range vs {
		state := "may be there"
		if vs[i].dead != never {
			state = "is gone"
		}
		fmt.Fprintf(&b, "    %s: %s\n", state, h.tell(vs[i].op))
	}
	return b.String()
}

// Violations is how many there were, and the first of them.
func (h *History) Violations() (n int, first []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, append([]string(nil), h.violations...)
}

// Open is how many operations have not ended.
func (h *History) Open() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for op := h.open.next; op != &h.open; op = op.next {
		n++
	}
	return n
}

// Ended is how many operations ended, by Outcome.
func (h *History) Ended() [4]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ops
}

// Clock is the present time of the history; Since tells whether every operation that began before a time has ended.
func (h *History) Clock() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

// Since tells whether every operation that began before a time has ended.
func (h *History) Since(clock uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open.next == &h.open || h.open.next.start > clock
}
