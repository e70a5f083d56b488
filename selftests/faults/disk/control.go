package disk

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is the grammar of Do; words in capitals stand for a value.
const Usage = `fail OP with ERRNO after N times N
stall OP for TIME after N times N
heal OP
release
room BYTES
lose PERCENT
evict
stats
OP is read, write, sync or erase; times 0 = for ever; ERRNO as EIO; room -1 = no limit; a stall ends by itself or by release`

// Do carries out one line in the words of Usage and returns what it has to say ("ok" if nothing more).
func (d *Disk) Do(line string) (string, error) {
	w := strings.Fields(line)
	switch {
	case len(w) == 8 && w[0] == "fail" && w[2] == "with", len(w) == 8 && w[0] == "stall" && w[2] == "for":
		return "ok", d.order(w)
	case len(w) == 2 && w[0] == "heal":
		op, err := parseOp(w[1])
		if err == nil {
			d.Order(op, nil)
		}
		return "ok", err
	case line == "release":
		d.Release()
		return "ok", nil
	case len(w) == 2 && w[0] == "room":
		n, err := strconv.Atoi(w[1])
		if err == nil {
			d.Room(n)
		}
		return "ok", err
	case len(w) == 2 && w[0] == "lose":
		n, err := strconv.Atoi(w[1])
		if err != nil {
			return "", err
		}
		return fmt.Sprint("ok ", d.Lose(float64(n)/100, rand.New(rand.NewPCG(rand.Uint64(), 0)))), nil
	case line == "evict":
		return fmt.Sprint("ok ", d.Evict()), nil
	case line == "stats":
		s := d.Stats()
		return fmt.Sprintf("ok read %d write %d sync %d erase %d hit %d held %d dirty %d",
			s.Done[Read], s.Done[Write], s.Done[Sync], s.Done[Erase], s.Hit, s.Held, s.Dirty), nil
	}
	return "", fmt.Errorf("%q is not understood; want one of:\n%s", line, Usage)
}

// order is "fail" and "stall".
func (d *Disk) order(w []string) error {
	op, err := parseOp(w[1])
	if err != nil {
		return err
	}
	f := new(Fault)
	if w[0] == "fail" {
		if f.Errno = errnoOf(w[3]); f.Errno == 0 {
			return fmt.Errorf("no such errno: %q", w[3])
		}
	} else if f.Stall, err = time.ParseDuration(w[3]); err != nil {
		return err
	}
	if w[4] != "after" || w[6] != "times" {
		return fmt.Errorf("want: after N times N")
	}
	if f.After, err = strconv.ParseUint(w[5], 10, 64); err != nil {
		return err
	}
	if f.Count, err = strconv.ParseUint(w[7], 10, 64); err == nil {
		d.Order(op, f)
	}
	return err
}

func parseOp(word string) (Op, error) {
	for op := range ops {
		if op.String() == word {
			return op, nil
		}
	}
	return 0, fmt.Errorf("operation %q: want read, write, sync or erase", word)
}

// errnoOf is the errno of that name, 0 if there is none.
func errnoOf(name string) unix.Errno {
	for e := unix.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}

// Serve carries out line after line of r and answers each on w, "ok…" or "error: …", until r ends.
func (d *Disk) Serve(r io.Reader, w io.Writer) error { return Serve(r, w, d.Do) }

// Serve is Disk.Serve for orders to whomever.
func Serve(r io.Reader, w io.Writer, do func(line string) (string, error)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		answer, err := do(strings.TrimSpace(lines.Text()))
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(w, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
