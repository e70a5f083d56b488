package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"dst/abi"
)

// TestShow compares every form of output with the golden ones, which are part
// of what dstctl promises.
func TestShow(t *testing.T) {
	for name, command := range map[string]string{
		"show":            "show",
		"show-one":        "show vol0",
		"show-exports":    "export",
		"show-remotes":    "remote list",
		"show-details":    "-d show",
		"show-statistics": "-s show",
		"show-human":      "-s -h show disk0",
		"show-oneline":    "-o -s show",
		"show-brief":      "-br lst",
		"show-json":       "-j show",
		"show-json-all":   "-j -p -s -d show",
		"stats":           "stats vol0",
		"stats-brief":     "-br stats",
		"stats-json":      "-j stats",
		"sys":             "sys",
		"sys-details":     "-details sys show",
		"sys-json":        "-json -pretty sys show",
		"security":        "security show vol0",
		"security-json":   "-j security",
		"help":            "help",
		"help-object":     "remote help",
		"help-command":    "remote add help",
	} {
		t.Run(name, func(t *testing.T) {
			got := dstctl(t, exampleNodes(), command)
			if got.code != exitDone || got.err != "" {
				t.Fatalf("exit %d, %s", got.code, got.err)
			}
			golden(t, name+".golden", got.out)
			if strings.HasPrefix(command, "-j") {
				var doc struct{ Schema int }
				if err := json.Unmarshal([]byte(got.out), &doc); err != nil || doc.Schema != 1 {
					t.Errorf("schema %d, %v", doc.Schema, err)
				}
			}
		})
	}
}

// TestShowKeys: ids and algorithms of keys, who is served with them, and which
// rules are tied to them.
func TestShowKeys(t *testing.T) {
	d := exampleNodes()
	id, other := abi.KeyID{0x5d, 0x0c, 0xbb, 0x2a, 0x1f, 0x6a, 0x9e, 0x34}, abi.KeyID{1, 2}
	n := d.nodes["vol0"]
	n.Hash, n.Flags, n.Knobs.CryptoThreads = "", n.Flags|abi.NodeFlagRequireCrypto, new(uint32(4))
	n.Status.Keys = []abi.Key{{ID: id, Cipher: "gcm(aes)", Sessions: 1}, {ID: other, Cipher: "cbc(aes)", Hash: "hmac(sha256)"}}
	n.Status.Sessions[0].Key, n.Status.Rules[0].Key = id, id
	d.nodes["disk0"].Status.Keys = []abi.Key{{ID: id, Hash: "hmac(sha256)"}}
	for name, command := range map[string]string{
		"show-keys": "-d show", "show-keys-json": "-j -p -d show vol0", "crypto": "crypto", "crypto-json": "-j crypto show disk0", "security-keys": "security show vol0",
	} {
		got := dstctl(t, d, command)
		if got.code != exitDone || got.err != "" {
			t.Fatalf("exit %d, %s", got.code, got.err)
		}
		golden(t, name+".golden", got.out)
	}
}

// TestShowKernelDevice: a remote says which device it is, and who has it.
func TestShowKernelDevice(t *testing.T) {
	d := exampleNodes()
	n := d.nodes["disk0"]
	n.Attach, n.Socket, n.Flags = abi.AttachNbd, "", n.Flags|abi.NodeFlagNoPartscan
	n.Status.Device, n.Status.Link, n.Status.Users = "/dev/nbd3", "/dev/dst/disk0", []string{"mounted on /mnt", "open in process 4711 (fio)"}
	golden(t, "show-kernel.golden", dstctl(t, d, "show disk0").out)
	golden(t, "show-kernel-json.golden", dstctl(t, d, "-j -p show disk0").out)
}

// TestEmpty: a daemon without nodes is shown as nothing, and as empty lists.
func TestEmpty(t *testing.T) {
	for command, want := range map[string]string{
		"show":             "",
		"security":         "",
		"-j show":          `{"schema":1,"nodes":[]}` + "\n",
		"-j stats":         `{"schema":1,"stats":[]}` + "\n",
		"-j security show": `{"schema":1,"rules":[]}` + "\n",
	} {
		if got := dstctl(t, newFake(), command); got.code != 0 || got.out != want {
			t.Errorf("%s: %+v", command, got)
		}
	}
}

// TestTextAndJSON demands that text says what JSON says: each value of the
// full JSON stands in the full text, in the form of the text.
func TestTextAndJSON(t *testing.T) {
	text := dstctl(t, exampleNodes(), "-s -d show").out
	var doc any
	if err := json.Unmarshal([]byte(dstctl(t, exampleNodes(), "-j -s -d show").out), &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	var walk func(key string, v any)
	walk = func(key string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, one := range v {
				if k != "schema" {
					walk(k, one)
				}
			}
			return
		case []any:
			for _, one := range v {
				walk(key, one)
			}
			return
		case bool:
			if !v {
				return
			}
			walk(key, key)
			return
		case float64:
			forms := []string{jsonNumber(v)}
			if strings.HasSuffix(key, "_ms") || key == "value" {
				forms = append(forms, textTime(uint64(v)), textAge(uint64(v)), "off")
			}
			for _, form := range forms {
				if strings.Contains(text, form) {
					n++
					return
				}
			}
			t.Errorf("%s: none of %q in the text", key, forms)
		case string:
			n++
			if !strings.Contains(text, clean(v)) {
				t.Errorf("%s: %q is not in the text", key, v)
			}
		}
	}
	walk("", doc)
	if n < 100 {
		t.Errorf("only %d values compared", n)
	}
}

func jsonNumber(v float64) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestHostile: what a peer says does not reach the terminal as it is.
func TestHostile(t *testing.T) {
	for _, command := range []string{"show", "-d show", "-o show", "-br show", "stats", "-j show", "-j -p -d show"} {
		d := exampleNodes()
		d.order = append(d.order, "a\x1b]0;x\ab")
		d.nodes[d.order[2]] = &abi.Node{Name: d.order[2], Kind: abi.KindRemote, Status: &abi.Status{Reason: "\x9b2J\u009b2J\x7f\u202e\U000e0001"}}
		got := dstctl(t, d, command)
		if hostile(got.out) {
			t.Errorf("%s: %q", command, got.out)
		}
		if strings.HasPrefix(command, "-j") && !json.Valid([]byte(got.out)) {
			t.Errorf("%s is no JSON: %s", command, got.out)
		}
	}
}

// TestWrongKind: export and remote are about their own kind only.
func TestWrongKind(t *testing.T) {
	d := exampleNodes()
	if got := dstctl(t, d, "export set disk0 keepalive 1s"); got.code != exitRefused || !strings.Contains(got.err, "disk0 is a node, but no export") ||
		slices.Contains(d.calls, "set disk0") {
		t.Errorf("%+v after %q", got, d.calls)
	}
	got := dstctl(t, exampleNodes(), "remote show vol0")
	want := "Error: vol0 is a node, but no remote: see dstctl show vol0.\n  dstctl remote show vol0\n                     ^~~~\n"
	if got.code != exitRefused || got.err != want {
		t.Errorf("%+v", got)
	}
}
