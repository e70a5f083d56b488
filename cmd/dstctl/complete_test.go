package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dst/abi"
)

func TestComplete(t *testing.T) {
	for words, want := range map[string]string{
		"":                                "export remote security crypto key start del show node stats sys monitor help",
		"s":                               "security start show stats sys",
		"-":                               "-V -b -br -d -force -h -help -j -n -o -p -s -t -wait",
		"-j -p ex":                        "export",
		"-b |":                            ":files",
		"-wait |":                         "",
		"export |":                        "add set show help",
		"start |":                         "vol0 disk0",
		"del v":                           "vol0",
		"del vol0 |":                      "force",
		"export set |":                    "vol0",
		"remote show |":                   "disk0",
		"security add |":                  "vol0",
		"export add |":                    "",
		"export add v |":                  "device listen size shared writethrough read-only direct buffered require-crypto max-pages depth arena keepalive workers hash start",
		"export add v device |":           ":files",
		"export add v device /x li":       "listen",
		"export add v listen |":           "tcp: mptcp: sctp: unix: vsock:",
		"export add v listen t":           "tcp:",
		"export add v direct b":           "",
		"export add v read-only re":       "require-crypto",
		"remote add r attach |":           "nbd socket none",
		"remote add r attach s":           "socket",
		"remote add r attach socket ":     ":files",
		"remote add r export |":           "",
		"remote add r fail-after |":       "1s 5s 30s never",
		"security add vol0 |":             "any unix vsock",
		"security add vol0 any r":         "ro rw",
		"export set vol0 read-only o":     "on off",
		"remote add r partscan |":         "on off",
		"remote set r size |":             "1G 10G 100G all",
		"crypto set v hash |":             "crc32c none hmac(sha256) hmac(sha384) hmac(sha512)",
		"crypto |":                        "set add del show help",
		"crypto set v key /k |":           "cipher hash hash-key threads allow-legacy",
		"crypto set v key |":              ":files",
		"crypto del v":                    "vol0",
		"crypto show |":                   "vol0 disk0",
		"key |":                           "gen help",
		"key gen |":                       ":files",
		"security del vol0 any |":         "ro rw deny key",
		"security del vol0 any k":         "key",
		"security del vol0 any key |":     "5d0cbb2a1f6a9e34 0102000000000000",
		"security add vol0 any rw key 0|": "0102000000000000",
		"crypto del vol0 key-id |":        "5d0cbb2a1f6a9e34 0102000000000000",
		"crypto del disk0 key-id |":       "",
		"security add vol0 any rw |":      "key",
		"help re":                         "remote",
		"help remote |":                   "add set show",
		"nonsense |":                      "",
		"export add v nonsense |":         "",
		"sys show |":                      "",
		"monitor |":                       "",
	} {
		before, _ := strings.CutSuffix(words, "|")
		d := exampleNodes()
		d.nodes["vol0"].Status.Keys = []abi.Key{{ID: abi.KeyID{0x5d, 0x0c, 0xbb, 0x2a, 0x1f, 0x6a, 0x9e, 0x34}}, {ID: abi.KeyID{1, 2}}}
		got := runWords(t, d, append([]string{"__complete", "--"}, strings.Split(before, " ")...), false, "")
		if list := strings.Join(strings.Fields(got.out), " "); list != want || got.code != 0 || got.err != "" {
			t.Errorf("%q: %q, want %q; %+v", words, list, want, got.err)
		}
	}
}

// TestCompleteAlone: without a daemon completion is silent.
func TestCompleteAlone(t *testing.T) {
	got := dstctl(t, nil, "__complete -- show")
	if got.code != 0 || got.out != "show\n" || got.err != "" {
		t.Errorf("%+v", got)
	}
}

// TestCompleteNetns: names come from the namespace that -n names.
func TestCompleteNetns(t *testing.T) {
	var entered, asked string
	code := run(t.Context(), world{stdout: io.Discard, stderr: io.Discard, enter: func(ns string, args []string) error {
		entered, asked = ns, strings.Join(args, " ")
		return nil
	}}, strings.Fields("__complete -- -j -n blue -s show v"))
	if code != exitDone || entered != "blue" || asked != "__complete -- -j -s show v" {
		t.Errorf("exit %d, entered %q with %q", code, entered, asked)
	}
}

// TestBash runs the wrapper for bash with a dstctl that says what it was asked.
func TestBash(t *testing.T) {
	script, err := filepath.Abs("../../tools/completion/dstctl.bash")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file one"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"dstctl export add v li":          "asked(export,add,v,li) listen|",
		"dstctl export add v ":            "asked(export,add,v,) device|",
		"dstctl export add v listen tc":   "asked(export,add,v,listen,tc) tcp:|",
		"dstctl export add v listen tcp:": "asked(export,add,v,listen,tcp:) |",
		"dstctl export add v device fi":   "asked(export,add,v,device,fi) file one|",
	} {
		text := fmt.Sprintf(`compopt() { :; }
dstctl() {
	shift 2; local IFS=,; echo -n "asked($*) " >&2
	case ${!#} in li) echo listen;; '') echo device;; tc|tcp:) echo tcp:;; fi) echo :files;; esac
}
. %q; COMP_LINE=%q COMP_POINT=%d; _dstctl 2>&1; printf '%%s|' "${COMPREPLY[@]}"`, script, typed, len(typed))
		text = strings.Replace(text, "2>/dev/null)", "2>&1)", 1)
		cmd := exec.Command("bash", "-c", strings.Replace(text, "echo -n \"asked($*) \" >&2", "echo -n \"asked($*) \" >&3", 1))
		cmd.Dir = dir
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{w}
		out, err := cmd.CombinedOutput()
		w.Close()
		asked := make([]byte, 1000)
		n, _ := r.Read(asked)
		r.Close()
		if got := string(asked[:n]) + string(out); err != nil || got != want {
			t.Errorf("%q: %q, want %q (%v)", typed, got, want, err)
		}
	}
}
