package main

import (
	"fmt"
	"strconv"
	"strings"
)

// textSize is bytes for people: 512B, 10GiB, 953.7MiB.
func textSize(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	return scaled(n) + "iB"
}

// scaled is a number in powers of 1024, with one decimal where it is not whole.
func scaled(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10)
	}
	const units = "KMGTPE"
	i, unit := 0, uint64(1024)
	for n/unit >= 1024 {
		unit *= 1024
		i++
	}
	whole, tenth := n/unit, n%unit*10/unit // E: the remainder is below 2^60, times ten below 2^64
	if n%unit == 0 || tenth == 0 {
		return strconv.FormatUint(whole, 10) + units[i:i+1]
	}
	return fmt.Sprintf("%d.%d%c", whole, tenth, units[i])
}

// textTime is milliseconds exactly, as TIME is written: 500ms, 5s, 1m30s.
func textTime(ms uint64) string {
	if ms == 0 {
		return "0s"
	}
	text := ""
	for _, u := range []struct {
		name string
		ms   uint64
	}{{"h", 3600_000}, {"m", 60_000}, {"s", 1000}, {"ms", 1}} {
		if n := ms / u.ms; n > 0 {
			text += strconv.FormatUint(n, 10) + u.name
			ms -= n * u.ms
		}
	}
	return text
}

// textAge is milliseconds for people, in at most two units: 350ms, 12s, 3h12m, 4d2h.
func textAge(ms uint64) string {
	const day = 24 * 3600_000
	switch {
	case ms < 1000:
		return textTime(ms)
	case ms < 3600_000:
		return textTime(ms - ms%1000)
	case ms < day:
		return textTime(ms - ms%60_000)
	}
	days := strconv.FormatUint(ms/day, 10) + "d"
	if rest := ms % day; rest >= 3600_000 {
		return days + textTime(rest-rest%3600_000)
	}
	return days
}

// record prints the lines of one thing, those behind the first indented; as
// one line, joined by "\", if that is asked for.
func (s *session) record(lines []string) {
	sep := "\n    "
	if s.opts.oneline {
		sep = `\    `
	}
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	s.printf("%s\n", strings.Join(lines, sep))
}

// columns are two lines, names above numbers, each column as wide as it needs.
func columns(title string, cells ...string) []string {
	head, row := fmt.Sprintf("%-6s", title), strings.Repeat(" ", 6)
	for i := 0; i+1 < len(cells); i += 2 {
		width := max(len(cells[i]), len(cells[i+1]), 7)
		head += fmt.Sprintf(" %*s", width, cells[i])
		row += fmt.Sprintf(" %*s", width, cells[i+1])
	}
	return []string{head, row}
}

// count is a counter: exact, or scaled for people.
func (s *session) count(n uint64) string {
	if s.opts.human {
		return scaled(n)
	}
	return strconv.FormatUint(n, 10)
}

// bytes are exact with -d, else for people.
func (s *session) bytes(n uint64) string {
	if s.opts.details {
		return strconv.FormatUint(n, 10)
	}
	return textSize(n)
}
