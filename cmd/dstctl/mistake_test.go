package main

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dst/abi"
	"dst/controlplane/client"
)

// TestMistakes: what is not understood gets a sentence, a mark under the word
// and exit code 1, and nothing is sent. A ^ in the command stands before the
// word that must be marked; none = at the end; "^!" at its end = no mark.
func TestMistakes(t *testing.T) {
	const add = "export add v device /x listen tcp:10.0.0.1:9 "
	const peer = "remote add r peer tcp:10.0.0.1:9 "
	for _, tt := range []struct{ command, sentence string }{
		// objects, commands, options
		{"^expotr add", `unknown object "expotr": expected one of export, remote, security, crypto, key, start, del, show, node, stats, sys, monitor, help; did you mean "export"?`},
		{"^config show", `unknown object "config": expected one of export,`},
		{"^sh", `unknown object "sh"`},
		{"export ^ad v", `unknown command "ad" of export: expected one of add, set, show, help; did you mean "add"?`},
		{"export ^del v", `did you mean "dstctl del"?`},
		{"^-x show", `unknown option "-x": expected one of -V, -b,`},
		{"show ^-s", `options stand before the object: dstctl -s show`},
		{"-wait ^5 show", `"5" is not a time`},
		{"-wait", `option "-wait" needs a value: TIME`},
		{"-b f ^show", `leave "show" out`},
		// words
		{"export add v device /x ^lisen tcp:10.0.0.1:9", `unknown word "lisen": expected one of listen, size, shared,`},
		{"export add device ^/x listen tcp:10.0.0.1:9", `unknown word "/x": "device" was read as the name of the node; is the name missing?`},
		{"export add", `NAME is missing`},
		{"export add v device /x", `listen ADDR[,ADDR...] is missing`},
		{"export add v listen tcp:10.0.0.1:9", `device PATH is missing`},
		{"export add v device", `"device" needs a value: PATH`},
		{add + "^device /y", `"device" is given twice`},
		{add + "shared ^shared", `"shared" is given twice`},
		{add + "direct ^buffered", `"buffered" contradicts "direct"`},
		{"remote add r", `peer ADDR[,ADDR...] is missing`},
		{peer + "attach", `"attach" needs a value: nbd|socket PATH|none`},
		{peer + "attach ^sockt /a", `unknown word "sockt": expected one of nbd, socket, none; did you mean "socket"?`},
		{peer + "attach socket", `"socket" needs a value: PATH`},
		{peer + "attach nbd ^attach none", `"attach" is given twice`},
		{"export set v", `nothing to set: expected one of read-only, size, keepalive, workers`},
		{"export set v read-only ^yes", `unknown word "yes": expected one of on, off`},
		{"export set v ^depth 3", `unknown word "depth"`},
		{"crypto set v", `nothing to set`},
		{"crypto set v cipher aes", `"cipher" needs "key" beside it`},
		{"crypto set v key /k ^cipher-key /k", `"cipher-key" contradicts "key"`},
		{"crypto add v", `nothing to add: expected one of key, cipher, cipher-key, hash, hash-key, allow-legacy`},
		{"crypto add v ^threads 3", `unknown word "threads"`},
		{"crypto del v", `key-id ID is missing`},
		{"crypto del v key-id ^5d0cbb2a1f6a9e3", `key id "5d0cbb2a1f6a9e3" is not 16 hex digits`},
		{"crypto ^st v", `unknown command "st" of crypto: expected one of set, add, del, show, help; did you mean "set"?`},
		{"key gen", `PATH is missing`},
		{"key", `key needs a command: gen`},
		{"security add v any rw key ^x", `key id "x" is not 16 hex digits`},
		{"security del v any ^kay x", `unknown word "kay"`},
		{"crypto set v cipher-key /k", `"cipher-key" needs "cipher" beside it`},
		{"crypto set v hash-key /k", `"hash-key" needs "hash" beside it`},
		{"crypto set v threads ^1025", `threads 1025 is out of range: write 0 to 1024`},
		{"del v ^forse", `unknown word "forse": expected force; did you mean "force"?`},
		{"start", `NAME is missing`},
		{"start v ^w", `unknown word "w": expected steal`},
		{"sys show ^x", `nothing may follow here`},
		{"help ^foo", `unknown object "foo"`},
		{"help export ^foo", `unknown command "foo" of export`},
		// names
		{"start ^-v", `name "-v": character '-' is not allowed there`},
		{"start ^a/b", `name "a/b": character '/'`},
		{"start ^" + strings.Repeat("a", 32), `has 32 characters: write 1 to 31`},
		{"export add ^ä device /x listen tcp:10.0.0.1:9", `name "ä": character`},
		{peer + "export ^a,b", `name "a,b"`},
		// sizes, numbers, times
		{add + "size ^0", `size 0 holds nothing`},
		{add + "size ^0G", `size 0 holds nothing`},
		{add + "size ^10GB", `"10GB" could mean powers of 1000 or of 1024: write 10GiB`},
		{add + "size ^-1", `"-1" is not a size`},
		{add + "size ^1.5G", `"1.5G" is not a size`},
		{add + "size ^1iB", `"1iB" is not a size`},
		{add + "size ^9223372036854775808", `is too large`},
		{add + "size ^8E", `is too large`},
		{add + "size ^99999999999999999999", `is too large`},
		{add + "arena ^x", `"x" is not a size`},
		{add + "depth ^0", `depth 0 is out of range: write 1 to 4096`},
		{add + "depth ^+1", `"+1" is not a number`},
		{add + "max-pages ^8193", `max-pages 8193 is out of range: write 1 to 8192`},
		{add + "workers ^many", `"many" is not a number`},
		{add + "keepalive ^9ms", `keepalive 9ms is out of range: write 10ms to 1h`},
		{add + "keepalive ^1", `"1" is not a time: write a number with ms, s, m or h, like 5s`},
		{add + "keepalive ^0.1ms", `finer than a millisecond`},
		{add + "keepalive ^2000h", `is too long`},
		{add + "keepalive ^off", `"off" is not a time`},
		{peer + "request-timeout ^0s", `write "off" if that is meant`},
		{peer + "fail-after ^nevr", `"nevr" is not a time: write a number with ms, s, m or h, like 5s, or never`},
		{add + "hash ^" + strings.Repeat("x", 32), `has 32 characters`},
		// addresses
		{"export add v device /x listen ^9876", `address "9876" has no medium: write tcp:HOST:PORT, mptcp:HOST:PORT, sctp:HOST:PORT, unix:PATH or vsock:CID:PORT`},
		{"export add v device /x listen ^udp:10.0.0.1:9", `unknown medium "udp"`},
		{"export add v device /x listen ^tcp:10.0.0.1", `port`},
		{"export add v device /x listen ^tcp:10.0.0.1:0", `port "0" is not a number from 1 to 65535`},
		{"export add v device /x listen ^tcp:10.0.0.1:65536", `port "65536"`},
		{"export add v device /x listen ^tcp:fd00::1:9", `write an IPv6 host, and only that, in brackets`},
		{"export add v device /x listen ^tcp:10.0.0.256:9", `host "10.0.0.256" is not an address`},
		{"export add v device /x listen ^tcp:[fe80::1%eth8]:9", `there is no interface "eth8" here`},
		{"export add v device /x listen ^tcp:nowhere:9", `host "nowhere" could not be looked up (the network is down): write its address`},
		{"export add v device /x listen ^unix:rel", `unix: takes an absolute path of at most 107 bytes`},
		{"export add v device /x listen ^unix:/" + strings.Repeat("p", 107), `at most 107 bytes`},
		{"export add v device /x listen ^mptcp:nowhere:9", `host "nowhere" could not be looked up`},
		{"export add v device /x listen ^sctp:[fe80::1%eth8]:9", `there is no interface "eth8" here`},
		{"export add v device /x listen ^vsock:9876", `write vsock:CID:PORT`},
		{"export add v device /x listen ^vsock:host:9876", `CID "host" is not a number: write that of the guest, 2 for the host`},
		{"export add v device /x listen ^vsock:2:4294967295", `port "4294967295" is not a number from 0 to 4294967294`},
		{"export add v device /x listen ^tcp:10.0.0.1:9,,tcp:10.0.0.2:9", `has an empty address between the commas`},
		{"export add v device /x listen ^tcp:10.0.0.1:9,tcp:10.0.0.1:9", `address "tcp:10.0.0.1:9" is given twice`},
		{"export add v device ^/" + strings.Repeat("p", 4095) + " listen tcp:10.0.0.1:9", `the path has 4096 bytes, at most 4095 are possible`},
		// rules
		{"security add v ^10.0.0.1/8 rw", `"10.0.0.1/8" has bits set behind the prefix: write 10.0.0.0/8`},
		{"security add v ^010.0.0.1 rw", `"010.0.0.1" has leading zeros`},
		{"security add v ^10.0.0.0/33 rw", `the prefix length is a number from 0 to 32`},
		{"security add v ^10.0.0.0/08 rw", `the prefix length is a number from 0 to 32`},
		{"security add v ^fe80::1%eth0 rw", `a rule has no interface: write fe80::1`},
		{"security add v ^::ffff:10.0.0.1 rw", `write 10.0.0.1`},
		{"security add v ^256.1.1.1 rw", `"256.1.1.1" is not whom a rule can name`},
		{"security add v ^store1 rw", `"store1" is not whom a rule can name`},
		{"security add v ^unix:root rw", `write unix:NUMBER, or unix for all of them`},
		{"security add v ^vsock:-1 rw", `write vsock:NUMBER`},
		{"security add v any ^wr", `unknown word "wr": expected one of ro, rw, deny; did you mean "rw"?`},
		{"security add v any", `ro|rw|deny is missing`},
		{"security del v", `WHO is missing`},
	} {
		words := strings.Fields(tt.command)
		want := -1
		for i, w := range words {
			if strings.HasPrefix(w, "^") {
				words[i], want = w[1:], i
			}
		}
		got := runWords(t, nil, words, false, "")
		lines := strings.Split(got.err, "\n")
		if got.code != exitMistake || got.out != "" || len(lines) != 4 || !strings.HasPrefix(lines[0], "Error: ") ||
			!strings.Contains(lines[0], tt.sentence) || !strings.HasSuffix(lines[0], ".") && !strings.HasSuffix(lines[0], "?") {
			t.Errorf("%q: exit %d, %q", tt.command, got.code, got.err)
			continue
		}
		if want < 0 {
			if strings.Trim(lines[2], " ") != "^" || len(lines[2]) != len(lines[1])+2 {
				t.Errorf("%q: the mark is not at the end:\n%s", tt.command, got.err)
			}
		} else if at := strings.IndexByte(lines[2], '^'); !strings.HasPrefix(lines[1][min(at, len(lines[1])):], words[want]) || at < 8 ||
			len([]rune(words[want])) != len(strings.TrimSpace(lines[2])) {
			t.Errorf("%q: the mark is not under %q:\n%s", tt.command, words[want], got.err)
		}
	}
}

// TestUsage: no command at all is a mistake; asking for help is not.
func TestUsage(t *testing.T) {
	for command, want := range map[string]result{
		"":        {code: exitMistake},
		"-j":      {code: exitMistake},
		"-h":      {code: exitDone},
		"-help":   {code: exitDone},
		"--help":  {code: exitDone},
		"help":    {code: exitDone},
		"-j help": {code: exitDone},
	} {
		got := dstctl(t, nil, command)
		text := got.out
		if want.code != 0 {
			text = got.err
		}
		if got.code != want.code || !strings.HasPrefix(text, "Usage: dstctl [ OPTIONS ] OBJECT") || got.out != "" && got.err != "" {
			t.Errorf("%q: %+v", command, got)
		}
	}
	if got := dstctl(t, nil, "-V"); got.code != 0 || got.out != "dstctl unknown\n" {
		t.Errorf("%+v", got)
	}
}

// TestHelpEverywhere: each object and command has help, both ways to ask for it.
func TestHelpEverywhere(t *testing.T) {
	for _, o := range objects {
		if o.name == "help" {
			continue
		}
		for _, v := range o.verbs {
			words := strings.Fields(o.name + " " + v.name)
			a := runWords(t, nil, append(words, "help"), false, "")
			b := runWords(t, nil, append([]string{"help"}, words...), false, "")
			if a.code != 0 || a != b || !strings.HasPrefix(a.out, "Usage: dstctl "+o.name) {
				t.Errorf("%s: %+v\n%+v", words, a, b)
			}
			for i, l := range strings.Split(a.out, "\n") {
				if len(l) > helpWidth && !strings.HasPrefix(l, "  dstctl ") {
					t.Errorf("%s: line %d of help is too wide: %s", words, i, l)
				}
			}
		}
		if got := dstctl(t, nil, o.name+" help"); got.code != 0 {
			t.Errorf("%s help: %+v", o.name, got)
		}
	}
}

// TestAbbreviations: only objects and commands, only on a terminal, not with -j.
func TestAbbreviations(t *testing.T) {
	for _, tt := range []struct {
		command  string
		terminal bool
		code     int
		says     string
	}{
		{"sh", true, 0, ""},
		{"e s", true, 1, `"s" could be set or show: write more of it`},
		{"s", true, 1, `"s" could be security or start or show or stats or sys: write more of it`},
		{"rem sh", true, 0, ""},
		{"remote h", true, 0, ""},
		{"e", true, 0, ""},
		{"sh", false, 1, `unknown object "sh"`},
		{"-j sh", true, 1, `unknown object "sh"`},
		{"del vol0 f", true, 1, `unknown word "f"`},
		{"del vo", true, 2, `there is no node "vo"`},
	} {
		d := exampleNodes()
		got := runWords(t, d, strings.Fields(tt.command), tt.terminal, "")
		if got.code != tt.code || !strings.Contains(got.err, tt.says) {
			t.Errorf("%q: %+v", tt.command, got)
		}
	}
}

// TestRefused: what the daemon refuses is said in its words, with a mark under
// the word that became the attribute it blames.
func TestRefused(t *testing.T) {
	in := &client.Error{Errno: unix.EADDRINUSE, Msg: "address tcp:10.0.0.2:9 is in use: choose another port", Attr: []uint16{abi.AttrNodeAddress, 3}, Nth: 1}
	for _, tt := range []struct {
		command string
		err     error
		code    int
		says    string
	}{
		{"export set vol0 workers 3 read-only off", refuse(unix.EROFS, "no", abi.AttrNodeFlagsMask), 2,
			"Error: no.\n  dstctl export set vol0 workers 3 read-only off\n                                             ^~~\n"},
		{"export add v listen tcp:10.0.0.1:9,tcp:10.0.0.2:9 device /x", in, 2,
			"Error: address tcp:10.0.0.2:9 is in use: choose another port.\n" +
				"  dstctl export add v listen tcp:10.0.0.1:9,tcp:10.0.0.2:9 device /x\n" +
				"                                            ^~~~~~~~~~~~~~\n"},
		{"export add v device /x listen tcp:10.0.0.1:9 read-only start", refuse(unix.EINVAL, "no.", abi.AttrNodeFlags), 2,
			"Error: no.\n  dstctl export add v device /x listen tcp:10.0.0.1:9 read-only start\n                                                      ^~~~~~~~~\n"},
		{"export add v device /a,b listen tcp:10.0.0.1:9", refuse(unix.ENOENT, "device /a,b does not exist", abi.AttrNodeDevice), 2,
			"Error: device /a,b does not exist.\n  dstctl export add v device /a,b listen tcp:10.0.0.1:9\n                             ^~~~\n"},
		{"export add v device /x listen tcp:10.0.0.1:9", refuse(unix.ERANGE, "size is needed", abi.AttrNodeSize), 2,
			"Error: size is needed.\n  dstctl export add v device /x listen tcp:10.0.0.1:9\n                                                      ^\n"},
		{"export add v device /x listen tcp:10.0.0.1:9", refuse(unix.EINVAL, "what?", abi.AttrNodeEpoch), 2, "Error: what?\n"},
		{"export add v device /x listen tcp:10.0.0.1:9", unix.EPERM, 2, "Error: operation not permitted.\n"},
		{"export add v device /x listen tcp:10.0.0.1:9", client.ErrNoDaemon, 4,
			"Error: no dstd answers in this network namespace: start it (systemctl start dstd), or name its namespace with -n.\n"},
	} {
		d := exampleNodes()
		d.fail["add-export"], d.fail["set"] = tt.err, tt.err
		if got := dstctl(t, d, tt.command); got.code != tt.code || got.err != tt.says {
			t.Errorf("%q: exit %d\n%s", tt.command, got.code, got.err)
		}
	}
}

// TestSentence: the errno's text is left out only where a sentence stands without it.
func TestSentence(t *testing.T) {
	for msg, want := range map[string]string{
		`node "a" exists: choose another name: file exists`: `node "a" exists: choose another name`,
		"open /x: file exists":                              "open /x: file exists",
		"sync /x: fdatasync: file exists":                   "sync /x: fdatasync: file exists",
		"a is busy: stop that first":                        "a is busy: stop that first",
		"file exists":                                       "file exists",
		"":                                                  "file exists",
	} {
		if got := sentence(&client.Error{Errno: unix.EEXIST, Msg: msg}); got != want {
			t.Errorf("%q: %q, want %q", msg, got, want)
		}
	}
}

// TestNetns: another namespace is entered before anything else, and without
// the option that named it.
func TestNetns(t *testing.T) {
	for command, want := range map[string]string{
		"-n blue show":                    "show",
		"-j -netns blue -wait 5s show -n": "-j -wait 5s show -n",
		"-b -n -n blue":                   "-b -n",
		"-n red --n blue -force -b -":     "-force -b -",
	} {
		words := strings.Fields(command)
		if got := strings.Join(withoutNetns(words), " "); got != want {
			t.Errorf("%q: %q", command, got)
		}
		entered := ""
		code := run(t.Context(), world{stdout: io.Discard, stderr: io.Discard, enter: func(ns string, args []string) error {
			entered = ns
			return nil
		}}, words)
		if code != exitDone || entered != "blue" {
			t.Errorf("%q: exit %d, entered %q", command, code, entered)
		}
	}
	err := enterNetns("no/such", nil)
	if f, ok := err.(*fault); !ok || f.code != exitRefused || !strings.Contains(f.text, "can not be opened") {
		t.Error(err)
	}
}
