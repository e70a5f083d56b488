package cutproxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Usage is the grammar of Do; words in capitals stand for a value.
const Usage = `cut now MODE
cut after N bytes dir DIR mode MODE
corrupt at N dir DIR
blackhole on
blackhole off
blackhole on dir DIR
blackhole off dir DIR
refuse on
refuse off
delay TIME
stats
MODE is rst, fin or silent; DIR is up or down`

// Do carries out one line in the words of Usage and returns what it has to say ("ok" if nothing more).
func (p *Proxy) Do(line string) (string, error) {
	w := strings.Fields(line)
	switch {
	case is(w, "cut now MODE"):
		mode, err := parseMode(w[2])
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("ok %d", p.CutNow(mode)), nil
	case is(w, "cut after N bytes dir DIR mode MODE"):
		n, err1 := strconv.ParseUint(w[2], 10, 64)
		dir, err2 := parseDir(w[5])
		mode, err3 := parseMode(w[7])
		if err := errors.Join(err1, err2, err3); err != nil {
			return "", err
		}
		p.CutAfter(dir, n, mode)
	case is(w, "corrupt at N dir DIR"):
		n, err1 := strconv.ParseUint(w[2], 10, 64)
		dir, err2 := parseDir(w[4])
		if err := errors.Join(err1, err2); err != nil {
			return "", err
		}
		p.CorruptAt(dir, n)
	case is(w, "blackhole on"), is(w, "blackhole off"):
		p.Blackhole(w[1] == "on")
	case is(w, "blackhole on dir DIR"), is(w, "blackhole off dir DIR"):
		dir, err := parseDir(w[3])
		if err != nil {
			return "", err
		}
		p.BlackholeOf(dir, w[1] == "on")
	case is(w, "refuse on"), is(w, "refuse off"):
		p.Refuse(w[1] == "on")
	case is(w, "delay TIME"):
		d, err := time.ParseDuration(w[1])
		if err != nil || d < 0 {
			return "", fmt.Errorf("delay %q: want a time as 20ms", w[1])
		}
		p.Delay(d)
	case is(w, "stats"):
		s := p.Stats()
		return fmt.Sprintf("ok accepted %d live %d up %d down %d cuts %d", s.Accepted, s.Live, s.Bytes[Up], s.Bytes[Down], s.Cuts), nil
	default:
		return "", fmt.Errorf("%q is not understood; want one of:\n%s", line, Usage)
	}
	return "ok", nil
}

// is tells whether the words are those of a command of Usage.
func is(w []string, command string) bool {
	want := strings.Fields(command)
	if len(w) != len(want) {
		return false
	}
	for i := range w {
		if w[i] != want[i] && want[i] != strings.ToUpper(want[i]) {
			return false
		}
	}
	return true
}

func parseDir(word string) (Dir, error) {
	switch word {
	case "up":
		return Up, nil
	case "down":
		return Down, nil
	}
	return 0, fmt.Errorf("direction %q: want up or down", word)
}

func parseMode(word string) (Mode, error) {
	switch word {
	case "rst":
		return RST, nil
	case "fin":
		return FIN, nil
	case "silent":
		return Silent, nil
	}
	return 0, fmt.Errorf("mode %q: want rst, fin or silent", word)
}

// Serve carries out line after line of r and answers each on w, "ok…" or "error: …", until r ends.
func (p *Proxy) Serve(r io.Reader, w io.Writer) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		answer, err := p.Do(lines.Text())
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(w, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
