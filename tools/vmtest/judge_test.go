package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	tests := []struct {
		line string
		code int
		says string
	}{
		{"exit 0", 0, ""},
		{"exit 3", 3, ""},
		{"exit 255\r", 255, ""},
		{"signal 9", 137, ""},
		{"broken module: nbd: no such device", exitBroken, "in the guest: module: nbd: no such device"},
		{"exit 256", exitBroken, "unreadable"},
		{"exit -1", exitBroken, "unreadable"},
		{"exit", exitBroken, "unreadable"},
		{"exit ", exitBroken, "unreadable"},
		{"exit 0 ", exitBroken, "unreadable"},
		{"signal 0", exitBroken, "unreadable"},
		{"signal 128", exitBroken, "unreadable"},
		{"", exitBroken, "unreadable"},
		{"0", exitBroken, "unreadable"},
	}
	for _, tt := range tests {
		code, err := judge(tt.line)
		if code != tt.code || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("judge(%q) = %d, %v; want %d, %q", tt.line, code, err, tt.code, tt.says)
		}
	}
}

// FuzzJudge holds that only one line means success.
func FuzzJudge(f *testing.F) {
	for _, line := range []string{"exit 0", "exit 3", "signal 9", "broken x", "exit 00", "exit +0", ""} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		code, err := judge(line)
		if code < 0 || code > 255 || err != nil && code != exitBroken {
			t.Fatalf("%q: %d, %v", line, code, err)
		}
		if code == 0 && strings.Trim(strings.TrimPrefix(strings.TrimSuffix(line, "\r"), "exit "), "0") != "" {
			t.Fatalf("%q was taken for success", line)
		}
	})
}

func TestLastWords(t *testing.T) {
	log := "[0] boots\r\n[1] " + mark + "a\r\n[2] nbd: says\r\n[3] " + markEnd + "\r\n[4] halts\r\n"
	long := strings.Repeat("line\n", 100)
	for _, tt := range []struct {
		log  string
		all  bool
		want string
	}{
		{log, false, "[2] nbd: says\n"},
		{log, true, strings.ReplaceAll(log, "\r", "")},
		{"[1] " + mark + "a\n[2] " + markEnd + "\n", false, ""},
		{"[1] " + mark + "a\n[2] oops\n", false, "[2] oops\n"},
		{"no mark\n", false, "no mark\n"},
		{long, true, strings.Repeat("line\n", 59)},
		{"", false, ""},
	} {
		if got := lastWords(tt.log, tt.all); got != tt.want {
			t.Errorf("lastWords(%.60q, %v) = %q, want %q", tt.log, tt.all, got, tt.want)
		}
	}
}

func TestReadLine(t *testing.T) {
	for in, want := range map[string]string{
		"exit 0\n": "exit 0", "exit 0\nmore\n": "exit 0", "exit 1": "", "": "", strings.Repeat("x", 10000): "",
	} {
		if got := readLine(strings.NewReader(in)); got != want {
			t.Errorf("readLine(%.20q) = %q, want %q", in, got, want)
		}
	}
}

// Example_parseModule shows the words that name modules.
func Example_parseModule() {
	for _, word := range []string{"nbd", "vsock-loopback", "nbd:max_part=15:nbds_max=4", "+sctp"} {
		m := parseModule(word)
		fmt.Printf("%s %q %v\n", m.Name, m.Params, m.Load)
	}
	// Output:
	// nbd "" true
	// vsock_loopback "" true
	// nbd "max_part=15 nbds_max=4" true
	// sctp "" false
}
